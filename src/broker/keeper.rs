//! The broker's records on their way to the card: one writer, in groups, so that many retained messages cost one wait.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    store::Keep,
    supervisor::{Fall, chain},
};

/// How many records may wait; beyond, who writes them waits.
const DEPTH: usize = 1_024;
/// How many are written together.
const GROUP: usize = 256;

/// The tables of the broker in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    Retained,
    Sessions,
}

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Retained => "retained",
            Self::Sessions => "mqtt-sessions",
        }
    }
}

/// One record to be written, or removed when it has no value.
struct Record {
    table: Table,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    done: oneshot::Sender<()>,
}

/// Tells when a record is on the card.
pub(super) type Kept = oneshot::Receiver<()>;

/// Where records are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Keeper(mpsc::Sender<Record>);

/// The end that writes.
#[derive(Clone)]
pub(super) struct Writer {
    records: Arc<Mutex<mpsc::Receiver<Record>>>,
    keep: Arc<dyn Keep>,
}

/// A keeper and its writer.
pub(super) fn keeper(keep: Arc<dyn Keep>) -> (Keeper, Writer) {
    let (give, take) = mpsc::channel(DEPTH);
    (Keeper(give), Writer { records: Arc::new(Mutex::new(take)), keep })
}

impl Keeper {
    pub(super) async fn put(&self, table: Table, key: &[u8], value: Vec<u8>) -> Kept {
        self.hand_in(table, key, Some(value)).await
    }

    pub(super) async fn remove(&self, table: Table, key: &[u8]) -> Kept {
        self.hand_in(table, key, None).await
    }

    async fn hand_in(&self, table: Table, key: &[u8], value: Option<Vec<u8>>) -> Kept {
        let (done, kept) = oneshot::channel();
        // When the writer has left the gateway stops, and `kept` tells so by its error.
        let _ = self.0.send(Record { table, key: key.to_vec(), value, done }).await;
        kept
    }
}

impl Writer {
    /// Writes until `stop` fires, then what still waits.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), Fall> {
        let mut records = self.records.lock().await;
        let mut group = Vec::with_capacity(GROUP);
        loop {
            tokio::select! {
                () = stop.cancelled(), if !records.is_closed() => records.close(),
                count = records.recv_many(&mut group, GROUP) => {
                    if count == 0 {
                        return Ok(());
                    }
                    let keep = Arc::clone(&self.keep);
                    let whole = std::mem::take(&mut group);
                    tokio::task::spawn_blocking(move || write(keep.as_ref(), whole)).await?;
                }
            }
        }
    }
}

/// The last value of each key is written; who handed in an earlier one is told at the same time.
fn write(keep: &dyn Keep, group: Vec<Record>) {
    let mut newest = HashMap::new();
    for (place, record) in group.iter().enumerate() {
        newest.insert((record.table, record.key.as_slice()), place);
    }
    let mut refused = 0;
    for (place, record) in group.iter().enumerate() {
        if newest.get(&(record.table, record.key.as_slice())) != Some(&place) {
            continue;
        }
        let table = record.table.name();
        let outcome = keep.hold(table, &record.key, record.value.as_deref());
        if let Err(error) = outcome {
            refused += 1;
            if refused == 1 {
                warn!(table, why = chain(&error), "Broker record not kept; it lives on in memory");
            }
        }
    }
    for record in group {
        let _ = record.done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryKeep;

    #[tokio::test]
    async fn the_last_word_about_a_key_is_kept_and_a_stop_loses_nothing() {
        let keep = Arc::new(MemoryKeep::default());
        let (keeper, writer) = keeper(keep.clone());
        let mut waiting = Vec::new();
        for n in 0..600_u16 {
            waiting.push(keeper.put(Table::Retained, b"a", n.to_string().into_bytes()).await);
        }
        waiting.push(keeper.put(Table::Sessions, b"a", vec![]).await);
        waiting.push(keeper.remove(Table::Sessions, b"a").await);
        let stop = CancellationToken::new();
        stop.cancel();
        writer.run(stop).await.expect("written");
        assert_eq!(keep.get("retained", b"a").expect("read"), Some(b"599".to_vec()));
        assert_eq!(keep.get("mqtt-sessions", b"a").expect("read"), None);
        for kept in waiting {
            kept.await.expect("told");
        }
    }
}
