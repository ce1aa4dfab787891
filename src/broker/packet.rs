//! MQTT 3.1.1 packets between bytes and our own types. rumqttd's codec does the decoding; what it does not check,
//! fixed-header flags and protocol level, is checked here first. Pure: no socket, no clock.

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{self, Protocol, v4::V4};

use super::topics;
use crate::config::broker::Filter;

/// Delivery guarantee.
#[expect(clippy::enum_variant_names, reason = "the standard's names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Qos {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl Qos {
    pub(super) fn from_u8(n: u8) -> Option<Self> {
        [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce].get(usize::from(n)).copied()
    }
}

impl From<protocol::QoS> for Qos {
    fn from(qos: protocol::QoS) -> Self {
        match qos {
            protocol::QoS::AtMostOnce => Self::AtMostOnce,
            protocol::QoS::AtLeastOnce => Self::AtLeastOnce,
            protocol::QoS::ExactlyOnce => Self::ExactlyOnce,
        }
    }
}

/// The first packet of a client.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Connect {
    pub(super) client_id: String,
    pub(super) clean: bool,
    /// Seconds; 0 for none.
    pub(super) keep_alive: u16,
    /// User name and password.
    pub(super) login: Option<(String, String)>,
    pub(super) will: Option<Will>,
}

/// What is to be said when the client is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// 0 at QoS 0.
    pub(super) pid: u16,
}

/// What a client may send.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Inbound {
    Connect(Connect),
    Publish(Publish),
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe(u16, Vec<(String, Qos)>),
    Unsubscribe(u16, Vec<String>),
    PingReq,
    Disconnect,
}

/// Why bytes are not a packet a client may send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAPacket {
    #[error("a packet of {0} bytes is too large")]
    TooLarge(usize),
    #[error("malformed packet of type {0}")]
    Malformed(u8),
    #[error("flags {flags:#06b} are not those of a packet of type {kind}")]
    Flags { kind: u8, flags: u8 },
    #[error("a packet of type {0} is never sent by a client")]
    WrongWay(u8),
    #[error("protocol level {0}, this broker speaks level 4 (MQTT 3.1.1)")]
    Version(u8),
}

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;

struct Header {
    first: u8,
    length: usize,
    remaining: usize,
}

impl Header {
    fn kind(&self) -> u8 {
        self.first >> 4
    }
}

/// Type and length, once enough bytes are there. Source: MQTT 3.1.1, §2.2.3.
fn header(bytes: &[u8]) -> Result<Option<Header>, NotAPacket> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut remaining = 0_usize;
    for (place, byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some(Header { first, length: place + 2, remaining }));
        }
    }
    if rest.len() >= 4 { Err(NotAPacket::Malformed(first >> 4)) } else { Ok(None) }
}

/// The next packet of a stream, taken off `buffer`. `None` when more bytes are needed.
pub(super) fn next(buffer: &mut BytesMut, largest: usize) -> Result<Option<Inbound>, NotAPacket> {
    let Some(header) = header(buffer)? else { return Ok(None) };
    if header.remaining > largest {
        return Err(NotAPacket::TooLarge(header.remaining));
    }
    check_flags(&header)?;
    let total = header.length + header.remaining;
    if buffer.len() < total {
        buffer.reserve(total - buffer.len());
        return Ok(None);
    }
    decode(&header, buffer.split_to(total)).map(Some)
}

/// Source: MQTT 3.1.1, §2.2.2, table 2.2, and the direction of flow of table 2.1.
fn check_flags(header: &Header) -> Result<(), NotAPacket> {
    let (kind, flags) = (header.kind(), header.first & 0x0f);
    let sound = match kind {
        // QoS 3 does not exist, and QoS 0 is never a duplicate.
        PUBLISH => flags & 0b0110 != 0b0110 && !(flags & 0b0110 == 0 && flags & 0b1000 != 0),
        6 | 8 | 10 => flags == 0b0010,
        CONNECT | 4 | 5 | 7 | 12 | 14 => flags == 0,
        _ => return Err(NotAPacket::WrongWay(kind)),
    };
    if sound { Ok(()) } else { Err(NotAPacket::Flags { kind, flags }) }
}

fn decode(header: &Header, mut frame: BytesMut) -> Result<Inbound, NotAPacket> {
    let kind = header.kind();
    let malformed = || NotAPacket::Malformed(kind);
    if kind == CONNECT {
        check_connect(frame.get(header.length..).unwrap_or_default())?;
    }
    let pid = if kind == PUBLISH { publish_pid(header, &frame).ok_or_else(malformed)? } else { 0 };
    let largest = frame.len();
    let packet = V4.read_mut(&mut frame, largest).map_err(|_| malformed())?;
    translate(packet, header.first, pid).ok_or_else(malformed)
}

/// Name, level and flags of CONNECT, so that other versions get an answer they understand. Source: MQTT 3.1.1, §3.1.2.
fn check_connect(body: &[u8]) -> Result<(), NotAPacket> {
    let malformed = NotAPacket::Malformed(CONNECT);
    let level = match body {
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => *level,
        _ => return Err(malformed),
    };
    if level != 4 {
        return Err(NotAPacket::Version(level));
    }
    let flags = body.get(7).copied().ok_or(malformed.clone())?;
    let (reserved, password_alone) = (flags & 1 != 0, flags & 0b1100_0000 == 0b0100_0000);
    if reserved || password_alone { Err(malformed) } else { Ok(()) }
}

/// The packet identifier lies behind the topic; rumqttd keeps what it read to itself.
fn publish_pid(header: &Header, frame: &[u8]) -> Option<u16> {
    if header.first & 0b0110 == 0 {
        return Some(0);
    }
    let two = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let topic = usize::from(two(header.length)?);
    two(header.length + 2 + topic).filter(|pid| *pid != 0)
}

/// To our own types. Topic and payload are copied to their size, or each would hold the whole read buffer.
fn translate(packet: protocol::Packet, first: u8, pid: u16) -> Option<Inbound> {
    use protocol::Packet as P;
    Some(match packet {
        P::Connect(connect, _, will, _, login) => Inbound::Connect(Connect {
            client_id: connect.client_id,
            clean: connect.clean_session,
            keep_alive: connect.keep_alive,
            login: login.map(|login| (login.username, login.password)),
            will: match will {
                Some(will) => Some(translate_will(will)?),
                None => None,
            },
        }),
        P::Publish(publish, _) => Inbound::Publish(Publish {
            topic: text(&publish.topic)?,
            payload: Bytes::copy_from_slice(&publish.payload),
            // rumqttd keeps the quality to itself as well.
            qos: Qos::from_u8(first >> 1 & 0b11)?,
            retain: publish.retain,
            pid,
        }),
        P::PubAck(ack, _) => Inbound::PubAck(ack.pkid),
        P::PubRec(ack, _) => Inbound::PubRec(ack.pkid),
        P::PubRel(ack, _) => Inbound::PubRel(ack.pkid),
        P::PubComp(ack, _) => Inbound::PubComp(ack.pkid),
        P::Subscribe(subscribe, _) if subscribe.pkid != 0 => {
            Inbound::Subscribe(subscribe.pkid, subscribe.filters.into_iter().map(|f| (f.path, f.qos.into())).collect())
        }
        P::Unsubscribe(unsubscribe, _) if unsubscribe.pkid != 0 && !unsubscribe.filters.is_empty() => {
            Inbound::Unsubscribe(unsubscribe.pkid, unsubscribe.filters)
        }
        P::PingReq(_) => Inbound::PingReq,
        P::Disconnect(..) => Inbound::Disconnect,
        _ => return None,
    })
}

fn translate_will(will: protocol::LastWill) -> Option<Will> {
    let topic = text(&will.topic)?;
    Some(Will { topic, payload: Bytes::copy_from_slice(&will.message), qos: will.qos.into(), retain: will.retain })
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(ToOwned::to_owned)
}

/// Answers to CONNECT. Source: MQTT 3.1.1, §3.2.2.3, table 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted { session_present: bool },
    UnacceptableVersion,
    IdentifierRejected,
    BadLogin,
    NotAuthorised,
}

pub(super) fn connack(out: &mut BytesMut, answer: Answer) {
    let (session_present, code) = match answer {
        Answer::Accepted { session_present } => (session_present, 0),
        Answer::UnacceptableVersion => (false, 1),
        Answer::IdentifierRejected => (false, 2),
        Answer::BadLogin => (false, 4),
        Answer::NotAuthorised => (false, 5),
    };
    out.put_slice(&[0x20, 2, u8::from(session_present), code]);
}

/// What an MQTT 5 client understands: reason 0x84, unsupported protocol version, no properties. Source: MQTT 5.0, §3.2.2.
pub(super) fn connack_v5_unsupported(out: &mut BytesMut) {
    out.put_slice(&[0x20, 3, 0, 0x84, 0]);
}

/// The four packets that carry nothing but an identifier, and UNSUBACK.
#[expect(clippy::enum_variant_names, reason = "the standard's names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
    UnsubAck = 0xb0,
}

pub(super) fn ack(out: &mut BytesMut, ack: Ack, pid: u16) {
    out.put_slice(&[ack as u8, 2]);
    out.put_u16(pid);
}

pub(super) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// `None` for a filter that was refused.
pub(super) fn suback(out: &mut BytesMut, pid: u16, granted: &[Option<Qos>]) {
    out.put_u8(0x90);
    put_length(out, 2 + granted.len());
    out.put_u16(pid);
    out.extend(granted.iter().map(|qos| qos.map_or(0x80, |qos| qos as u8)));
}

/// The flags of a PUBLISH besides its QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flags {
    pub(super) retain: bool,
    pub(super) duplicate: bool,
}

pub(super) fn publish(out: &mut BytesMut, topic: &[u8], payload: &[u8], qos: Qos, pid: u16, flags: Flags) {
    let identifier = if qos == Qos::AtMostOnce { 0 } else { 2 };
    out.put_u8(0x30 | u8::from(flags.duplicate) << 3 | (qos as u8) << 1 | u8::from(flags.retain));
    put_length(out, 2 + topic.len() + identifier + payload.len());
    out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
    out.put_slice(topic);
    if identifier > 0 {
        out.put_u16(pid);
    }
    out.put_slice(payload);
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        out.put_u8(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return;
        }
    }
}

/// Arbitrary bytes through the codec and the checks of topics and filters, as a connection does. For fuzzing: it
/// must neither panic nor accept what it cannot say again.
pub fn fuzz_packets(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(packet)) = next(&mut buffer, 65_536) {
        match packet {
            Inbound::Publish(taken) if topics::publishable(&taken.topic).is_ok() => say_again(&taken),
            Inbound::Subscribe(_, filters) => {
                for (text, _) in filters {
                    let filter: Result<Filter, _> = text.parse();
                    let again = filter.map(|f| topics::outside(&topics::inside_filter(&f).into()));
                    assert!(again.is_ok_and(|again| again == text.as_bytes()) || text.parse::<Filter>().is_err());
                }
            }
            _ => {}
        }
    }
}

fn say_again(taken: &Publish) {
    let mut out = BytesMut::new();
    let flags = Flags { retain: taken.retain, duplicate: false };
    publish(&mut out, taken.topic.as_bytes(), &taken.payload, taken.qos, taken.pid, flags);
    assert!(matches!(next(&mut out, 65_536), Ok(Some(Inbound::Publish(again))) if again == *taken));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Inbound>, NotAPacket> {
        next(&mut BytesMut::from(bytes), 1_000)
    }

    #[test]
    fn a_publish_is_read_as_it_was_written_at_every_quality() {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let pid = if qos == Qos::AtMostOnce { 0 } else { 0x1234 };
            say_again(&Publish {
                topic: "église/cloche".into(), payload: vec![7; 300].into(), qos, retain: true, pid
            });
        }
    }

    #[test]
    fn a_packet_cut_anywhere_waits_for_the_rest() {
        let mut whole = BytesMut::new();
        publish(&mut whole, b"a/b", &[1; 200], Qos::AtLeastOnce, 9, Flags::default());
        for cut in 0..whole.len() {
            assert!(matches!(read(&whole[..cut]), Ok(None)), "cut at {cut}");
        }
        assert!(matches!(read(&whole), Ok(Some(Inbound::Publish(_)))));
    }

    #[test]
    fn other_versions_are_told_apart_from_nonsense() {
        let connect = |name: &[u8], level: u8| {
            let body = [&[0, name.len() as u8][..], name, &[level, 2, 0, 60, 0, 1, b'a']].concat();
            read(&[&[0x10, body.len() as u8][..], &body].concat())
        };
        assert_eq!(connect(b"MQTT", 5).err(), Some(NotAPacket::Version(5)));
        assert_eq!(connect(b"MQIsdp", 3).err(), Some(NotAPacket::Version(3)));
        assert_eq!(connect(b"HTTP", 4).err(), Some(NotAPacket::Malformed(1)));
        assert!(
            matches!(connect(b"MQTT", 4), Ok(Some(Inbound::Connect(c))) if c.client_id == "a" && c.keep_alive == 60)
        );
    }

    #[test]
    fn what_a_client_never_sends_and_what_is_malformed_is_refused() {
        let cases: &[(&[u8], NotAPacket)] = &[
            (&[0x20, 2, 0, 0], NotAPacket::WrongWay(2)),
            (&[0xb0, 2, 0, 1], NotAPacket::WrongWay(11)),
            (&[0xf0, 0], NotAPacket::WrongWay(15)),
            (&[0x36, 5, 0, 1, b'a', 0, 1], NotAPacket::Flags { kind: 3, flags: 6 }),
            (&[0x38, 3, 0, 1, b'a'], NotAPacket::Flags { kind: 3, flags: 8 }),
            (&[0x32, 5, 0, 1, b'a', 0, 0], NotAPacket::Malformed(3)),
            (&[0x80, 6, 0, 1, 0, 1, b'a', 0], NotAPacket::Flags { kind: 8, flags: 0 }),
            (&[0x82, 2, 0, 1], NotAPacket::Malformed(8)),
            (&[0xa2, 1, 0], NotAPacket::Malformed(10)),
            (&[0xa2, 2, 0, 1], NotAPacket::Malformed(10)),
            (&[0x30, 3, 0, 9, b'a'], NotAPacket::Malformed(3)),
            (&[0x30, 3, 0, 1, 0xff], NotAPacket::Malformed(3)),
            (&[0x30, 0xff, 0xff, 0xff, 0xff], NotAPacket::Malformed(3)),
            (&[0x30, 0xff, 0xff, 0x7f], NotAPacket::TooLarge(2_097_151)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(bytes).err().as_ref(), Some(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn bytes_that_follow_no_rule_harm_nothing() {
        // A small generator, the same at each run: xorshift64, Marsaglia 2003.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..50_000 {
            let length = (random() % 40) as usize;
            let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            if let [first, remaining, ..] = bytes.as_mut_slice() {
                *first = ((random() % 15 + 1) as u8) << 4 | [0, 2, *first & 0x0f][(random() % 3) as usize];
                *remaining = (length - 2) as u8;
            }
            fuzz_packets(&bytes);
        }
    }
}
