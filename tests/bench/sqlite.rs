//! SQLite in WAL mode, as a careful programmer would keep readings in it: prepared statements, one transaction a commit.

use std::path::Path;

use anyhow::Context;
use clocher::reading::Reading;
use rusqlite::{Connection, Statement, params};

use crate::load::{self, POINTS};

/// How much SQLite promises of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synchronous {
    /// Each commit is on the card, as ours are.
    Full,
    /// Commits since the last checkpoint may be lost at a power cut.
    Normal,
}

/// How the rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// By number, as they come; what a pull reads.
    ByNumber,
    /// By point and time; what a chart reads.
    ByPoint,
}

pub(crate) struct Rows {
    connection: Connection,
    layout: Layout,
    next: i64,
}

impl Rows {
    pub(crate) fn create(file: &Path, synchronous: Synchronous, layout: Layout) -> anyhow::Result<Self> {
        let connection = Connection::open(file).with_context(|| format!("open {}", file.display()))?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch(match synchronous {
            Synchronous::Full => "PRAGMA synchronous = FULL",
            Synchronous::Normal => "PRAGMA synchronous = NORMAL",
        })?;
        connection.execute_batch("CREATE TABLE point (id INTEGER PRIMARY KEY, name TEXT)")?;
        connection.execute_batch(match layout {
            Layout::ByNumber => {
                "CREATE TABLE reading (seq INTEGER PRIMARY KEY, point INTEGER, at INTEGER, value REAL, quality INTEGER)"
            }
            Layout::ByPoint => {
                "CREATE TABLE reading (seq INTEGER, point INTEGER, at INTEGER, value REAL, quality INTEGER,
                 PRIMARY KEY (point, at, seq)) WITHOUT ROWID"
            }
        })?;
        for n in 0..POINTS {
            connection.execute("INSERT INTO point VALUES (?, ?)", params![n as i64, load::name(n)])?;
        }
        Ok(Self { connection, layout, next: 1 })
    }

    /// One commit.
    pub(crate) fn commit(&mut self, readings: &[Reading]) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        let sql = "INSERT INTO reading (seq, point, at, value, quality) VALUES (?, ?, ?, ?, ?)";
        let mut insert = transaction.prepare_cached(sql)?;
        for (n, reading) in readings.iter().enumerate() {
            insert_one(&mut insert, self.next + n as i64, n % POINTS, reading)?;
        }
        drop(insert);
        transaction.commit()?;
        self.next += readings.len() as i64;
        Ok(())
    }

    /// A point's hours: minimum, maximum, sum, count.
    pub(crate) fn hours(&self, point: usize, from_ms: i64, to_ms: i64) -> anyhow::Result<usize> {
        assert_eq!(self.layout, Layout::ByPoint, "the layout made for it");
        let mut select = self.connection.prepare_cached(
            "SELECT at / 3600000, min(value), max(value), sum(value), count(value) FROM reading
             WHERE point = ? AND at >= ? AND at < ? GROUP BY 1",
        )?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, f64>(1)?, row.get::<_, f64>(2)?, row.get::<_, f64>(3)?))
        };
        let rows = select.query_map(params![point as i64, from_ms, to_ms], row)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?.len())
    }

    /// A point's readings, each.
    pub(crate) fn raw(&self, point: usize, from_ms: i64, to_ms: i64) -> anyhow::Result<usize> {
        let mut select = self
            .connection
            .prepare_cached("SELECT seq, at, value, quality FROM reading WHERE point = ? AND at >= ? AND at < ?")?;
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, f64>(2)?, row.get::<_, i64>(3)?))
        };
        let rows = select.query_map(params![point as i64, from_ms, to_ms], row)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?.len())
    }

    /// Everything into the one file, as at an orderly end.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.connection.close().map_err(|(_, wrong)| wrong.into())
    }
}

fn insert_one(insert: &mut Statement<'_>, seq: i64, point: usize, reading: &Reading) -> rusqlite::Result<()> {
    let quality = i64::from(reading.quality.to_byte());
    insert.execute(params![seq, point as i64, load::wall_ms(reading), reading.value, quality]).map(|_| ())
}
