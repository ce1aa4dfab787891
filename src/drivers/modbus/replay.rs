//! Captures of a bus: lines of `> request` and `< answer` in hexadecimal, or the JSON list of the published vectors.

use serde::Deserialize;

use super::{
    super::{Device, NotACapture, Poller, Request, Said, Wire},
    frame::{NotAnAnswer, answer, meaning, request},
};

/// One exchange: what was asked, if it was captured, and what came back.
struct Exchange {
    request: Option<Vec<u8>>,
    answer: Vec<u8>,
}

#[derive(Deserialize)]
struct Item {
    request_hex: Option<String>,
    #[serde(alias = "frame_hex")]
    response_hex: String,
}

/// Decodes a capture as if this device had asked.
pub(super) fn replay(device: Device, capture: &[u8]) -> Result<Vec<Said>, NotACapture> {
    let Wire::Bus { unit, poller, .. } = &device.wire else { return Ok(Vec::new()) };
    let text = std::str::from_utf8(capture).map_err(|_| not_a_capture(0, "text was expected"))?;
    let exchanges = if text.trim_start().starts_with('[') { json(text)? } else { lines(text)? };
    let mut said = Vec::new();
    for exchange in exchanges {
        say(&exchange, *unit, poller.as_ref(), &mut said);
    }
    Ok(said)
}

fn say(exchange: &Exchange, unit: u8, poller: &dyn Poller, said: &mut Vec<Said>) {
    let asked = exchange.request.as_deref().and_then(request);
    let unit = asked.map_or(unit, |(unit, _)| unit);
    let read = answer(&exchange.answer, unit).map_err(|wrong| unreadable(&exchange.answer, &wrong)).and_then(
        |(table, registers)| {
            let asked = match asked {
                Some((_, asked)) => asked,
                None => own_request(poller, table, registers.len(), &exchange.answer)?,
            };
            if asked.table != table || usize::from(asked.count) != registers.len() {
                let wrong = NotAnAnswer::Length { found: registers.len() * 2, expected: usize::from(asked.count) * 2 };
                return Err(unreadable(&exchange.answer, &wrong));
            }
            Ok((asked, registers))
        },
    );
    let before = said.len();
    match read {
        Ok((asked, registers)) => {
            poller.answer(asked, &registers, said);
            if said.len() == before {
                let Request { table, address, count } = asked;
                let text = format!("this device has no register among {count} {table:?} from {address}");
                said.push(Said::Unreadable(text));
            }
        }
        Err(text) => said.push(Said::Unreadable(text)),
    }
}

/// An answer whose request was not captured is taken for that to the device's own, when it has one of that size, or
/// only one.
fn own_request(poller: &dyn Poller, table: super::Table, count: usize, bytes: &[u8]) -> Result<Request, String> {
    let same_size = |request: &&Request| request.table == table && usize::from(request.count) == count;
    let own = poller.requests();
    let found = own.iter().find(same_size).or(if own.len() == 1 { own.first() } else { None });
    found.copied().ok_or_else(|| format!("answer of {count} registers to an unknown request: {}", hex(bytes)))
}

fn unreadable(bytes: &[u8], wrong: &NotAnAnswer) -> String {
    if let NotAnAnswer::Exception { code } = wrong {
        return format!("the device answered exception {code:02x}, {}", meaning(*code));
    }
    format!("{wrong}: {}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn lines(text: &str) -> Result<Vec<Exchange>, NotACapture> {
    let (mut exchanges, mut asked) = (Vec::new(), None);
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let expected = || not_a_capture(line, "`> hex` or `< hex` was expected");
        let (mark, bytes) = text.split_at_checked(1).ok_or_else(expected)?;
        let bytes = bytes_of(bytes).ok_or_else(expected)?;
        match mark {
            ">" => asked = Some(bytes),
            "<" => exchanges.push(Exchange { request: asked.take(), answer: bytes }),
            _ => return Err(expected()),
        }
    }
    if exchanges.is_empty() { Err(not_a_capture(0, "no answer (`< hex`) in the file")) } else { Ok(exchanges) }
}

fn json(text: &str) -> Result<Vec<Exchange>, NotACapture> {
    let items: Vec<Item> =
        serde_json::from_str(text).map_err(|wrong| not_a_capture(wrong.line(), &wrong.to_string()))?;
    let exchange = |(n, item): (usize, Item)| {
        let wrong = || not_a_capture(0, &format!("item {n}: hexadecimal bytes were expected"));
        let request = item.request_hex.map(|hex| bytes_of(&hex).ok_or_else(wrong)).transpose()?;
        Ok(Exchange { request, answer: bytes_of(&item.response_hex).ok_or_else(wrong)? })
    };
    items.into_iter().enumerate().map(exchange).collect()
}

/// Hexadecimal digits two by two, spaces anywhere.
fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

fn not_a_capture(line: usize, message: &str) -> NotACapture {
    NotACapture { line, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::device, *};
    use crate::reading::{Quality, Why};

    const FRAMES: &str = include_str!("../../../tests/fixtures/modbus/frames.json");
    const CO2: &str = include_str!("../../../tests/fixtures/modbus/co2_frames.json");

    const ONE_F32: &str = "[[register]]\nname = \"a\"\naddress = 0\ntype = \"f32\"\n";

    /// What one vector says to a device of the given keys.
    fn said(vectors: &str, name: &str, keys: &str) -> Vec<Said> {
        let items: Vec<serde_json::Value> = serde_json::from_str(vectors).expect("JSON");
        let item = items.into_iter().find(|item| item["name"] == name).expect(name);
        replay(device(keys), serde_json::to_string(&[item]).expect("JSON").as_bytes()).expect("a capture")
    }

    fn one(vectors: &str, name: &str, keys: &str) -> (Option<f64>, Quality) {
        match said(vectors, name, keys).as_slice() {
            [Said::Value { value, quality, .. }] => (*value, *quality),
            other => unreachable!("{name}: {other:?}"),
        }
    }

    fn refused(name: &str, keys: &str) -> String {
        match said(FRAMES, name, keys).as_slice() {
            [Said::Unreadable(text)] => text.clone(),
            other => unreachable!("{name}: {other:?}"),
        }
    }

    #[test]
    fn every_published_exchange_with_a_value_is_read() {
        let items: Vec<serde_json::Value> = serde_json::from_str(FRAMES).expect("JSON");
        let mut tried = 0;
        for item in &items {
            let Some(expected) = item["expected"]["value_f32_be"].as_f64() else { continue };
            let name = item["name"].as_str().expect("name");
            let address = item["expected"]["address"].as_u64().unwrap_or_default();
            let table = if item["expected"]["function"] == 3 { "holding" } else { "input" };
            let keys =
                format!("[[register]]\nname = \"a\"\naddress = {address}\ntable = \"{table}\"\ntype = \"f32\"\n");
            let (value, quality) = one(FRAMES, name, &keys);
            assert!(value.is_some_and(|value| (value - expected).abs() < 1e-4), "{name}: {value:?}");
            assert_eq!(quality, Quality::Good, "{name}");
            tried += 1;
        }
        assert_eq!(tried, 9);
    }

    #[test]
    fn captures_of_an_eastron_meter_are_read_by_its_model() {
        for (name, channel, expected) in [
            ("eastron_manual_voltage", "m/voltage-1", 230.2),
            ("sdm630_capture_0x001e", "m/power-factor-1", 1.0),
            ("sdm630_capture_0x000e", "m/power-2", 0.0),
        ] {
            match said(FRAMES, name, "model = \"SDM630\"").as_slice() {
                [Said::Value { point, value: Some(value), .. }] => {
                    assert_eq!(point.as_str(), channel);
                    assert!((value - expected).abs() < 1e-4, "{name}: {value}");
                }
                other => unreachable!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_negative_temperature_in_tenths_is_read() {
        let keys =
            "[[register]]\nname = \"t\"\naddress = 1\ntype = \"i16\"\nscale = 0.1\ndecimals = 1\nunit = \"Cel\"\n";
        let (value, _) = one(FRAMES, "xymd02_temp_negative", keys);
        assert!(value.is_some_and(|value| (value + 20.5).abs() < 1e-9), "{value:?}");
    }

    #[test]
    fn registers_of_a_level_probe_are_read() {
        let keys = "[[register]]\nname = \"raw\"\naddress = 0\ntable = \"holding\"\ntype = \"u64\"\n";
        let expected = f64::from(0x1404_6700_u32) * 2_f64.powi(32);
        assert_eq!(one(FRAMES, "td500_level_probe", keys), (Some(expected), Quality::Good));
    }

    #[test]
    fn a_senseair_s8_is_read_by_a_list_of_registers() {
        let co2 = "unit = 254\n[[register]]\nname = \"co2\"\naddress = 3\nrange = [0, 5000]\nunit = \"[ppm]\"\n";
        assert_eq!(one(CO2, "s8_reply_400ppm", co2), (Some(400.0), Quality::Good));
        let both = format!("{co2}[[register]]\nname = \"status\"\naddress = 0\nkind = \"state\"\nrange = [0, 0.5]\n");
        for (name, status, ppm) in [("s8_reply_status_ok_650", 0.0, 650.0), ("s8_reply_out_of_range", 32.0, 10_000.0)] {
            let values: Vec<_> = said(CO2, name, &both)
                .into_iter()
                .filter_map(|said| if let Said::Value { value, .. } = said { value } else { None })
                .collect();
            assert_eq!(values, [status, ppm], "{name}");
        }
    }

    #[test]
    fn infinity_is_no_value() {
        assert_eq!(one(FRAMES, "inf_value", ONE_F32), (None, Quality::Bad(Why::NotANumber)));
    }

    #[test]
    fn exceptions_are_told_in_words() {
        for (name, meaning) in [
            ("exception_01", "illegal function"),
            ("exception_03", "illegal data value"),
            ("exception_06", "device busy"),
        ] {
            assert!(refused(name, ONE_F32).contains(meaning), "{name}");
        }
    }

    #[test]
    fn answers_that_are_not_ours_are_refused_and_shown() {
        for (name, reason) in [
            ("crc_one_bit_flip", "CRC"),
            ("wrong_unit_id", "unit 2 answered for unit 1"),
            ("byte_count_mismatch", "6 bytes of registers where 4 were expected"),
        ] {
            let text = refused(name, ONE_F32);
            assert!(text.contains(reason) && text.contains("04 "), "{name}: {text}");
        }
    }

    #[test]
    fn a_zero_picked_up_before_the_answer_is_dropped() {
        let (value, _) = one(FRAMES, "noise_before_frame", ONE_F32);
        assert!(value.is_some_and(|value| (value - 230.2).abs() < 1e-4));
    }

    #[test]
    fn a_text_capture_is_read_and_a_wrong_line_named() {
        let capture = b"# Eastron\n> 01 04 00 00 00 02 71 cb\n< 01 04 04 43 66 33 34 1b 38\n";
        assert_eq!(replay(device(ONE_F32), capture).expect("a capture").len(), 1);
        let wrong = replay(device(ONE_F32), b"> 01 04 00 00 00 02 71 cb\nhello").expect_err("no capture");
        assert_eq!(wrong.line, 2);
        assert!(replay(device(ONE_F32), b"").is_err());
        assert!(replay(device(ONE_F32), b"[{\"response_hex\":\"zz\"}]").is_err());
        assert!(replay(device(ONE_F32), &[0xff, 0xfe]).is_err());
    }
}
