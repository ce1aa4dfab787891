//! Writes metrics as text: OpenMetrics 1.0, or the older Prometheus format 0.0.4 that it grew from.
//!
//! Ours rather than a crate: the official one keeps registries of live counters, while each of our answers is made of
//! what one peer may see at that moment.

use std::fmt::Write;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenMetrics,
    Prometheus,
}

/// How a family's values behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gauge,
    /// Only grows; its samples end in `_total`.
    Counter,
    /// Always 1, with what it says in labels; its samples end in `_info`.
    Info,
}

/// A text in the making. Samples belong to the family begun last.
#[derive(Debug)]
pub(crate) struct Exposition {
    text: String,
    dialect: Dialect,
    /// The name of its samples.
    sample: String,
}

impl Exposition {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { text: String::new(), dialect, sample: String::new() }
    }

    /// Begins a family. `unit` is a base unit, and the name's last part.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, unit: Option<&str>, help: &str) {
        let (suffix, word) = match (kind, self.dialect) {
            (Kind::Gauge, _) => ("", "gauge"),
            (Kind::Counter, _) => ("_total", "counter"),
            (Kind::Info, Dialect::OpenMetrics) => ("_info", "info"),
            (Kind::Info, Dialect::Prometheus) => ("_info", "gauge"),
        };
        self.sample = format!("{name}{suffix}");
        // OpenMetrics names a family without the suffix of its samples, the older format with it.
        let family = if self.dialect == Dialect::OpenMetrics { name } else { &self.sample };
        let mut line = |what: &str, said: &str| {
            let _ = writeln!(self.text, "# {what} {family} {said}");
        };
        line("HELP", &escaped(help));
        line("TYPE", word);
        if let (Some(unit), Dialect::OpenMetrics) = (unit, self.dialect) {
            line("UNIT", unit);
        }
    }

    /// A sample of the family.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&self.sample);
        for (place, (name, said)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{name}=\"{}\"", escaped(said));
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family of one sample.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, unit: Option<&str>, help: &str, value: f64) {
        self.family(name, kind, unit, help);
        self.sample(&[], value);
    }

    /// The whole text.
    pub(crate) fn finish(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// In both formats a backslash, a line feed and, in labels, a quotation mark are escaped. An escaped quotation mark in
/// a help text is right in OpenMetrics, and read as two characters by the older format.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dialect: Dialect) -> String {
        let mut exposition = Exposition::new(dialect);
        exposition.single("hall_size_bytes", Kind::Gauge, Some("bytes"), "How large.", 1.5e12);
        exposition.family("hall_visits", Kind::Counter, None, "Who came.");
        exposition.sample(&[("door", "a \"b\"\\\n"), ("by", "né")], 3.0);
        exposition.single("hall", Kind::Info, None, "What it is.", 1.0);
        exposition.finish()
    }

    #[test]
    fn both_dialects_name_their_families_as_they_must() {
        let samples =
            ["hall_size_bytes 1500000000000", r#"hall_visits_total{door="a \"b\"\\\n",by="né"} 3"#, "hall_info 1"];
        for (dialect, heads) in [
            (
                Dialect::OpenMetrics,
                ["# UNIT hall_size_bytes bytes", "# TYPE hall_visits counter", "# TYPE hall info", "# EOF"],
            ),
            (
                Dialect::Prometheus,
                ["# TYPE hall_size_bytes gauge", "# TYPE hall_visits_total counter", "# TYPE hall_info gauge", ""],
            ),
        ] {
            let text = written(dialect);
            let lines: Vec<_> = text.lines().collect();
            for line in heads.iter().filter(|head| !head.is_empty()).chain(&samples) {
                assert!(lines.contains(line), "{line} in {text}");
            }
            assert_eq!(text.ends_with("# EOF\n"), dialect == Dialect::OpenMetrics);
            assert_eq!(text.contains("UNIT"), dialect == Dialect::OpenMetrics);
        }
    }
}
