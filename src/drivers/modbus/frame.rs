//! RTU frames as bytes, for captures: on the wire tokio-modbus does this.
//!
//! source: Modbus over Serial Line V1.02, §2.5.1 and §6.2.2 (CRC).

use super::super::{Request, Table};

/// Why bytes are not the answer that was awaited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAnswer {
    /// Fewer bytes than the shortest frame.
    #[error("{0} bytes, too few for a frame")]
    Short(usize),
    /// The checksum does not hold.
    #[error("CRC {found:#06x} where {expected:#06x} was expected")]
    Crc {
        /// In the frame.
        found: u16,
        /// Of its bytes.
        expected: u16,
    },
    /// Another device answered.
    #[error("unit {0} answered for unit {1}")]
    Unit(u8, u8),
    /// Neither a read nor its exception.
    #[error("function {0:#04x} where a read was expected")]
    Function(u8),
    /// The count of bytes is not what was asked, or not what is there.
    #[error("{found} bytes of registers where {expected} were expected")]
    Length {
        /// In the frame.
        found: usize,
        /// Asked, or there.
        expected: usize,
    },
    /// The device refuses.
    #[error("exception {code:02x}, {}", meaning(*code))]
    Exception {
        /// As the device said it.
        code: u8,
    },
}

/// What an exception code stands for; source: Modbus Application Protocol V1.1b3, §7.
pub fn meaning(code: u8) -> &'static str {
    match code {
        0x01 => "illegal function",
        0x02 => "illegal data address",
        0x03 => "illegal data value",
        0x04 => "server device failure",
        0x05 => "acknowledge",
        0x06 => "server device busy",
        0x08 => "memory parity error",
        0x0a => "gateway path unavailable",
        0x0b => "gateway target failed to respond",
        _ => "unknown exception",
    }
}

/// CRC-16/MODBUS.
pub fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

/// A frame whose checksum holds, without it: unit and the rest.
fn open(frame: &[u8]) -> Result<(u8, &[u8]), NotAnAnswer> {
    let [unit, body @ .., low, high] = frame else { return Err(NotAnAnswer::Short(frame.len())) };
    let (found, expected) = (u16::from_le_bytes([*low, *high]), crc(frame.get(..frame.len() - 2).unwrap_or_default()));
    if found == expected { Ok((*unit, body)) } else { Err(NotAnAnswer::Crc { found, expected }) }
}

/// The unit and the read a request frame asks for; `None` when it is no read of registers.
pub fn request(frame: &[u8]) -> Option<(u8, Request)> {
    let (unit, body) = open(frame).ok()?;
    let [function, address_high, address_low, count_high, count_low] = *body else { return None };
    let table = table_of(function)?;
    let address = u16::from_be_bytes([address_high, address_low]);
    Some((unit, Request { table, address, count: u16::from_be_bytes([count_high, count_low]) }))
}

fn table_of(function: u8) -> Option<Table> {
    match function {
        0x03 => Some(Table::Holding),
        0x04 => Some(Table::Input),
        _ => None,
    }
}

/// The registers of an answer. Zeros before it are what a bus picks up as it turns round; no unit is 0.
///
/// # Errors
/// When the bytes are not an answer of `unit`, or the answer is an exception.
pub fn answer(frame: &[u8], unit: u8) -> Result<(Table, Vec<u16>), NotAnAnswer> {
    let start = frame.iter().position(|byte| *byte != 0).unwrap_or_default();
    let (found, body) = open(frame.get(start..).unwrap_or_default())?;
    if found != unit {
        return Err(NotAnAnswer::Unit(found, unit));
    }
    match body {
        [function, code] if *function & 0x80 != 0 => Err(NotAnAnswer::Exception { code: *code }),
        [function, count, data @ ..] => {
            let table = table_of(*function).ok_or(NotAnAnswer::Function(*function))?;
            let (expected, found) = (data.len(), usize::from(*count));
            if found != expected || found % 2 != 0 {
                return Err(NotAnAnswer::Length { found, expected });
            }
            let words = data.chunks_exact(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u16::from(*byte)));
            Ok((table, words.collect()))
        }
        _ => Err(NotAnAnswer::Short(frame.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc(b"123456789"), 0x4b37, "the check value of CRC-16/MODBUS");
        assert_eq!(crc(&[0x01, 0x04, 0x00, 0x00, 0x00, 0x02]).to_le_bytes(), [0x71, 0xcb]);
    }
}
