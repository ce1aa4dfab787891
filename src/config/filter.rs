//! MQTT topic filters, as an account's rules and an MQTT device's options write them.

use std::{fmt, str::FromStr, sync::Arc};

/// Longest topic or filter, in bytes. MQTT allows 65 535; real ones stay below 200.
pub const LONGEST_TOPIC: usize = 1_024;

/// A topic filter of MQTT 3.1.1, checked: `sensors/+/state`, `clocher/#`. Source: MQTT 3.1.1, §4.7.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Filter(Arc<str>);

/// Why a text is not a topic filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAFilter {
    /// Nothing there.
    #[error("a topic filter has at least one character")]
    Empty,
    /// Beyond [`LONGEST_TOPIC`].
    #[error("a topic filter of {0} bytes is too long, {LONGEST_TOPIC} at most are taken")]
    TooLong(usize),
    /// A control character.
    #[error("{0:?} has a control character")]
    Control(String),
    /// `a#`, `a/#/b`, `b+`.
    #[error("{0:?}: + and # stand alone between slashes, and # only at the end")]
    Wildcard(String),
    /// `$share/…` and the like.
    #[error("{0:?}: of the topics that begin with $ only $SYS can be subscribed to")]
    Dollar(String),
}

impl FromStr for Filter {
    type Err = NotAFilter;

    fn from_str(text: &str) -> Result<Self, NotAFilter> {
        if text.is_empty() {
            return Err(NotAFilter::Empty);
        }
        if text.len() > LONGEST_TOPIC {
            return Err(NotAFilter::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(NotAFilter::Control(text.to_owned()));
        }
        let ends_at = text.split('/').count() - 1;
        let misplaced = |(place, level): (usize, &str)| match level {
            "+" => false,
            "#" => place != ends_at,
            _ => level.contains(['+', '#']),
        };
        if text.split('/').enumerate().any(misplaced) {
            return Err(NotAFilter::Wildcard(text.to_owned()));
        }
        if text.starts_with('$') && text.split('/').next() != Some("$SYS") {
            return Err(NotAFilter::Dollar(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl Filter {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a topic is one of those it names. A wildcard in first place never matches a topic that begins with `$`.
    pub fn matches(&self, topic: &str) -> bool {
        self.includes(topic)
    }

    /// Whether every topic `other` names is one this filter names.
    pub fn covers(&self, other: &Self) -> bool {
        self.includes(&other.0)
    }

    fn includes(&self, other: &str) -> bool {
        if other.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = other.split('/');
        for own in self.0.split('/') {
            match (own, levels.next()) {
                ("#", _) => return true,
                (_, None | Some("#")) => return false,
                ("+", Some(_)) => {}
                (own, Some(level)) if own == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        let cases: &[(&str, &str, bool)] = &[
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("#", "$SYS/broker", false),
            ("+/broker", "$SYS/broker", false),
            ("$SYS/#", "$SYS/broker/uptime", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("église/+", "église/cloche", true),
        ];
        for (filter, topic, expected) in cases {
            let filter: Filter = filter.parse().expect("a filter");
            assert_eq!(filter.matches(topic), *expected, "{filter} {topic}");
        }
    }

    #[test]
    fn an_account_is_not_given_more_than_its_rules_cover() {
        let rule: Filter = "sensors/+/state".parse().expect("a filter");
        for (asked, expected) in [
            ("sensors/a/state", true),
            ("sensors/+/state", true),
            ("sensors/#", false),
            ("#", false),
            ("+/a/state", false),
        ] {
            assert_eq!(rule.covers(&asked.parse().expect("a filter")), expected, "{asked}");
        }
    }

    #[test]
    fn malformed_filters_are_refused() {
        for text in ["", "a#", "a#/b", "a/#/b", "b+", "+b/c", "a\0b", "$share/g/t", "$other", &"x".repeat(1_025)] {
            assert!(text.parse::<Filter>().is_err(), "{text:?} was taken");
        }
    }
}
