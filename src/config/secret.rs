//! What of a configuration nobody may read over a shoulder: passwords and the code of a SIM. Found in the text, not in what
//! was understood of it, so that a line that does not parse shows no more than one that does.

use std::borrow::Cow;

/// The keys whose values are secrets, in whatever block.
pub(super) const KEYS: &[&str] = &["password", "sim_pin"];

/// Where secrets are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In every block.
    Anywhere,
    /// Only below `[network]`, which the gateway itself never reads.
    Network,
}

/// The same text, byte for byte as long, its secrets made unreadable. For the gateway a digit becomes 0 and anything else a
/// letter, so that what was sound stays so; for whoever reads the lines, a star each.
pub fn masked(text: &str, place: Where) -> Cow<'_, str> {
    let mut bytes = Cow::Borrowed(text.as_bytes());
    let mut from = 0;
    while let Some((start, end)) = next_value(text, from) {
        if place == Where::Anywhere || in_network(text, start) {
            for byte in &mut bytes.to_mut()[start..end] {
                *byte = mask(*byte, place);
            }
        }
        from = end;
    }
    match bytes {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn mask(byte: u8, place: Where) -> u8 {
    match (byte, place) {
        (b'\n' | b'\r', _) => byte,
        (_, Where::Anywhere) => b'*',
        (b'0'..=b'9', Where::Network) => b'0',
        (_, Where::Network) => b'a',
    }
}

/// Where the next secret value stands, without its quotes.
fn next_value(text: &str, from: usize) -> Option<(usize, usize)> {
    let mut from = from;
    loop {
        let rest = text.get(from..)?;
        let (at, key) = KEYS.iter().filter_map(|key| Some((rest.find(key)?, key))).min()?;
        let (start, after) = (from + at, from + at + key.len());
        let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        let stands_alone = !text[..start].ends_with(part_of_a_word) && !text[after..].starts_with(part_of_a_word);
        match assigned(&text[after..]).filter(|_| stands_alone) {
            Some(value) => return Some((after + value.start, after + value.end)),
            None => from = after,
        }
    }
}

/// The value after a key: what its quotes hold, or what is there up to the end of the line.
fn assigned(after: &str) -> Option<std::ops::Range<usize>> {
    let blank = |c: char| c == ' ' || c == '\t';
    let closed = after.strip_prefix(['"', '\'']).unwrap_or(after);
    let value = closed.trim_start_matches(blank).strip_prefix('=')?.trim_start_matches(blank);
    let start = after.len() - value.len();
    let line = value.find(['\n', '\r']).unwrap_or(value.len());
    for quotes in ["\"\"\"", "'''", "\"", "'"] {
        let Some(inside) = value.strip_prefix(quotes) else { continue };
        // One line of text ends on its line, whatever quotes follow.
        let room = if quotes.len() == 3 { inside.len() } else { line - 1 };
        let end = closing(&inside[..room], quotes).unwrap_or(room);
        return Some(start + quotes.len()..start + quotes.len() + end);
    }
    Some(start..start + line)
}

/// Where these quotes close, not counting those behind a backslash.
fn closing(inside: &str, quotes: &str) -> Option<usize> {
    let escapes = quotes.starts_with('"');
    let mut at = 0;
    while at < inside.len() {
        let rest = inside.as_bytes().get(at..)?;
        match rest.first()? {
            b'\\' if escapes => at += 2,
            _ if rest.starts_with(quotes.as_bytes()) => return Some(at),
            _ => at += 1,
        }
    }
    None
}

/// Whether a place is below `[network]`: its line begins with the word, or the last header before it does.
fn in_network(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let begins = |line: &str| line.trim_start_matches(['[', ' ', '\t', '"', '\'']).starts_with("network");
    let line = before.rsplit('\n').next().unwrap_or_default();
    let header = before.rsplit('\n').find(|line| line.trim_start().starts_with('[')).unwrap_or_default();
    begins(line) || begins(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_and_however_they_are_written_and_nothing_else_is() {
        for (text, shown) in [
            ("password = \"Été 1984\"\npin = 17\n", "password = \"**********\"\npin = 17\n"),
            ("password='a\"b' # c", "password='***' # c"),
            ("password = \"a\\\"b\", x = 1", "password = \"****\", x = 1"),
            ("password = \"cut short\nssid = \"x\"\n", "password = \"*********\nssid = \"x\"\n"),
            ("password = secret word\n", "password = ***********\n"),
            ("password = \"\"\"\nab\ncd\"\"\"\nx = 1", "password = \"\"\"\n**\n**\"\"\"\nx = 1"),
            ("wifi = { ssid = \"a\", password = \"b1\" }", "wifi = { ssid = \"a\", password = \"**\" }"),
            ("network.mobile.sim_pin = \"1234\"", "network.mobile.sim_pin = \"****\""),
            ("\"password\" = \"x\"", "\"password\" = \"*\""),
            ("password_file = \"/etc/x\"", "password_file = \"/etc/x\""),
            ("# the password of the box", "# the password of the box"),
            ("password = ", "password = "),
            ("password = \"", "password = \""),
            ("password", "password"),
        ] {
            assert_eq!(masked(text, Where::Anywhere), shown, "{text}");
        }
    }

    #[test]
    fn the_gateway_keeps_the_broker_s_passwords_and_never_sees_the_network_s() {
        let text = "[network.wifi]\npassword = \"secret\"\n[[broker.account]]\npassword = \"kept\"\n\
                    [network]\nmobile = { password = \"x\" }\n";
        let shown = "[network.wifi]\npassword = \"aaaaaa\"\n[[broker.account]]\npassword = \"kept\"\n\
                     [network]\nmobile = { password = \"a\" }\n";
        assert_eq!(masked(text, Where::Network), shown);
    }
}
