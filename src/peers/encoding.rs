//! Which compression a client accepts, and doing it. warp's own gzip filter does not look at Accept-Encoding.

use std::io::{self, Read, Write};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use super::accept;

/// Below this a compressed body is hardly shorter, and the work is lost.
const WORTH_IT: usize = 400;

/// A way of writing a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// Its name in HTTP; `None` for a body as it is.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The encoding a name of HTTP stands for.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let known =
            [Self::Gzip, Self::Zstd].into_iter().find(|e| e.name().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        known.or_else(|| name.eq_ignore_ascii_case("identity").then_some(Self::Identity))
    }

    /// The best of ours by the values of Accept-Encoding (RFC 9110, 12.5.3): the client's preference first, then the
    /// smaller result. Without the header, as it is.
    pub(crate) fn choose<'a>(accepted: impl IntoIterator<Item = &'a str>) -> Self {
        let mut weights = [None; 3];
        let mut others = None;
        for (name, weight) in accept::items(accepted) {
            match name {
                "*" => others = Some(weight),
                // RFC 9110, 8.4.1.3: an old name.
                "x-gzip" => weights[Self::Gzip as usize] = Some(weight),
                name => {
                    if let Some(encoding) = Self::named(name) {
                        weights[encoding as usize] = Some(weight);
                    }
                }
            }
        }
        let weight = |encoding: Self| weights[encoding as usize].or(others).unwrap_or(0);
        let best = if weight(Self::Zstd) >= weight(Self::Gzip) { Self::Zstd } else { Self::Gzip };
        let identity = weights[Self::Identity as usize].unwrap_or(0);
        if weight(best) == 0 || weight(best) < identity { Self::Identity } else { best }
    }

    /// Compresses, unless the body is too short for it. Tells what was done.
    pub(crate) fn apply(self, body: Vec<u8>) -> io::Result<(Self, Vec<u8>)> {
        if body.len() < WORTH_IT {
            return Ok((Self::Identity, body));
        }
        let encoded = match self {
            Self::Identity => body,
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
                encoder.write_all(&body)?;
                encoder.finish()?
            }
            Self::Zstd => zstd::bulk::compress(&body, 3)?,
        };
        Ok((self, encoded))
    }

    /// Decompresses, `limit` bytes at most.
    pub(crate) fn undo(self, body: &[u8], limit: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => bounded(body, limit),
            Self::Gzip => bounded(MultiGzDecoder::new(body), limit),
            Self::Zstd => bounded(zstd::stream::read::Decoder::new(body)?, limit),
        }
    }
}

/// Packs a body that is written as it is read, in little memory.
pub(crate) enum Packer {
    Identity(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// 256 KiB are looked back upon, rather than the 2 MiB of level 3: a reader may be slow, and there may be several.
const WINDOW_LOG: u32 = 18;

impl Packer {
    pub(crate) fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Identity => Self::Identity(Vec::new()),
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(6))),
            Encoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
                encoder.window_log(WINDOW_LOG)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Takes a part in and gives what is ready to leave, which may be nothing yet.
    pub(crate) fn pack(&mut self, part: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(ready) => ready.extend_from_slice(part),
            Self::Gzip(encoder) => encoder.write_all(part)?,
            Self::Zstd(encoder) => encoder.write_all(part)?,
        }
        let ready = match self {
            Self::Identity(ready) => ready,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        };
        Ok(std::mem::take(ready))
    }

    /// What is left.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(ready) => Ok(ready),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn bounded(from: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut into = Vec::new();
    let read = from.take(limit as u64 + 1).read_to_end(&mut into)?;
    if read > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes when unpacked")));
    }
    Ok(into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_preference_comes_first_then_the_smaller_result() {
        let choose = |value: &str| Encoding::choose([value]);
        assert_eq!(choose("gzip, zstd"), Encoding::Zstd);
        assert_eq!(choose("gzip, deflate, br"), Encoding::Gzip);
        assert_eq!(choose("zstd;q=0.5, gzip;q=0.8"), Encoding::Gzip);
        assert_eq!(choose("zstd;q=0, gzip; q=0.1"), Encoding::Gzip);
        assert_eq!(choose("*"), Encoding::Zstd);
        assert_eq!(choose("*;q=0.5, zstd;q=0"), Encoding::Gzip);
        assert_eq!(choose("GZIP"), Encoding::Gzip);
        assert_eq!(choose("identity;q=0.5, gzip;q=0.1"), Encoding::Identity);
        assert_eq!(choose("br, deflate"), Encoding::Identity);
        assert_eq!(choose("gzip;q=banana"), Encoding::Identity);
        assert_eq!(choose(""), Encoding::Identity);
        assert_eq!(Encoding::choose([]), Encoding::Identity);
        assert_eq!(Encoding::choose(["gzip", "zstd"]), Encoding::Zstd, "two headers are one list");
    }

    #[test]
    fn what_is_packed_is_unpacked_the_same_and_never_beyond_the_limit() {
        let body = b"{\"point\":\"water/hall/index\"}\n".repeat(100);
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
            let (done, packed) = encoding.apply(body.clone()).expect("packed");
            assert_eq!(done, encoding);
            assert_eq!(encoding.undo(&packed, body.len()).expect("unpacked"), body);
            assert!(encoding.undo(&packed, body.len() - 1).is_err(), "a bomb is refused");
        }
    }

    #[test]
    fn what_is_packed_part_by_part_is_unpacked_the_same() {
        let part = b"1,water/hall/index,2026-06-01T12:00:00.000Z,204.5\r\n".repeat(500);
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
            let mut packer = Packer::new(encoding).expect("a packer");
            let mut packed = Vec::new();
            for _ in 0..200 {
                packed.extend(packer.pack(&part).expect("packed"));
            }
            packed.extend(packer.finish().expect("finished"));
            assert_eq!(encoding.undo(&packed, 200 * part.len()).expect("unpacked"), part.repeat(200));
        }
    }

    #[test]
    fn a_body_cut_short_is_an_error_not_a_shorter_body() {
        let body = b"{\"point\":\"water/hall/index\"}\n".repeat(100);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let (_, packed) = encoding.apply(body.clone()).expect("packed");
            for length in 1..packed.len() {
                assert!(encoding.undo(&packed[..length], 1 << 20).is_err(), "{encoding:?} cut at {length}");
            }
        }
    }
}
