//! Readings in a row as one compressed, self-contained, checksummed block: what sled and the head file hold.
//!
//! A block covers numbers without a hole, of any points. Per block: names (front-coded), whose turn it was, boots,
//! stamps; per point: qualities (run-length), values (`column.rs`); then zstd. It says whose store it is and finds
//! its own end, so it can be picked out of a damaged file. A reading taken out of it later leaves its number behind, the
//! point and why it went, in next to no space; neither its value nor its own time.

use std::{collections::HashMap, io};

use super::{
    bytes::{Cursor, put_signed, put_varint},
    column::{get_values, put_values},
};
use crate::{
    clock::Stamp,
    reading::{PointId, Quality, Reading, Stored},
    store::Cause,
};

/// The most readings a block holds.
pub const MOST_READINGS: usize = 16_384;
/// The most bytes a block unpacks to.
const MOST_BODY: usize = 2 << 20;
/// First bytes of a block.
pub(super) const MAGIC: [u8; 4] = *b"CKB1";
/// Magic, length, checksum, store, first number, count, unpacked length.
const HEADER: usize = 4 + 4 + 4 + 4 + 8 + 4 + 4;
/// In the run of qualities: there is no value. [`Quality::to_byte`] leaves this bit free.
const NO_VALUE: u8 = 0x20;
/// In the run of qualities: taken out to make room, and at a person's wish. "Good without a value, for a reason" is no
/// quality.
const EVICTED: u8 = NO_VALUE | 0x1f;
const ERASED: u8 = NO_VALUE | 0x1e;

/// Why bytes are not a block.
#[derive(Debug, thiserror::Error)]
pub enum BlockFault {
    /// They do not begin like one, or end too soon.
    #[error("not the beginning of a block, or cut short")]
    NotABlock,
    /// They are not what was written.
    #[error("the checksum does not match")]
    Checksum,
    /// They cannot be unpacked.
    #[error("the block does not unpack")]
    Unpack(#[source] io::Error),
    /// They are well kept but make no sense.
    #[error("the block contradicts itself: {0}")]
    Nonsense(&'static str),
}

/// A block taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// The store it belongs to, see [`crate::store::Archive::identity`]; a short form.
    pub store: u32,
    /// Its first number.
    pub first: u64,
    /// Its last number.
    pub last: u64,
    /// The readings, in order. Between them the numbers have no hole but those of `gone`.
    pub readings: Vec<Stored>,
    /// What was taken out since, in order.
    pub gone: Vec<Gone>,
    /// How many of the bytes were the block.
    pub length: usize,
}

/// What is left of a reading that was taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its number.
    pub seq: u64,
    /// The point it was of.
    pub point: PointId,
    /// About when: as what came before it. The first and the last of a block keep their time.
    pub stamp: Stamp,
    /// [`Cause::SizeLimit`] or [`Cause::Erased`].
    pub cause: Cause,
}

impl Block {
    /// The block of readings in a row, as it would come back.
    #[cfg(test)]
    pub(super) fn of(store: u32, first: u64, readings: Vec<Reading>) -> Self {
        let last = first + readings.len() as u64 - 1;
        let readings = (first..).zip(readings).map(|(seq, reading)| Stored { seq, reading }).collect();
        Self { store, first, last, readings, gone: Vec::new(), length: 0 }
    }

    /// Takes readings out, each for a cause, and gives them back.
    pub(super) fn take_out(&mut self, which: impl Fn(&Stored) -> Option<Cause>) -> Vec<Stored> {
        let readings = std::mem::take(&mut self.readings);
        let mut taken = Vec::new();
        let mut gone = std::mem::take(&mut self.gone);
        for stored in readings {
            match which(&stored) {
                None => self.readings.push(stored),
                Some(cause) => {
                    let Reading { point, stamp, .. } = &stored.reading;
                    gone.push(Gone { seq: stored.seq, point: point.clone(), stamp: *stamp, cause });
                    taken.push(stored);
                }
            }
        }
        gone.sort_by_key(|gone| gone.seq);
        self.gone = gone;
        taken
    }

    /// Readings and what is left of others, in order of number.
    fn lines(&self) -> Vec<Line<'_>> {
        let readings = self.readings.iter().map(|stored| (stored.seq, Line::of(&stored.reading)));
        let gone = self.gone.iter().map(|gone| (gone.seq, Line::left_of(gone)));
        let mut lines = readings.chain(gone).collect::<Vec<_>>();
        lines.sort_by_key(|(seq, _)| *seq);
        let mut lines = lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
        forget_times(&mut lines);
        lines
    }
}

/// When something was taken out of the middle is nobody's business any more, and would cost space.
fn forget_times(lines: &mut [Line<'_>]) {
    let last = lines.len().saturating_sub(1);
    let mut before = None;
    for (place, line) in lines.iter_mut().enumerate() {
        if let Some(before) = before.filter(|_| line.is_gone() && place < last) {
            line.stamp = before;
        }
        before = Some(line.stamp);
    }
}

/// What a block says of one number.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    point: &'a PointId,
    stamp: Stamp,
    value: Option<f64>,
    coded: u8,
}

impl<'a> Line<'a> {
    fn of(reading: &'a Reading) -> Self {
        let mark = if reading.value.is_some() { 0 } else { NO_VALUE };
        let Reading { point, stamp, value, quality } = reading;
        Self { point, stamp: *stamp, value: *value, coded: quality.to_byte() | mark }
    }

    fn left_of(gone: &'a Gone) -> Self {
        let coded = if gone.cause == Cause::Erased { ERASED } else { EVICTED };
        Self { point: &gone.point, stamp: gone.stamp, value: None, coded }
    }

    fn is_gone(&self) -> bool {
        matches!(self.coded, EVICTED | ERASED)
    }
}

/// Packs readings numbered in a row from `first`. At most [`MOST_READINGS`].
pub(super) fn encode(store: u32, first: u64, readings: &[Reading], level: i32) -> Vec<u8> {
    pack(store, first, &readings.iter().map(Line::of).collect::<Vec<_>>(), level)
}

/// Packs a block again, with what was taken out of it.
pub(super) fn encode_again(block: &Block, level: i32) -> Vec<u8> {
    pack(block.store, block.first, &block.lines(), level)
}

fn pack(store: u32, first: u64, lines: &[Line<'_>], level: i32) -> Vec<u8> {
    debug_assert!(lines.len() <= MOST_READINGS);
    let body = encode_body(lines);
    let packed = zstd::bulk::compress(&body, level).ok().filter(|packed| packed.len() < body.len());
    let payload = packed.as_deref().unwrap_or(&body);
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend(MAGIC);
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend(store.to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend((lines.len() as u32).to_le_bytes());
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(payload);
    let checksum = crc32fast::hash(&out[12..]);
    out[8..12].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Unpacks a block from the front of `bytes`, whatever they are, in bounded memory.
///
/// # Errors
/// When they are not a block of ours.
pub fn decode(bytes: &[u8]) -> Result<Block, BlockFault> {
    let header = Header::read(bytes)?;
    let payload = &bytes[HEADER..header.length];
    let body;
    let body = if payload.len() == header.unpacked {
        payload
    } else {
        body = zstd::bulk::decompress(payload, header.unpacked).map_err(BlockFault::Unpack)?;
        &body
    };
    let Header { store, first, count, length, .. } = header;
    let (readings, gone) = decode_body(body, first, count).ok_or(BlockFault::Nonsense("columns"))?;
    Ok(Block { store, first, last: first + count as u64 - 1, readings, gone, length })
}

/// Whether this is a whole block of that store, beginning at that number. Its body is not unpacked.
pub(super) fn is_whole(bytes: &[u8], store: u32, first: u64) -> bool {
    Header::read(bytes).is_ok_and(|header| header.store == store && header.first == first)
}

/// Whose a block is and which numbers it covers, as its header says under its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub store: u32,
    pub first: u64,
    pub last: u64,
}

/// Where each block with a right checksum begins in bytes that may be anything, for salvage.
pub(super) fn find(bytes: &[u8]) -> impl Iterator<Item = (usize, Numbers)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(step) = memchr::memmem::find(bytes.get(at..)?, &MAGIC) {
            let start = at + step;
            match Header::read(bytes.get(start..)?) {
                Ok(Header { store, first, count, length, .. }) => {
                    at = start + length;
                    return Some((start, Numbers { store, first, last: first + count as u64 - 1 }));
                }
                Err(_) => at = start + 1,
            }
        }
        None
    })
}

struct Header {
    store: u32,
    first: u64,
    count: usize,
    unpacked: usize,
    length: usize,
}

impl Header {
    /// Reads and checks the checksum.
    fn read(bytes: &[u8]) -> Result<Self, BlockFault> {
        let mut cursor = Cursor(bytes);
        let parts = (|| {
            let magic = cursor.array::<4>()?;
            Some((magic, cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u64()?, cursor.u32()?, cursor.u32()?))
        })();
        let (magic, packed, checksum, store, first, count, unpacked) = parts.ok_or(BlockFault::NotABlock)?;
        let (count, unpacked) = (count as usize, unpacked as usize);
        let length = HEADER.checked_add(packed as usize).filter(|length| *length <= bytes.len());
        let length = length.filter(|_| magic == MAGIC).ok_or(BlockFault::NotABlock)?;
        if crc32fast::hash(&bytes[12..length]) != checksum {
            return Err(BlockFault::Checksum);
        }
        if count == 0 || count > MOST_READINGS || unpacked > MOST_BODY || first.checked_add(count as u64).is_none() {
            return Err(BlockFault::Nonsense("sizes"));
        }
        Ok(Self { store, first, count, unpacked, length })
    }
}

fn encode_body(readings: &[Line<'_>]) -> Vec<u8> {
    let (names, turns) = whose_turn(readings);
    let mut out = Vec::with_capacity(64 + names.len() * 24 + readings.len() * 3);
    put_names(&mut out, &names);
    put_turns(&mut out, &turns, names.len());
    put_boots(&mut out, readings);
    put_stamps(&mut out, readings, &turns, names.len());
    let mut columns = vec![Vec::new(); names.len()];
    for (reading, turn) in readings.iter().zip(&turns) {
        columns[*turn].push(reading);
    }
    for column in &columns {
        put_runs(&mut out, column.iter().map(|line| line.coded), Vec::push);
    }
    for column in &columns {
        let values = column.iter().filter_map(|reading| reading.value).collect::<Vec<_>>();
        put_values(&mut out, &values);
    }
    out
}

fn decode_body(body: &[u8], first: u64, count: usize) -> Option<(Vec<Stored>, Vec<Gone>)> {
    let mut cursor = Cursor(body);
    let names = get_names(&mut cursor, count)?;
    let turns = get_turns(&mut cursor, names.len(), count)?;
    let boots = get_runs(&mut cursor, count, |cursor| u32::try_from(cursor.varint()?).ok())?;
    let stamps = get_stamps(&mut cursor, &turns, names.len())?;
    let mut lengths = vec![0usize; names.len()];
    for turn in &turns {
        lengths[*turn] += 1;
    }
    let qualities =
        lengths.iter().map(|length| get_runs(&mut cursor, *length, Cursor::byte)).collect::<Option<Vec<_>>>()?;
    let mut columns = Vec::with_capacity(names.len());
    for qualities in qualities {
        let present = qualities.iter().filter(|quality| **quality & NO_VALUE == 0).count();
        columns.push((qualities.into_iter(), get_values(&mut cursor, present)?.into_iter()));
    }
    let (mut readings, mut gone) = (Vec::with_capacity(count), Vec::new());
    // A range that ends, so that nothing is counted past the last number there is.
    for (((turn, boot), mono_ms), seq) in turns.into_iter().zip(boots).zip(stamps).zip(first..first + count as u64) {
        let (qualities, values) = columns.get_mut(turn)?;
        let coded = qualities.next()?;
        let (point, stamp) = (names.get(turn)?.clone(), Stamp { boot, mono_ms });
        let cause = match coded {
            EVICTED => Cause::SizeLimit,
            ERASED => Cause::Erased,
            _ => {
                let value = if coded & NO_VALUE == 0 { Some(values.next()?) } else { None };
                let quality = Quality::from_byte(coded & !NO_VALUE)?;
                readings.push(Stored { seq, reading: Reading { point, stamp, value, quality } });
                continue;
            }
        };
        gone.push(Gone { seq, point, stamp, cause });
    }
    cursor.0.is_empty().then_some((readings, gone))
}

/// The points in order of first appearance, and for each reading which of them it is of.
fn whose_turn<'a>(readings: &[Line<'a>]) -> (Vec<&'a PointId>, Vec<usize>) {
    let mut names = Vec::new();
    let mut places = HashMap::new();
    let turns = readings
        .iter()
        .map(|reading| {
            *places.entry(reading.point).or_insert_with(|| {
                names.push(reading.point);
                names.len() - 1
            })
        })
        .collect();
    (names, turns)
}

/// Each name as what it shares with the one before, and the rest.
fn put_names(out: &mut Vec<u8>, names: &[&PointId]) {
    put_varint(out, names.len() as u64);
    let mut before = "";
    for name in names {
        let name = name.as_str();
        let shared = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        put_varint(out, shared as u64);
        put_varint(out, (name.len() - shared) as u64);
        out.extend(&name.as_bytes()[shared..]);
        before = name;
    }
}

fn get_names(cursor: &mut Cursor<'_>, most: usize) -> Option<Vec<PointId>> {
    let count = cursor.count(most)?;
    let mut names = Vec::<PointId>::with_capacity(count);
    for _ in 0..count {
        let before = names.last().map_or("", PointId::as_str);
        let mut name = before.get(..cursor.count(before.len())?)?.to_owned();
        let rest = cursor.count(96)?;
        name.push_str(std::str::from_utf8(cursor.take(rest)?).ok()?);
        names.push(name.parse().ok()?);
    }
    Some(names)
}

/// Points are polled in rounds: the one that followed last time is likely to follow again. Written are the lengths
/// of right guesses, and what came instead.
struct Guess {
    follower: Vec<usize>,
    last: Option<usize>,
}

impl Guess {
    fn new(points: usize) -> Self {
        Self { follower: (1..=points).collect(), last: None }
    }

    fn next(&self) -> usize {
        self.last.and_then(|last| self.follower.get(last)).copied().unwrap_or(0)
    }

    fn was(&mut self, turn: usize) {
        if let Some(follower) = self.last.and_then(|last| self.follower.get_mut(last)) {
            *follower = turn;
        }
        self.last = Some(turn);
    }
}

fn put_turns(out: &mut Vec<u8>, turns: &[usize], points: usize) {
    let mut guess = Guess::new(points);
    let mut right = 0;
    for turn in turns {
        if guess.next() == *turn {
            right += 1;
        } else {
            put_varint(out, right);
            put_varint(out, *turn as u64);
            right = 0;
        }
        guess.was(*turn);
    }
    put_varint(out, right);
}

fn get_turns(cursor: &mut Cursor<'_>, points: usize, count: usize) -> Option<Vec<usize>> {
    let mut guess = Guess::new(points);
    let mut turns = Vec::with_capacity(count);
    loop {
        for _ in 0..cursor.count(count - turns.len())? {
            turns.push(guess.next());
            guess.was(guess.next());
        }
        if turns.len() == count {
            return turns.iter().all(|turn| *turn < points).then_some(turns);
        }
        let turn = cursor.count(points.checked_sub(1)?)?;
        turns.push(turn);
        guess.was(turn);
    }
}

fn put_boots(out: &mut Vec<u8>, readings: &[Line<'_>]) {
    put_runs(out, readings.iter().map(|reading| reading.stamp.boot), |out, boot| put_varint(out, u64::from(boot)));
}

fn put_runs<T: PartialEq + Copy>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, put: impl Fn(&mut Vec<u8>, T)) {
    let mut items = items.peekable();
    while let Some(item) = items.next() {
        let mut run = 1;
        while items.next_if_eq(&item).is_some() {
            run += 1;
        }
        put(out, item);
        put_varint(out, run);
    }
}

fn get_runs<'a, T: Copy>(
    cursor: &mut Cursor<'a>,
    count: usize,
    get: impl Fn(&mut Cursor<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut items = Vec::with_capacity(count);
    while items.len() < count {
        let item = get(cursor)?;
        let run = cursor.count(count - items.len())?;
        if run == 0 {
            return None;
        }
        items.resize(items.len() + run, item);
    }
    Some(items)
}

/// How a stamp is guessed from those before it.
#[derive(Debug, Clone, Copy)]
enum Rhythm {
    /// As the reading before: many values of one frame.
    Same,
    /// As long after the point's last one as that was after the one before: each device at its own pace.
    OwnPace,
    /// As long after the point's last one as its neighbour in the round: one bus, polled in rounds.
    Round,
}

impl Rhythm {
    const ALL: [Self; 3] = [Self::Same, Self::OwnPace, Self::Round];
}

/// What guessing needs to remember. The same steps are taken when packing and unpacking.
struct Stamps {
    rhythm: Rhythm,
    before: i64,
    step: i64,
    points: Vec<Option<(i64, i64)>>,
}

impl Stamps {
    fn new(rhythm: Rhythm, points: usize) -> Self {
        Self { rhythm, before: 0, step: 0, points: vec![None; points] }
    }

    fn guess(&self, turn: usize) -> i64 {
        match (self.rhythm, self.points.get(turn).copied().flatten()) {
            (Rhythm::Same, _) | (_, None) => self.before,
            (Rhythm::OwnPace, Some((last, pace))) => last.wrapping_add(pace),
            (Rhythm::Round, Some((last, _))) => last.wrapping_add(self.step),
        }
    }

    fn was(&mut self, turn: usize, mono: i64) {
        self.before = mono;
        let Some(point) = self.points.get_mut(turn) else { return };
        let pace = point.map_or(0, |(last, _)| mono.wrapping_sub(last));
        if point.is_some() {
            self.step = pace;
        }
        *point = Some((mono, pace));
    }
}

fn put_stamps(out: &mut Vec<u8>, readings: &[Line<'_>], turns: &[usize], points: usize) {
    let candidates = Rhythm::ALL.into_iter().map(|rhythm| {
        let mut bytes = vec![rhythm as u8];
        let mut stamps = Stamps::new(rhythm, points);
        for (reading, turn) in readings.iter().zip(turns) {
            let mono = reading.stamp.mono_ms as i64;
            put_signed(&mut bytes, mono.wrapping_sub(stamps.guess(*turn)));
            stamps.was(*turn, mono);
        }
        bytes
    });
    out.extend(candidates.min_by_key(|bytes| surprise(bytes)).unwrap_or_default());
}

/// About what the compressor will make of it: bytes that differ from the one before cost, repeated ones hardly.
fn surprise(bytes: &[u8]) -> usize {
    bytes.len() / 16 + bytes.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

fn get_stamps(cursor: &mut Cursor<'_>, turns: &[usize], points: usize) -> Option<Vec<u64>> {
    let rhythm = *Rhythm::ALL.get(usize::from(cursor.byte()?))?;
    let mut stamps = Stamps::new(rhythm, points);
    let mut monos = Vec::with_capacity(turns.len());
    for turn in turns {
        let mono = stamps.guess(*turn).wrapping_add(cursor.signed()?);
        stamps.was(*turn, mono);
        monos.push(mono as u64);
    }
    Some(monos)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::reading::Why;

    fn odd_value(rng: &mut StdRng) -> Option<f64> {
        match rng.random_range(0..8) {
            0 => None,
            1 => Some(-0.0),
            2 => Some(1e300),
            3 => Some(f64::from_bits(rng.random())).filter(|value| value.is_finite()),
            4 => Some(rng.random_range(-1e6..1e6)),
            5 => Some(f64::from(rng.random_range(-1_000_000..1_000_000)) / 1000.0),
            6 => Some(f64::MIN_POSITIVE),
            _ => Some(f64::from(rng.random_range(0..3))),
        }
    }

    fn odd_quality(rng: &mut StdRng) -> Quality {
        let why = Why::ALL[rng.random_range(0..Why::ALL.len())];
        [Quality::Good, Quality::Suspect(why), Quality::Stale(why), Quality::Bad(why)][rng.random_range(0..4)]
    }

    fn odd_readings(rng: &mut StdRng) -> Vec<Reading> {
        let points = rng.random_range(1..30);
        let count = rng.random_range(1..400);
        let whole = rng.random_range(0..4) > 0;
        (0..count)
            .map(|n| Reading {
                point: format!("p{}/{}", rng.random_range(0..points), "x".repeat(n % 5 + 1)).parse().expect("a name"),
                stamp: Stamp {
                    boot: rng.random_range(1..4),
                    mono_ms: if whole { n as u64 * 10_000 } else { rng.random() },
                },
                value: odd_value(rng),
                quality: odd_quality(rng),
            })
            .collect()
    }

    fn bits(readings: &[Reading]) -> Vec<(PointId, Stamp, Option<u64>, Quality)> {
        readings.iter().map(|r| (r.point.clone(), r.stamp, r.value.map(f64::to_bits), r.quality)).collect()
    }

    #[test]
    fn any_readings_come_back_bit_for_bit() {
        let mut rng = StdRng::seed_from_u64(1);
        for round in 0..600 {
            let readings = odd_readings(&mut rng);
            let bytes = encode(7, round + 1, &readings, 3);
            let block = decode(&bytes).expect("decodes");
            assert_eq!((block.store, block.length), (7, bytes.len()));
            let (seqs, back): (Vec<_>, Vec<_>) = block.readings.into_iter().map(|s| (s.seq, s.reading)).unzip();
            assert_eq!(bits(&back), bits(&readings));
            assert!(seqs.into_iter().eq(round + 1..round + 1 + readings.len() as u64));
        }
    }

    #[test]
    fn what_is_taken_out_leaves_its_number_and_neither_its_value_nor_its_time() {
        let mut rng = StdRng::seed_from_u64(6);
        for round in 0..300 {
            let first = round * 10_000 + 1;
            let whole = Block::of(7, first, odd_readings(&mut rng));
            let mut thinned = whole.clone();
            let which = |stored: &Stored| (stored.reading.point.as_str() < "p12").then_some(Cause::Erased);
            let taken = thinned.take_out(which);
            let every_third = |stored: &Stored| stored.seq.is_multiple_of(3).then_some(Cause::SizeLimit);
            let taken = taken.len() + thinned.take_out(every_third).len();
            let back = decode(&encode_again(&thinned, 3)).expect("decodes");
            assert_eq!((back.first, back.last, back.gone.len()), (whole.first, whole.last, taken));
            assert_eq!(back.readings.len() + taken, whole.readings.len());
            let kept = whole.readings.iter().filter(|s| which(s).is_none() && every_third(s).is_none());
            assert!(kept.zip(&back.readings).all(|(a, b)| a.seq == b.seq
                && bits(std::slice::from_ref(&a.reading)) == bits(std::slice::from_ref(&b.reading))));
            for gone in &back.gone {
                let was = &whole.readings[(gone.seq - first) as usize].reading;
                let expected = if which(&Stored { seq: gone.seq, reading: was.clone() }).is_some() {
                    Cause::Erased
                } else {
                    Cause::SizeLimit
                };
                assert_eq!((&gone.point, gone.cause), (&was.point, expected));
                let kept = gone.seq == whole.first || gone.seq == whole.last;
                let stamp = if kept { was.stamp } else { back.stamp_at(gone.seq - 1) };
                assert_eq!(gone.stamp, stamp);
            }
            assert_eq!(decode(&encode_again(&back, 3)).expect("decodes"), back, "thinning nothing changes nothing");
        }
    }

    impl Block {
        fn stamp_at(&self, seq: u64) -> Stamp {
            let reading = self.readings.iter().find(|s| s.seq == seq).map(|s| s.reading.stamp);
            reading.or_else(|| self.gone.iter().find(|g| g.seq == seq).map(|g| g.stamp)).expect("a number of the block")
        }
    }

    #[test]
    fn what_is_left_of_readings_takes_next_to_no_space() {
        let whole = Block::of(7, 1, crate::buffer::tests_load::rounds(1, 100));
        let mut thinned = whole.clone();
        let taken = thinned.take_out(|s| s.reading.point.as_str().ends_with("power").then_some(Cause::SizeLimit)).len();
        thinned.take_out(|s| (s.reading.point.as_str() < "hall-5").then_some(Cause::SizeLimit));
        let left = whole.readings.len() - thinned.readings.len();
        assert_eq!((taken, left), (1000, 3000));
        let (before, after) = (encode_again(&whole, 19).len(), encode_again(&thinned, 19).len());
        thinned.take_out(|_| Some(Cause::SizeLimit));
        let nothing = encode_again(&thinned, 19).len();
        println!("{before} bytes, {after} with {left} of 5000 taken out, {nothing} with all");
        assert!(after < before * 55 / 100 && nothing < 400, "{before} {after} {nothing}");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let mut rng = StdRng::seed_from_u64(2);
        let bytes = encode(7, 1, &odd_readings(&mut rng), 3);
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1 << (at % 8);
            assert!(decode(&wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_body_that_lies_is_refused_without_panic_or_much_memory() {
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..20_000 {
            let readings = odd_readings(&mut rng);
            let mut body = encode_body(&[Line::of(&readings[0])]);
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..body.len());
                body[at] = rng.random();
            }
            if let Some((readings, gone)) = decode_body(&body, 1, rng.random_range(1..MOST_READINGS)) {
                assert!(readings.len() + gone.len() <= MOST_READINGS);
            }
        }
    }

    #[test]
    fn sound_blocks_are_found_among_rubbish() {
        let mut rng = StdRng::seed_from_u64(4);
        let blocks = (0..5u64).map(|n| encode(7, n * 1000 + 1, &odd_readings(&mut rng), 3)).collect::<Vec<_>>();
        let mut file = vec![b'C'; 100];
        for (n, block) in blocks.iter().enumerate() {
            let mut block = block.clone();
            if n == 2 {
                block[40] ^= 1;
            }
            file.extend(block);
            file.extend(b"CKB1 and other rubbish");
        }
        let found = find(&file).map(|(at, numbers)| (numbers.first, &file[at..])).collect::<Vec<_>>();
        assert_eq!(found.len(), 4);
        for ((first, at), n) in found.into_iter().zip([0u64, 1, 3, 4]) {
            assert!(first == n * 1000 + 1 && at.starts_with(&blocks[n as usize]));
        }
    }

    #[test]
    fn a_day_of_fifty_points_takes_little_more_than_a_byte_a_reading() {
        let readings = crate::buffer::tests_load::rounds(1, 100);
        let bytes = encode(7, 1, &readings, 19);
        let each = bytes.len() as f64 / readings.len() as f64;
        println!("{} readings in {} bytes: {each:.3} bytes each", readings.len(), bytes.len());
        assert!(each < 1.1, "{each}");
    }
}
