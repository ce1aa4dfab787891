//! Quarter-hours: what the week and month pages read instead of every reading.
//!
//! A quarter is cut by the wall clock as it was believed when it was made, but dated by the stamps of its first and
//! last reading. When a boot's wall time becomes known, or better known, later, a quarter that no longer lies within one
//! step is read again from its readings; so sums are always right. Finer roll-ups would be larger than the readings
//! they sum up; days depend on a time zone, and are summed from quarters.

use std::collections::BTreeMap;

use super::{
    bytes::{Cursor, put_signed, put_varint},
    column::{get_values, put_values},
};
use crate::{
    clock::{Clock, Stamp},
    reading::{PointId, Stored},
    store::Bucket,
};

const QUARTER_MS: i64 = 900_000;
/// A sheaf of 64 blocks holds about a day; no sheaf holds more quarters of a point than this.
const MOST: usize = 1 << 16;

/// The readings of one point in one quarter of an hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quarter {
    pub from: Stamp,
    pub to: Stamp,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub first: f64,
    pub last: f64,
    pub count: u32,
}

impl Quarter {
    fn of(stamp: Stamp, value: f64) -> Self {
        Self { from: stamp, to: stamp, min: value, max: value, sum: value, first: value, last: value, count: 1 }
    }

    fn add(&mut self, stamp: Stamp, value: f64) {
        if stamp < self.from {
            (self.from, self.first) = (stamp, value);
        }
        if stamp >= self.to {
            (self.to, self.last) = (stamp, value);
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += value;
        self.count = self.count.saturating_add(1);
    }

    pub(super) fn holds(&self, stamp: Stamp) -> bool {
        self.from <= stamp && stamp <= self.to
    }
}

/// Gathers readings into quarters.
#[derive(Debug)]
pub(super) struct Gatherer<'a> {
    clock: &'a Clock,
    /// Wall minus monotonic, fixed per boot, so that quarters of a boot never overlap.
    offsets: BTreeMap<u32, i64>,
    quarters: BTreeMap<PointId, BTreeMap<(u32, i64), Quarter>>,
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(clock: &'a Clock) -> Self {
        Self { clock, offsets: BTreeMap::new(), quarters: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, stored: &Stored) {
        let Some(value) = stored.reading.value else { return };
        let stamp = stored.reading.stamp;
        let mono = stamp.mono_ms as i64;
        let wall = || self.clock.resolve(stamp).map_or(0, |wall| wall.unix_ms.wrapping_sub(mono));
        let offset = *self.offsets.entry(stamp.boot).or_insert_with(wall);
        let place = (stamp.boot, mono.wrapping_add(offset).div_euclid(QUARTER_MS));
        if !self.quarters.contains_key(&stored.reading.point) {
            self.quarters.insert(stored.reading.point.clone(), BTreeMap::new());
        }
        if let Some(of_point) = self.quarters.get_mut(&stored.reading.point) {
            of_point.entry(place).and_modify(|q| q.add(stamp, value)).or_insert_with(|| Quarter::of(stamp, value));
        }
    }

    pub(super) fn finish(self) -> impl Iterator<Item = (PointId, Vec<Quarter>)> {
        self.quarters.into_iter().map(|(point, quarters)| (point, quarters.into_values().collect()))
    }
}

/// Packs the quarters of a point.
pub(super) fn encode(quarters: &[Quarter]) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, quarters.len() as u64);
    let mut before = (0u32, 0u64);
    for quarter in quarters {
        put_signed(&mut body, i64::from(quarter.from.boot) - i64::from(before.0));
        put_signed(&mut body, quarter.from.mono_ms.wrapping_sub(before.1) as i64);
        put_varint(&mut body, quarter.to.mono_ms.saturating_sub(quarter.from.mono_ms));
        put_varint(&mut body, u64::from(quarter.count));
        before = (quarter.from.boot, quarter.from.mono_ms);
    }
    // A sum of decimals carries noise far behind the digits that mean something; without it, it packs as they do.
    let clean = |sum: f64| if sum.abs() < 1e9 { (sum * 1e6).round() / 1e6 } else { sum };
    let column = |pick: fn(&Quarter) -> f64| quarters.iter().map(pick).collect::<Vec<_>>();
    put_values(&mut body, &column(|q| q.first));
    put_values(&mut body, &column(|q| q.min));
    put_values(&mut body, &column(|q| q.max));
    put_values(&mut body, &column(|q| q.last));
    put_values(&mut body, &quarters.iter().map(|q| clean(q.sum)).collect::<Vec<_>>());
    let packed = zstd::bulk::compress(&body, 9).unwrap_or_default();
    let mut out = Vec::with_capacity(8 + packed.len());
    out.extend(crc32fast::hash(&packed).to_le_bytes());
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(packed);
    out
}

/// The inverse of [`encode`]; `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Quarter>> {
    let mut cursor = Cursor(bytes);
    let (checksum, length) = (cursor.u32()?, cursor.u32()? as usize);
    if crc32fast::hash(cursor.0) != checksum || length > MOST * 64 {
        return None;
    }
    let body = zstd::bulk::decompress(cursor.0, length).ok()?;
    let mut cursor = Cursor(&body);
    let count = cursor.count(MOST)?;
    let mut frames = Vec::with_capacity(count.min(body.len()));
    let mut before = (0i64, 0u64);
    for _ in 0..count {
        before.0 = before.0.checked_add(cursor.signed()?)?;
        before.1 = before.1.wrapping_add(cursor.signed()? as u64);
        let boot = u32::try_from(before.0).ok()?;
        let to = before.1.checked_add(cursor.varint()?)?;
        frames.push((
            Stamp { boot, mono_ms: before.1 },
            Stamp { boot, mono_ms: to },
            u32::try_from(cursor.varint()?).ok()?,
        ));
    }
    let columns: [Vec<f64>; 5] = [(); 5].map(|()| get_values(&mut cursor, count).unwrap_or_default());
    let [first, min, max, last, sum] = &columns;
    let quarter = |(n, (from, to, count)): (usize, (Stamp, Stamp, u32))| {
        Some(Quarter {
            from,
            to,
            count,
            first: *first.get(n)?,
            min: *min.get(n)?,
            max: *max.get(n)?,
            last: *last.get(n)?,
            sum: *sum.get(n)?,
        })
    };
    frames.into_iter().enumerate().map(quarter).collect()
}

/// What `history()` builds: steps of equal length from a wall time on.
pub(super) struct Steps<'a> {
    clock: &'a Clock,
    from_ms: i64,
    to_ms: i64,
    step_ms: i64,
    /// By number of step: the sum, and when its first and last value were taken.
    sums: BTreeMap<i64, (Bucket, i64, i64)>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(clock: &'a Clock, from_ms: i64, to_ms: i64, step_ms: i64) -> Self {
        Self { clock, from_ms, to_ms, step_ms, sums: BTreeMap::new() }
    }

    fn place(&self, wall_ms: i64) -> Option<i64> {
        (self.from_ms <= wall_ms && wall_ms < self.to_ms).then(|| (wall_ms - self.from_ms) / self.step_ms)
    }

    fn wall(&self, stamp: Stamp) -> Option<i64> {
        self.clock.resolve(stamp).map(|wall| wall.unix_ms)
    }

    pub(super) fn add(&mut self, stored: &Stored) {
        let Some(value) = stored.reading.value else { return };
        let Some(wall) = self.wall(stored.reading.stamp) else { return };
        let Some(place) = self.place(wall) else { return };
        let sum = Bucket { start_ms: 0, min: value, max: value, sum: value, first: value, last: value, count: 1 };
        self.merge(place, sum, wall, wall);
    }

    /// Takes a quarter as a whole. False when it does not lie within one step and must be read again.
    pub(super) fn add_quarter(&mut self, quarter: &Quarter) -> bool {
        let (Some(a), Some(b)) = (self.wall(quarter.from), self.wall(quarter.to)) else { return true };
        let (from, to) = (a.min(b), a.max(b));
        if to < self.from_ms || from >= self.to_ms {
            return true;
        }
        let Some(place) = self.place(from).filter(|place| self.place(to) == Some(*place)) else { return false };
        let Quarter { min, max, sum, first, last, count, .. } = *quarter;
        self.merge(place, Bucket { start_ms: 0, min, max, sum, first, last, count }, a, b);
        true
    }

    fn merge(&mut self, place: i64, new: Bucket, from: i64, to: i64) {
        let start_ms = self.from_ms + place * self.step_ms;
        let entry = self.sums.entry(place);
        let merge = |(sum, first_at, last_at): &mut (Bucket, i64, i64)| {
            if from < *first_at {
                (sum.first, *first_at) = (new.first, from);
            }
            if to >= *last_at {
                (sum.last, *last_at) = (new.last, to);
            }
            sum.min = sum.min.min(new.min);
            sum.max = sum.max.max(new.max);
            sum.sum += new.sum;
            sum.count = sum.count.saturating_add(new.count);
        };
        entry.and_modify(merge).or_insert((Bucket { start_ms, ..new }, from, to));
    }

    pub(super) fn finish(self) -> Vec<Bucket> {
        self.sums.into_values().map(|(bucket, _, _)| bucket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{HeldTime, Source};

    fn clock() -> Clock {
        let clock = Clock::new(1, HeldTime::at(1_800_000_000_000, Source::Ntp), []);
        clock.observe();
        clock
    }

    fn quarters(clock: &Clock) -> Vec<Quarter> {
        let mut gatherer = Gatherer::new(clock);
        for stored in crate::buffer::tests_load::rounds(1, 1000) {
            gatherer.add(&Stored { seq: 1, reading: stored });
        }
        gatherer.finish().next().map(|(_, quarters)| quarters).unwrap_or_default()
    }

    #[test]
    fn quarters_come_back_and_are_small() {
        let made = quarters(&clock());
        assert!(made.len() >= 11);
        let bytes = encode(&made);
        let back = decode(&bytes).expect("decodes");
        assert_eq!(back.len(), made.len());
        for (back, made) in back.iter().zip(&made) {
            assert!((back.sum - made.sum).abs() < 1e-5);
            assert_eq!(Quarter { sum: 0.0, ..*back }, Quarter { sum: 0.0, ..*made });
        }
        assert!(bytes.len() < made.len() * 16 + 60, "{} bytes for {}", bytes.len(), made.len());
    }

    #[test]
    fn quarters_do_not_overlap() {
        assert!(quarters(&clock()).windows(2).all(|pair| pair[0].to < pair[1].from));
    }

    #[test]
    fn a_damaged_roll_up_is_noticed() {
        let bytes = encode(&quarters(&clock()));
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 4;
            // A length that merely leaves more room unpacks to the same.
            assert!(decode(&wrong).is_none_or(|back| (4..8).contains(&at) && back == decode(&bytes).expect("decodes")));
        }
    }
}
