//! Every public capture, every damaged one, and the rules of the note.

use std::{fs, path::PathBuf};

use serde_json::Value;

use super::{frame::checksum, *};
use crate::reading::{Kind, Sharing};

fn fixtures(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tic").join(folder)
}

fn captures(folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(fixtures(folder)).expect("fixtures").map(|file| file.expect("file").path());
    let mut captures: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "bin")).collect();
    captures.sort();
    captures
}

fn error(name: &str) -> Vec<u8> {
    fs::read(fixtures("errors").join(format!("{name}.bin"))).expect("capture")
}

fn decoder() -> Decoder {
    decoder_of(Mode::Auto)
}

fn decoder_of(mode: Mode) -> Decoder {
    let name: PointId = "m".parse().expect("name");
    let common = Common { name: name.clone(), label: "Compteur".to_owned(), sharing: Sharing::Internal };
    let points = points(&common, mode, Duration::from_secs(10)).expect("points");
    Decoder::new(name, &points)
}

fn hear(bytes: &[u8]) -> Vec<Said> {
    let (mut decoder, mut said) = (decoder(), Vec::new());
    decoder.push(bytes, 0, &mut said);
    decoder.finish(&mut said);
    said
}

/// The last value of a channel.
fn value(said: &[Said], channel: &str) -> Option<(f64, Quality)> {
    said.iter().rev().find_map(|said| match said {
        Said::Value { point, value: Some(value), quality } if point.as_str() == format!("m/{channel}") => {
            Some((*value, *quality))
        }
        _ => None,
    })
}

fn good(said: &[Said], channel: &str) -> Option<f64> {
    value(said, channel).filter(|(_, quality)| *quality == Quality::Good).map(|(value, _)| value)
}

fn unreadable(said: &[Said]) -> Vec<&str> {
    let texts =
        said.iter().filter_map(|said| if let Said::Unreadable(text) = said { Some(text.as_str()) } else { None });
    texts.collect()
}

/// A frame of sound groups.
fn frame(groups: &[&str]) -> Vec<u8> {
    let mut frame = vec![0x02];
    for group in groups {
        let summed = if group.contains('\t') { format!("{group}\t") } else { (*group).to_owned() };
        let separator = if group.contains('\t') { "\t" } else { " " };
        frame.extend(format!("\n{group}{separator}{}\r", char::from(checksum(summed.as_bytes()))).bytes());
    }
    frame.push(0x03);
    frame
}

#[test]
fn every_public_frame_is_cut_into_the_groups_its_authors_expect() {
    for path in captures("frames") {
        let bytes = fs::read(&path).expect("capture");
        let expected = fs::read_to_string(path.with_extension("expected.json")).expect("expected");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        let wanted: Vec<&Value> = expected["groups"].as_array().expect("groups").iter().collect();
        let inside = bytes.strip_prefix(&[2]).expect("STX");
        let inside = inside.strip_suffix(&[3]).unwrap_or(inside);
        let found: Vec<_> = groups(inside).collect();
        let sound = |group: &&&Value| group["valid"] == true;
        let wanted_sound: Vec<_> = wanted
            .iter()
            .filter(sound)
            .map(|group| {
                let text = |key: &str| group[key].as_str().map(str::to_owned);
                (text("label"), text("horodate"), text("data"))
            })
            .collect();
        let found_sound: Vec<_> = found
            .iter()
            .flatten()
            .map(|group| {
                let text = |text: &str| Some(text.to_owned());
                (text(group.label), group.horodate.and_then(text), text(group.data))
            })
            .collect();
        assert_eq!(found_sound, wanted_sound, "{}", path.display());
        assert_eq!(found.len(), wanted.len(), "{}", path.display());

        let said = hear(&bytes);
        let cut_short = expected["frame_error"] == "truncated_no_etx";
        assert_eq!(said.iter().any(|said| matches!(said, Said::Value { .. })), !cut_short, "{}", path.display());
    }
}

#[test]
fn however_the_bytes_are_cut_they_say_the_same() {
    for path in captures("frames").into_iter().chain(captures("errors")) {
        let bytes = fs::read(&path).expect("capture");
        let whole = hear(&bytes);
        for length in [1, 7, 64] {
            let (mut decoder, mut said) = (decoder(), Vec::new());
            bytes.chunks(length).for_each(|chunk| decoder.push(chunk, 0, &mut said));
            decoder.finish(&mut said);
            assert_eq!(said, whole, "{}", path.display());
        }
    }
}

#[test]
fn a_standard_frame_becomes_points_with_their_values() {
    let bytes = fs::read(fixtures("frames/teleinfo-nom_message_std_3P_tempo_00.bin")).expect("capture");
    let said = hear(&bytes);
    let values = [
        ("index", 21_849_106.0),
        ("index-tariff-2", 14_090_959.0),
        ("voltage-2", 238.0),
        ("current-2", 6.0),
        ("subscribed-power", 30.0),
        ("power-max", 10_802.0),
        ("power-max-yesterday-1", 3_129.0),
        ("tariff", 3.0),
        ("clock-degraded", 0.0),
        // STGE 463A0800: Tempo white today, blue tomorrow, a mobile peak announced in bits 30-31.
        ("tempo-today", 2.0),
        ("tempo-tomorrow", 1.0),
        ("mobile-peak", 1.0),
    ];
    for (channel, expected) in values {
        assert_eq!(good(&said, channel), Some(expected), "{channel}");
    }
    assert_eq!(unreadable(&said), Vec::<&str>::new());
}

#[test]
fn a_historic_frame_becomes_points_with_their_values() {
    let bytes = fs::read(fixtures("frames/esciara_bbr_hist_10frames_00.bin")).expect("capture");
    let said = hear(&bytes);
    assert!(good(&said, "index-blue-peak").is_some_and(|index| index > 0.0));
    assert_eq!(good(&said, "over-power"), Some(0.0));
    assert!(good(&said, "tariff").is_some() && good(&said, "tempo-tomorrow").is_some());
    assert!(good(&said, "power").is_some() && good(&said, "current-1").is_some());
}

#[test]
fn the_meters_identifiers_are_nowhere() {
    for path in captures("frames").into_iter().chain(captures("errors")) {
        for said in hear(&fs::read(&path).expect("capture")) {
            assert!(!format!("{said:?}").contains("0123456789"), "{}: {said:?}", path.display());
        }
    }
}

#[test]
fn every_damaged_capture_is_described_and_tried() {
    let manifest = fs::read_to_string(fixtures("errors/MANIFEST.json")).expect("manifest");
    let manifest: BTreeMap<String, String> = serde_json::from_str(&manifest).expect("JSON");
    for path in captures("errors") {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("name");
        assert!(manifest.contains_key(name), "{name} is not in the manifest");
    }
}

#[test]
fn one_damaged_group_never_costs_the_others() {
    // capture, the channels that must be lost, some that must be there
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("std_checksum_byte_7f", &["index"], &["index-tariff-1", "index-tariff-5", "index-distributor-1"]),
        ("std_digit_became_space", &["index-distributor-1"], &["index", "index-tariff-1", "index-tariff-5"]),
        ("std_label_split_by_control", &[], &["index", "index-tariff-1", "index-tariff-5", "index-distributor-1"]),
        ("std_nul_in_data", &["index-tariff-1"], &["index", "index-tariff-5", "index-distributor-1"]),
        ("group_without_data", &[], &["index", "power", "current-1", "tariff"]),
    ];
    for (name, lost, kept) in cases {
        let said = hear(&error(name));
        lost.iter().for_each(|channel| assert_eq!(value(&said, channel), None, "{name}: {channel}"));
        kept.iter().for_each(|channel| assert!(good(&said, channel).is_some(), "{name}: {channel}"));
        assert_eq!(unreadable(&said).len(), 1, "{name}: {said:?}");
    }
}

#[test]
fn a_group_whose_start_was_damaged_is_found_again_by_the_end_of_the_one_before() {
    let said = hear(&error("std_lf_corrupted_0e"));
    assert_eq!(good(&said, "index-tariff-5"), Some(3_456.0));
    assert_eq!(unreadable(&said), Vec::<&str>::new());
}

#[test]
fn a_sound_frame_after_garbage_or_a_restart_is_heard() {
    for name in ["garbage_then_frame", "stx_restart", "hist_ok", "hist_7e1_read_as_8n1"] {
        assert_eq!(good(&hear(&error(name)), "index"), Some(2_809_718.0), "{name}");
    }
    assert_eq!(unreadable(&hear(&error("garbage_then_frame"))), Vec::<&str>::new());
    assert_eq!(unreadable(&hear(&error("stx_restart"))), ["frame of 50 bytes without its end (03)"]);
}

#[test]
fn a_frame_without_its_end_says_nothing_but_that() {
    let said = hear(&error("no_etx_truncated"));
    assert_eq!(said.len(), 1);
    assert!(unreadable(&said)[0].contains("without its end"));
}

#[test]
fn a_cooked_line_is_named_as_such() {
    let said = hear(&error("cr_lf_swapped_cooked_tty"));
    assert_eq!(said.len(), 1);
    assert!(unreadable(&said)[0].contains("not in raw mode"), "{said:?}");
}

#[test]
fn a_lower_case_season_makes_what_it_dates_suspect() {
    let said = hear(&error("std_season_degraded"));
    assert_eq!(value(&said, "clock-degraded"), Some((1.0, Quality::Suspect(Why::Degraded))));
    assert_eq!(good(&said, "index"), Some(123_456.0), "an index is not dated");
    let said = hear(&frame(&["SMAXSN\te200213085118\t03129"]));
    assert_eq!(value(&said, "power-max"), Some((3_129.0, Quality::Suspect(Why::Degraded))));
    assert_eq!(good(&hear(&error("std_dst_fold_winter")), "clock-degraded"), Some(0.0));
}

#[test]
fn an_over_power_is_told_and_is_past_with_the_next_long_frame() {
    let mut bytes = error("hist_adps");
    assert_eq!(good(&hear(&bytes), "over-power"), Some(1.0));
    bytes.extend(error("hist_ok"));
    assert_eq!(good(&hear(&bytes), "over-power"), Some(0.0));
}

#[test]
fn the_short_frames_of_a_three_phase_meter_clear_nothing() {
    let (mut decoder, mut said) = (decoder(), Vec::new());
    decoder.push(&frame(&["BASE 002809718", "PTEC TH..", "IINST2 004", "PAPP 00390"]), 0, &mut said);
    said.clear();
    decoder.push(&frame(&["ADIR2 031", "ADCO 012345678901", "IINST1 001", "IINST2 031", "IINST3 002"]), 500, &mut said);
    decoder.push(&frame(&["ADCO 012345678901", "IINST1 001", "IINST2 004", "IINST3 002"]), 900, &mut said);
    assert_eq!(good(&said, "over-power"), Some(1.0));
    assert_eq!(value(&said, "index"), None);
    assert_eq!(good(&said, "current-2"), Some(4.0));
    decoder.push(&frame(&["BASE 002809719", "PTEC TH..", "IINST2 004", "PAPP 00390"]), 2_000, &mut said);
    assert_eq!((good(&said, "index"), good(&said, "over-power")), (Some(2_809_719.0), Some(0.0)));
}

#[test]
fn two_swapped_digits_that_keep_the_checksum_are_suspect_and_the_next_frame_is_good() {
    let (mut decoder, mut said) = (decoder(), Vec::new());
    for (n, name) in (0_u64..).zip(["hist_ok", "hist_compensating_errors", "hist_ok"]) {
        decoder.push(&error(name), n * 1_500, &mut said);
    }
    let index = said.iter().filter_map(|said| match said {
        Said::Value { point, quality, .. } if point.as_str() == "m/index" => Some(*quality),
        _ => None,
    });
    assert_eq!(index.collect::<Vec<_>>(), [Quality::Good, Quality::Suspect(Why::ImplausibleStep), Quality::Good]);
}

#[test]
fn an_index_rolls_over_after_nine_digits() {
    let (mut decoder, mut said) = (decoder(), Vec::new());
    decoder.push(&error("hist_index_rollover_a"), 0, &mut said);
    assert_eq!(good(&said, "index"), Some(999_999_998.0));
    decoder.push(&frame(&["BASE 000000001"]), 2_000, &mut said);
    assert_eq!(good(&said, "index"), Some(1.0));
}

#[test]
fn a_subscription_that_is_only_a_placeholder_does_not_make_a_true_index_suspect() {
    let (mut decoder, mut said) = (decoder(), Vec::new());
    for n in 0..20_u64 {
        // 30 kVA drawn, 15 A said to be subscribed: 16.7 Wh in 2 s.
        let index = format!("BASE {:09}", 1_000 + n * 50 / 3);
        decoder.push(&frame(&["ISOUSC 15", &index, "PAPP 30000"]), n * 2_000, &mut said);
        assert!(good(&said, "index").is_some());
    }
}

#[test]
fn parity_carried_in_bit_7_is_checked() {
    let with_parity = |byte: &u8| if byte.count_ones().is_multiple_of(2) { *byte } else { byte | 0x80 };
    let mut bytes: Vec<u8> = error("hist_ok").iter().map(with_parity).collect();
    let at = bytes.windows(4).position(|w| w.iter().map(|b| b & 0x7f).eq(*b"PAPP")).expect("PAPP");
    // Two bits of two bytes: the checksum alone would still hold.
    bytes[at + 5] ^= 0x01;
    bytes[at + 6] ^= 0x01;
    let said = hear(&bytes);
    assert_eq!(value(&said, "power"), None);
    assert_eq!(good(&said, "index"), Some(2_809_718.0));
}

#[test]
fn noise_is_told_and_memory_stays_bounded() {
    let (mut decoder, mut said) = (decoder(), Vec::new());
    for _ in 0..1_000 {
        decoder.push(&[0x55; 997], 0, &mut said);
    }
    assert!(decoder.framer.push(b'x', |_| ()).is_none());
    assert!(unreadable(&said)[0].starts_with("4096 bytes without a start of frame"), "{said:?}");
    said.clear();
    decoder.push(&[0x02], 0, &mut said);
    decoder.push(&[b'A'; 100_000], 0, &mut said);
    assert_eq!(unreadable(&said)[0], "frame longer than 4096 bytes");
    said.clear();
    decoder.push(&error("hist_ok"), 0, &mut said);
    assert_eq!(good(&said, "index"), Some(2_809_718.0));
}

#[test]
fn any_bytes_at_all_are_survived() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let base = error("std_dst_fold_winter");
    for _ in 0..3_000 {
        let mut bytes = base.clone();
        for _ in 0..1 + random() % 6 {
            let at = (random() % bytes.len() as u64) as usize;
            bytes[at] = random() as u8;
        }
        for said in hear(&bytes) {
            assert!(!matches!(said, Said::Value { value: Some(value), .. } if !value.is_finite()));
        }
    }
}

#[test]
fn each_point_is_described_once_and_alike_in_both_modes() {
    let common = Common {
        name: "electricity/mairie".parse().expect("name"),
        label: "Mairie".into(),
        sharing: Sharing::Internal,
    };
    for mode in [Mode::Standard, Mode::Historic, Mode::Auto] {
        let points = points(&common, mode, Duration::from_secs(10)).expect("points");
        for quantity in mode.quantities() {
            let id = common.name.join(quantity.channel).expect("id");
            let same: Vec<_> = points.iter().filter(|point| point.id == id).collect();
            assert_eq!(same.len(), 1, "{id}");
            assert_eq!((same[0].unit.as_str(), same[0].kind), (quantity.unit, quantity.kind), "{id}");
        }
        assert!(points.iter().any(|point| point.interval.is_some()));
        assert!(points.iter().any(|point| point.kind == Kind::Counter));
    }
}

#[test]
fn a_meter_that_speaks_the_other_mode_is_told_once_a_frame_and_only_declared_points_are_given() {
    let historic = error("hist_ok");
    let standard = frame(&["EAST\t000123456", "DATE\tH261122000000\t", "URMS1\t230", "SINSTS\t01250"]);
    for (mode, frame, spoken) in [(Mode::Standard, historic, "historic"), (Mode::Historic, standard, "standard")] {
        let mut decoder = decoder_of(mode);
        let (declared, mut said) = (decoder.meter.declared.clone(), Vec::new());
        decoder.push(&frame.repeat(2), 0, &mut said);
        let undeclared = |said: &&Said| matches!(said, Said::Value { point, .. } if !declared.contains(point));
        assert_eq!(said.iter().find(undeclared), None, "{mode:?}");
        assert_eq!(unreadable(&said).len(), 2, "once for each of two frames: {said:?}");
        assert!(unreadable(&said)[0].starts_with(&format!("the meter speaks {spoken} mode")), "{said:?}");
        assert!(good(&said, "index").is_some(), "what both modes have is kept");
    }
}
