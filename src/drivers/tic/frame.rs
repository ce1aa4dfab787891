//! Frames and groups of the TIC: from single bytes to labelled data whose checksum holds.
//!
//! Bounded whatever comes; what the labels mean is in `labels.rs`.
//! source: Enedis-NOI-CPT_54E v3, §5.3 (frames and groups), §5.3.6 (checksum).

/// Longest frame kept. The longest seen is 1442 bytes (three-phase standard mode).
const LONGEST_FRAME: usize = 4096;
/// So many bytes without a start of frame are not a TIC on this speed and framing; a whole frame is never longer.
const LONGEST_NOISE: usize = 4096;
/// The note says 8 characters; its own table has `SMAXSN1-1`.
const LONGEST_LABEL: usize = 10;

const STX: u8 = 0x02;
const ETX: u8 = 0x03;
/// Ends an aborted transmission (Euridis); the frame is lost.
const EOT: u8 = 0x04;
const LF: u8 = b'\n';
const CR: u8 = b'\r';
const HT: u8 = b'\t';
/// What stands for a byte whose parity is wrong: no group can hold it.
const BAD_PARITY: u8 = 0x00;

/// Why bytes were not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Dropped {
    #[error("{0} bytes without a start of frame (02): not a TIC, or another speed or framing; they begin {1}")]
    NoStart(usize, String),
    #[error("frame of {0} bytes without its end (03)")]
    NoEnd(usize),
    #[error("frame aborted by the meter after {0} bytes")]
    Aborted(usize),
    #[error("frame longer than {LONGEST_FRAME} bytes")]
    TooLong,
    #[error("the line is not in raw mode: CR arrives as LF ({0} bytes without any CR); open it raw (-icrnl -isig)")]
    Cooked(usize),
    #[error("empty frame")]
    Empty,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Framer {
    frame: Vec<u8>,
    inside: bool,
    /// The start of frame came with its parity bit: a 7E1 line read as 8N1.
    parity: bool,
    noise: usize,
    noise_begins: Vec<u8>,
}

impl Framer {
    /// Takes a byte. At the end of a frame calls `frame` with what is between STX and ETX.
    pub(super) fn push<R>(&mut self, byte: u8, frame: impl FnOnce(Result<&[u8], Dropped>) -> R) -> Option<R> {
        let low = byte & 0x7f;
        if low == STX && !self.is_damaged(byte) {
            let cut_short = self.take_cut_short();
            self.inside = true;
            self.parity = byte & 0x80 != 0;
            return cut_short.map(|dropped| frame(Err(dropped)));
        }
        if !self.inside {
            return self.noise(byte).map(|dropped| frame(Err(dropped)));
        }
        match if self.is_damaged(byte) { BAD_PARITY } else { low } {
            ETX => self.end(frame),
            EOT => Some(frame(Err(Dropped::Aborted(self.leave())))),
            _ if self.frame.len() >= LONGEST_FRAME => {
                let dropped = self.cooked().unwrap_or(Dropped::TooLong);
                self.leave();
                Some(frame(Err(dropped)))
            }
            byte => {
                self.frame.push(byte);
                None
            }
        }
    }

    /// The stream is over: what was half heard, if anything.
    pub(super) fn take_cut_short(&mut self) -> Option<Dropped> {
        let dropped = self.cooked().unwrap_or(Dropped::NoEnd(self.frame.len()));
        (self.leave() > 0).then_some(dropped)
    }

    /// Even parity, in bit 7, only when the frame's first byte carried it.
    fn is_damaged(&self, byte: u8) -> bool {
        self.inside && self.parity && !byte.count_ones().is_multiple_of(2)
    }

    fn end<R>(&mut self, frame: impl FnOnce(Result<&[u8], Dropped>) -> R) -> Option<R> {
        let told = match self.cooked() {
            Some(cooked) => frame(Err(cooked)),
            None if self.frame.is_empty() => frame(Err(Dropped::Empty)),
            None => frame(Ok(&self.frame)),
        };
        self.leave();
        Some(told)
    }

    /// Leaves the frame; how long it was.
    fn leave(&mut self) -> usize {
        let length = self.frame.len();
        self.frame.clear();
        self.inside = false;
        self.noise = 0;
        self.noise_begins.clear();
        length
    }

    /// A tty that translates CR to LF makes of each `CR LF` two LF.
    fn cooked(&self) -> Option<Dropped> {
        let lines = self.frame.windows(2).filter(|pair| *pair == [LF, LF]).count();
        (lines >= 2 && !self.frame.contains(&CR)).then_some(Dropped::Cooked(self.frame.len()))
    }

    fn noise(&mut self, byte: u8) -> Option<Dropped> {
        self.noise += 1;
        if self.noise_begins.len() < 16 {
            self.noise_begins.push(byte);
        }
        if self.noise < LONGEST_NOISE {
            return None;
        }
        let begins = std::mem::take(&mut self.noise_begins);
        Some(Dropped::NoStart(std::mem::take(&mut self.noise), hex(&begins)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// A group whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group<'a> {
    pub(super) label: &'a str,
    /// `SAAMMJJhhmmss`, in standard mode.
    pub(super) horodate: Option<&'a str>,
    pub(super) data: &'a str,
}

/// Why bytes are not a group. The data is never shown: a damaged group may be the meter's personal identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAGroup {
    #[error("{0}: group of {1} bytes without its end (CR)")]
    Unterminated(String, usize),
    #[error("{0}: group of {1} bytes without label, data and checksum")]
    Malformed(String, usize),
    #[error("{label}: checksum {found:#04x} where {expected:#04x} was expected, in {length} bytes")]
    Checksum { label: String, found: u8, expected: u8, length: usize },
}

/// The groups of a frame, good and bad, in order.
pub(super) fn groups(frame: &[u8]) -> impl Iterator<Item = Result<Group<'_>, NotAGroup>> {
    let mut lines = frame.split_inclusive(|byte| *byte == CR);
    std::iter::from_fn(move || lines.next()).flat_map(pieces)
}

/// What one CR ends: normally one group; several when CRs before it were damaged. Only the last one has its end.
fn pieces(line: &[u8]) -> impl Iterator<Item = Result<Group<'_>, NotAGroup>> {
    let (line, ended) = line.strip_suffix(&[CR]).map_or((line, false), |line| (line, true));
    let mut pieces: Vec<&[u8]> = line.split(|byte| *byte == LF).filter(|piece| !piece.is_empty()).collect();
    let last = if ended { pieces.pop() } else { None };
    let unended = |piece: &[u8]| NotAGroup::Unterminated(label_of(piece), piece.len());
    let unended: Vec<_> = pieces.into_iter().map(|piece| Err(unended(piece))).collect();
    unended.into_iter().chain(last.map(group))
}

fn group(bytes: &[u8]) -> Result<Group<'_>, NotAGroup> {
    // A group's LF received as another control character is still its start.
    let bytes = match bytes {
        [first, rest @ ..] if *first < b' ' => rest,
        _ => bytes,
    };
    let malformed = || NotAGroup::Malformed(label_of(bytes), bytes.len());
    let [inner @ .., separator, found] = bytes else { return Err(malformed()) };
    let sum_of = match *separator {
        HT => bytes.get(..bytes.len() - 1),
        b' ' => Some(inner),
        _ => None,
    };
    let expected = checksum(sum_of.ok_or_else(malformed)?);
    if *found != expected {
        let label = label_of(bytes);
        return Err(NotAGroup::Checksum { label, found: *found, expected, length: bytes.len() });
    }
    let text = std::str::from_utf8(inner).map_err(|_| malformed())?;
    split(text, char::from(*separator)).filter(is_sound).ok_or_else(malformed)
}

/// `label SP data`, `label HT data` or `label HT horodate HT data`. Data of the historic mode may hold spaces.
fn split(text: &str, separator: char) -> Option<Group<'_>> {
    let (label, rest) = text.split_once(separator)?;
    match rest.split_once(HT as char) {
        None => Some(Group { label, horodate: None, data: rest }),
        Some((horodate, data)) if separator == '\t' => Some(Group { label, horodate: Some(horodate), data }),
        Some(_) => None,
    }
}

fn is_sound(group: &Group<'_>) -> bool {
    let of_label = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'+' || byte == b'-';
    let printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (1..=LONGEST_LABEL).contains(&group.label.len())
        && group.label.bytes().all(of_label)
        && printable(group.data)
        && group.horodate.is_none_or(printable)
}

/// Sum of the bytes, six bits of it, made printable: 0x20 to 0x5F, so it can be a space.
pub(super) fn checksum(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    (sum & 0x3f) + 0x20
}

/// What can be shown of a damaged group: the letters it begins with.
fn label_of(bytes: &[u8]) -> String {
    let letters = bytes.iter().skip_while(|byte| **byte < b' ').take(LONGEST_LABEL);
    let letters: String = letters.take_while(|byte| byte.is_ascii_uppercase()).map(|byte| char::from(*byte)).collect();
    if letters.is_empty() { "?".to_owned() } else { letters }
}

/// Whether the meter says that its own clock, by which it dated this, is degraded: a lower-case season.
pub(super) fn is_degraded(horodate: &str) -> bool {
    horodate.starts_with(|season: char| season.is_ascii_lowercase())
}
