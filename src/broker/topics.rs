//! Every topic of ours, written down once, and the rules a topic of a client must keep.
//!
//! Inside rumqttd's router each topic carries a segment of ours in front, so that no first character can hurt it and
//! no wildcard of a client reaches `$SYS`. The segment is put on and taken off here and nowhere else.

use bytes::Bytes;

use crate::{
    condition::Code,
    config::broker::{Filter, LONGEST_TOPIC},
    reading::PointId,
};

/// What everything the gateway itself says begins with.
pub const ROOT: &str = "clocher";
/// Where an account may ask for an announcement: `{"text", "class", "zones", "key"}`.
pub const ANNOUNCE_ASK: &str = "clocher/announce/ask";
/// Answers to those who asked, and what was played, zone by zone.
pub const ANNOUNCE_JOURNAL: &str = "clocher/announce/journal";
/// Clients connected now.
pub const CLIENTS_CONNECTED: &str = "$SYS/broker/clients/connected";
/// Publishes received since the start.
pub const MESSAGES_RECEIVED: &str = "$SYS/broker/messages/received";
/// Publishes sent since the start.
pub const MESSAGES_SENT: &str = "$SYS/broker/messages/sent";
/// Publishes of QoS 0 not delivered because their subscriber was too slow.
pub const MESSAGES_DROPPED: &str = "$SYS/broker/messages/dropped";
/// Retained messages.
pub const MESSAGES_RETAINED: &str = "$SYS/broker/retained/messages/count";
/// The program's name and version.
pub const VERSION: &str = "$SYS/broker/version";

/// Whether a point of this name would be published among the gateway's own topics.
pub fn is_reserved(id: &PointId) -> bool {
    matches!(id.as_str().split('/').next(), Some("announce" | "conditions"))
}

/// Where the newest reading of a point is: `clocher/water/hall/index`.
pub fn point(id: &PointId) -> String {
    format!("{ROOT}/{id}")
}

/// Where a condition is: `clocher/conditions/port-unplugged/dev/ttyUSB0`.
pub fn condition(code: Code, subject: &str) -> String {
    let plain = |c: char| if c.is_control() || c == '+' || c == '#' { '_' } else { c };
    let subject: String = subject.trim_matches('/').chars().map(plain).take(200).collect();
    format!("{ROOT}/conditions/{code}/{subject}")
}

/// Why a client may not publish to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPublishable {
    /// MQTT 3.1.1, §4.7.3.
    #[error("a topic has at least one character")]
    Empty,
    /// Beyond [`LONGEST_TOPIC`].
    #[error("the topic is longer than {LONGEST_TOPIC} bytes")]
    TooLong,
    /// NUL, U+0001 to U+001F, U+007F to U+009F: MQTT 3.1.1, §1.5.3.
    #[error("the topic has a control character")]
    Control,
    /// MQTT 3.1.1, §3.3.2.1.
    #[error("the topic has a wildcard")]
    Wildcard,
    /// `$SYS` and whatever else begins with `$` is the broker's.
    #[error("topics that begin with $ are the broker's")]
    Dollar,
    /// What the gateway says, only the gateway says.
    #[error("topics under clocher/ are the gateway's")]
    Ours,
}

/// The rules every topic of a client keeps, whoever it is.
pub(super) fn publishable(topic: &str) -> Result<(), NotPublishable> {
    if topic.is_empty() {
        return Err(NotPublishable::Empty);
    }
    if topic.len() > LONGEST_TOPIC {
        return Err(NotPublishable::TooLong);
    }
    if topic.chars().any(char::is_control) {
        return Err(NotPublishable::Control);
    }
    if topic.contains(['+', '#']) {
        return Err(NotPublishable::Wildcard);
    }
    if topic.starts_with('$') {
        return Err(NotPublishable::Dollar);
    }
    if topic.split('/').next() == Some(ROOT) && topic != ANNOUNCE_ASK {
        return Err(NotPublishable::Ours);
    }
    Ok(())
}

const SYS: &str = "$SYS";
/// Segment in front of ordinary topics, of `$SYS`, and of what the broker tells itself.
const ORDINARY: &str = "m/";
const SYSTEM: &str = "s";
/// The topic of the broker's test of itself, as the router knows it.
pub(super) const EAR: &str = "t/mark";

/// A topic or filter as the router knows it.
pub(super) fn inside(topic: &str) -> String {
    match topic.strip_prefix(SYS) {
        Some(rest) => format!("{SYSTEM}{rest}"),
        None => format!("{ORDINARY}{topic}"),
    }
}

/// A filter as the router knows it. `#` alone does not reach `$SYS` there either.
pub(super) fn inside_filter(filter: &Filter) -> String {
    inside(filter.as_str())
}

/// The topic as clients know it, without copying an ordinary one.
pub(super) fn outside(topic: &Bytes) -> Bytes {
    match topic.strip_prefix(ORDINARY.as_bytes()) {
        Some(_) => topic.slice(ORDINARY.len()..),
        None => [SYS.as_bytes(), topic.get(SYSTEM.len()..).unwrap_or_default()].concat().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_of_ours_goes_on_and_comes_off() {
        for topic in ["a/b", "église/cloche", "/", "$SYS/broker/uptime", "$SYS", "m/x", "s"] {
            let inside = inside(topic);
            assert!(inside.starts_with(|c: char| c.is_ascii_lowercase()), "{inside}");
            assert_eq!(outside(&Bytes::from(inside)), topic.as_bytes());
        }
    }

    #[test]
    fn no_client_topic_is_known_inside_by_the_name_of_another() {
        assert_ne!(inside("s/broker"), inside("$SYS/broker"));
        assert_ne!(inside("t/mark"), EAR);
    }

    #[test]
    fn what_is_ours_and_what_is_malformed_is_not_publishable() {
        use NotPublishable as Not;
        let long = "x".repeat(LONGEST_TOPIC + 1);
        for (topic, expected) in [
            ("", Not::Empty),
            (long.as_str(), Not::TooLong),
            ("a\0b", Not::Control),
            ("a/+", Not::Wildcard),
            ("a/#", Not::Wildcard),
            ("$SYS/broker/uptime", Not::Dollar),
            ("clocher", Not::Ours),
            ("clocher/water/hall/index", Not::Ours),
            ("clocher/announce/journal", Not::Ours),
        ] {
            assert_eq!(publishable(topic), Err(expected), "{topic:?}");
        }
        for topic in ["église/cloche", "clochers/x", "/a", "a//b", ANNOUNCE_ASK] {
            assert_eq!(publishable(topic), Ok(()), "{topic:?}");
        }
    }

    #[test]
    fn a_subject_becomes_levels_a_subscriber_can_read() {
        assert_eq!(
            condition(Code::PortUnplugged, "/dev/serial/by-id/usb#1"),
            "clocher/conditions/port-unplugged/dev/serial/by-id/usb_1"
        );
    }
}
