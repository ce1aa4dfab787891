//! Asks chronyd on this machine whether it disciplines the clock, as `chronyc tracking` does: one datagram over the
//! loopback, one answer. Source: chrony 4.6, `candm.h`, protocol version 6.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use super::Word;
use crate::clock::Source;

const PORT: u16 = 323;
/// It answers within a millisecond, or nobody listens and the kernel says so at once.
const PATIENCE: Duration = Duration::from_millis(200);

const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ASK_TRACKING: u16 = 33;
const TELL_TRACKING: u16 = 5;
/// A question is as long as its answer, so that nobody gains by asking in another's name.
const LENGTH: usize = 104;
/// `LEAP_Unsynchronised`.
const NOT_SYNCHRONISED: u16 = 3;
/// 127.127.1.1 stands for the machine's own clock, which vouches for nothing.
const ITSELF: u32 = 0x7F7F_0101;

/// What chronyd says, if it runs.
pub(super) fn tracking() -> Option<Word> {
    ask(PORT)
}

fn ask(port: u16) -> Option<Word> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let sequence = rand::random();
    socket.send(&question(sequence)).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    read(answer.get(..length)?, sequence)
}

fn question(sequence: u32) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = VERSION;
    packet[1] = REQUEST;
    packet[4..6].copy_from_slice(&ASK_TRACKING.to_be_bytes());
    packet[8..12].copy_from_slice(&sequence.to_be_bytes());
    packet
}

fn read(answer: &[u8], sequence: u32) -> Option<Word> {
    let packet: &[u8; LENGTH] = answer.get(..LENGTH)?.try_into().ok()?;
    let short = |at: usize| Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    let ours = packet.starts_with(&[VERSION, REPLY])
        && short(4)? == ASK_TRACKING
        && short(6)? == TELL_TRACKING
        && short(8)? == 0
        && long(16)? == sequence;
    let (reference, leap) = (long(28)?, short(54)?);
    if !ours || leap >= NOT_SYNCHRONISED || reference == 0 || reference == ITSELF {
        return None;
    }
    let compared = i64::from(long(56)?) << 32 | i64::from(long(60)?);
    let (correction, delay, dispersion) = (number(long(68)?), number(long(92)?), number(long(96)?));
    let error_ms = (correction.abs() + delay.abs() / 2.0 + dispersion.abs()) * 1_000.0;
    Some(Word { source: Source::Ntp, error_ms: error_ms.ceil() as u32, given: compared })
}

/// chrony's own numbers: seven bits of exponent, 25 of coefficient, both signed.
fn number(bits: u32) -> f64 {
    let exponent = (bits as i32) >> 25;
    let coefficient = ((bits << 7) as i32) >> 7;
    f64::from(coefficient) * f64::from(exponent - 25).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of chronyd as `candm.h` lays it out, synchronised to 192.0.2.1 with 20 ms of delay.
    fn answer(sequence: u32) -> [u8; LENGTH] {
        let mut packet = [0; LENGTH];
        packet[..2].copy_from_slice(&[VERSION, REPLY]);
        packet[4..6].copy_from_slice(&ASK_TRACKING.to_be_bytes());
        packet[6..8].copy_from_slice(&TELL_TRACKING.to_be_bytes());
        packet[16..20].copy_from_slice(&sequence.to_be_bytes());
        packet[28..32].copy_from_slice(&[192, 0, 2, 1]);
        packet[52..54].copy_from_slice(&3u16.to_be_bytes());
        packet[60..64].copy_from_slice(&1_800_000_000u32.to_be_bytes());
        packet[92..96].copy_from_slice(&bits(1, -5).to_be_bytes());
        packet[96..100].copy_from_slice(&bits(-3, -7).to_be_bytes());
        packet
    }

    fn bits(coefficient: i32, power: i32) -> u32 {
        ((power + 25) as u32) << 25 | coefficient as u32 & 0x01FF_FFFF
    }

    #[test]
    fn a_synchronised_chrony_tells_how_far_off_it_may_be() {
        let word = read(&answer(7), 7).expect("understood");
        assert_eq!((word.source, word.given), (Source::Ntp, 1_800_000_000));
        assert_eq!(word.error_ms, 40, "half of 1/32 s, and 3/128 s: 39.06 ms");
    }

    #[test]
    fn what_is_not_a_synchronised_chrony_is_not_believed() {
        let wrong: [(&str, usize, &[u8]); 7] = [
            ("another's answer", 16, &[0, 0, 0, 8]),
            ("refused", 8, &[0, 2]),
            ("another version", 0, &[5]),
            ("another subject", 6, &[0, 1]),
            ("not synchronised", 54, &[0, 3]),
            ("its own clock", 28, &[127, 127, 1, 1]),
            ("no reference", 28, &[0, 0, 0, 0]),
        ];
        for (why, at, bytes) in wrong {
            let mut packet = answer(7);
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(read(&packet, 7), None, "{why}");
        }
        for length in 0..LENGTH {
            assert_eq!(read(&answer(7)[..length], 7), None);
        }
    }

    #[test]
    fn it_is_asked_over_the_loopback_and_its_silence_ends() {
        let chrony = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        let port = chrony.local_addr().expect("an address").port();
        let served = std::thread::spawn(move || {
            let mut question = [0; 256];
            let (length, who) = chrony.recv_from(&mut question).expect("asked");
            let sequence = u32::from_be_bytes(question[8..12].try_into().expect("four"));
            chrony.send_to(&answer(sequence), who).expect("answered");
            length
        });
        assert!(ask(port).is_some());
        assert_eq!(served.join().expect("served"), LENGTH);
        assert_eq!(ask(port), None, "nobody there");
    }
}
