//! The village hears espeak-ng: a typed text goes through the real voice into a WAV file, which is then measured.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clocher::{
    announce::{self, Ground},
    announcement::{Announcer, Class, End, Request, State},
    clock::{Clock, HeldTime, Source},
    condition::Board,
    config::{Block, Source as Text, announce as configuration},
    store::MemoryKeep,
    supervisor::Supervisor,
};
use ebur128::{EbuR128, Mode};
use tempfile::TempDir;

const RATE: usize = 48_000;
const TEXT: &str = "Avis à la population. M. le Maire informe : l'eau sera coupée demain de 8h30 à 12h, rue St-Martin.";

struct Hall {
    announcer: Arc<dyn Announcer>,
    supervisor: Supervisor,
    board: Board,
    folder: TempDir,
}

/// As a technician writes it; read by the same code as the gateway's own file.
fn hall(more: &str) -> Hall {
    let folder = TempDir::new().expect("folder");
    let text = format!(
        "output = \"wav\"\nwav_directory = {:?}\nwarm_up = \"20 ms\"\ntail = \"0 s\"\n{more}\n\
         [[zone]]\nname = \"bourg\"\nlabel = \"Le bourg\"\n[[zone]]\nname = \"hameau\"\n",
        folder.path().join("sounds")
    );
    let source = Text::new("gateway.toml", text);
    let table = source.parse();
    let settings = configuration::read(&Block::new(&source, "announce", table.span(), table.get_ref()));
    let settings = settings.unwrap_or_else(|| panic!("{:?}", source.faults()));
    // 12 May 2026, noon in Paris.
    let clock = Clock::new(1, HeldTime::at(1_778_580_000_000, Source::Ntp), []);
    let board = Board::new(clock.clone());
    let supervisor = Supervisor::new(board.clone());
    let ground = Ground {
        supervisor: supervisor.clone(),
        board: board.clone(),
        clock,
        keep: Arc::new(MemoryKeep::default()),
        pins: None,
        time_zone: jiff::tz::TimeZone::get("Europe/Paris").expect("Paris"),
    };
    Hall { announcer: announce::start(settings, ground), supervisor, board, folder }
}

fn request(class: Class, text: &str) -> Request {
    let zones = vec!["bourg".into(), "hameau".into()];
    Request { text: text.into(), class, zones, asked_by: "secretary".into(), key: None }
}

impl Hall {
    /// Until what `wanted` looks for is so; a minute of real time is more than any voice takes here.
    async fn until(&self, wanted: impl Fn(&dyn Announcer) -> bool) {
        let mut changes = self.announcer.changes();
        while !wanted(self.announcer.as_ref()) {
            changes.changed().await.expect("the part lives");
        }
    }

    /// The voice speaks in real time, the sound is "heard" in paused time.
    async fn hear(&self) {
        self.until(|a| a.queue().iter().all(|q| q.state == State::Playing)).await;
        tokio::time::pause();
        self.until(|a| a.queue().is_empty()).await;
        tokio::time::resume();
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("sounds")).expect("sounds");
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files
    }
}

fn read(path: &Path) -> Vec<f32> {
    samples(hound::WavReader::open(path).expect("a WAV file"))
}

fn samples<R: std::io::Read>(reader: hound::WavReader<R>) -> Vec<f32> {
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (RATE as u32, 1));
    reader.into_samples::<i16>().map(|sample| f32::from(sample.expect("sample")) / 32_768.0).collect()
}

fn loudness(samples: &[f32]) -> f64 {
    let mut meter = EbuR128::new(1, RATE as u32, Mode::I).expect("meter");
    meter.add_frames_f32(samples).expect("frames");
    meter.loudness_global().expect("loudness")
}

fn true_peak(samples: &[f32]) -> f64 {
    let mut meter = EbuR128::new(1, RATE as u32, Mode::TRUE_PEAK).expect("meter");
    meter.add_frames_f32(samples).expect("frames");
    20.0 * meter.true_peak(0).expect("peak").log10()
}

fn rms(samples: &[f32]) -> f32 {
    (samples.iter().map(|s| s * s).sum::<f32>() / samples.len().max(1) as f32).sqrt()
}

/// Where the 300 ms of silence between chime and voice begin.
fn pause(samples: &[f32]) -> usize {
    let length = RATE * 3 / 10;
    let mut quiet = 0;
    for (n, sample) in samples.iter().enumerate() {
        quiet = if *sample == 0.0 { quiet + 1 } else { 0 };
        if quiet >= length {
            return n + 1 - length;
        }
    }
    panic!("no pause of 300 ms");
}

/// Share of the energy below 250 Hz, 0 to 1, by a slow but plain Fourier sum over a second.
fn share_below(samples: &[f32], limit: usize) -> f32 {
    let second = &samples[..RATE.min(samples.len())];
    let bin = |hertz: usize| {
        let turn = std::f32::consts::TAU * hertz as f32 / RATE as f32;
        let sums = second.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, s)| {
            let (sin, cos) = (turn * (n % RATE) as f32).sin_cos();
            (re + s * cos, im + s * sin)
        });
        sums.0 * sums.0 + sums.1 * sums.1
    };
    let energy = |from: usize, to: usize| (from..to).step_by(20).map(bin).sum::<f32>();
    energy(20, limit) / energy(20, 4_000)
}

#[tokio::test]
async fn a_typed_text_is_chimed_spoken_and_leaves_at_the_right_loudness() {
    let hall = hall("");
    let id = hall.announcer.ask(request(Class::Information, TEXT)).await.expect("taken");
    hall.hear().await;

    let files = hall.files();
    let name = files[0].file_name().expect("name").to_string_lossy().into_owned();
    assert_eq!((files.len(), name), (1, format!("clocher_2026-05-12T12-00-00_{id}_bourg+hameau.wav")));
    let sound = read(&files[0]);
    let pause = pause(&sound);
    let (chime, voice) = (&sound[..pause], &sound[pause + RATE * 3 / 10..]);
    assert!((1.0..3.0).contains(&(chime.len() as f32 / RATE as f32)), "the chime lasts {} samples", chime.len());
    assert!(rms(&chime[..RATE / 2]) > 0.05, "the chime comes at once");
    let seconds = voice.len() as f32 / RATE as f32;
    assert!((5.0..12.0).contains(&seconds), "{} characters are read in {seconds} s", TEXT.len());
    let measured = loudness(voice);
    assert!((measured + 16.0).abs() < 1.0, "the voice is at {measured} LUFS");
    assert!(true_peak(&sound) <= -1.0, "true peak {} dBTP", true_peak(&sound));
    assert!(sound.iter().all(|s| s.abs() < 0.999), "no sample is clipped");
    let click = RATE / 1_000;
    assert!(rms(&voice[..click]) < 0.01 && rms(&voice[voice.len() - click..]) < 0.01, "ends without clicks");
    assert!(rms(&voice[..RATE / 2]) > 0.03, "speech begins within half a second");
    assert!(share_below(voice, 140) < 0.02, "horns are spared what they cannot carry");

    let journal = hall.announcer.journal(10);
    assert_eq!(journal.len(), 2);
    for (entry, zone) in journal.iter().rev().zip(["bourg", "hameau"]) {
        assert_eq!((entry.id, entry.zone.as_str(), &entry.end), (id, zone, &End::Played));
        let apart = entry.audible_ms as i64 - (sound.len() * 1_000 / RATE) as i64;
        assert!((0..500).contains(&apart), "audible for {} ms", entry.audible_ms);
    }
    assert!(hall.board.open().is_empty(), "{:?}", hall.board.open());
}

#[tokio::test]
async fn what_was_listened_to_first_is_what_is_played() {
    let hall = hall("");
    let preview = hall.announcer.preview(TEXT, Class::Important).await.expect("a preview");
    hall.announcer.ask(request(Class::Important, TEXT)).await.expect("taken");
    hall.hear().await;
    assert_eq!(std::fs::read(&hall.files()[0]).expect("file"), preview);
    let listened = samples(hound::WavReader::new(preview.as_slice()).expect("WAV"));
    assert!((loudness(&listened[pause(&listened) + RATE * 3 / 10..]) + 16.0).abs() < 1.0);
}

#[tokio::test]
async fn an_alert_cuts_an_information_whose_file_ends_there_and_which_is_played_again_whole() {
    let hall = hall("");
    hall.announcer.ask(request(Class::Information, TEXT)).await.expect("taken");
    hall.until(|a| a.queue().iter().any(|q| q.state == State::Playing)).await;
    let alert = hall.announcer.ask(request(Class::Alert, "Évacuez la salle.")).await.expect("taken");
    hall.until(|a| a.journal(1).first().is_some_and(|entry| entry.end == End::Cut { by: alert })).await;
    hall.hear().await;
    hall.hear().await;
    let lengths: Vec<f32> = hall.files().iter().map(|file| read(file).len() as f32 / RATE as f32).collect();
    // The held clock gives all the same date: 1 cut, 1 whole, 2.
    let [whole, again, danger] = lengths[..] else { panic!("{:?}", hall.files()) };
    assert!(whole.min(again) < whole.max(again) / 2.0 && danger < whole.max(again), "{lengths:?}");
    let ends: Vec<(u64, End)> = hall.announcer.journal(9).into_iter().rev().map(|e| (e.id.0, e.end)).collect();
    assert_eq!(ends.iter().step_by(2).map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(ends[4].1, End::Played);
}

#[tokio::test]
async fn a_stop_of_the_gateway_leaves_a_file_of_what_was_heard() {
    let hall = hall("");
    hall.announcer.ask(request(Class::Information, TEXT)).await.expect("taken");
    hall.until(|a| a.queue().iter().any(|q| q.state == State::Playing)).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    tokio::time::resume();
    assert!(hall.supervisor.stop(Duration::from_secs(2)).await.is_empty());
    let heard = read(&hall.files()[0]).len() as f32 / RATE as f32;
    assert!((1.4..3.0).contains(&heard), "{heard} s");
    let entry = &hall.announcer.journal(1)[0];
    assert!(matches!(&entry.end, End::Failed { why } if why.contains("gateway stopped")), "{entry:?}");
}

#[tokio::test]
async fn a_voice_of_the_operator_is_used_and_a_broken_one_is_told() {
    let own = r#"voice_command = ["espeak-ng", "-v", "fr+f3", "-f", "{text_file}", "-w", "{wav}"]"#;
    let sound = hall(own).announcer.preview("Bonjour à tous.", Class::Ambiance).await.expect("a preview");
    assert!(sound.len() > RATE * 2 * 2);
    let broken = r#"voice_command = ["espeak-ng", "--no-such-option", "{text_file}", "{wav}"]"#;
    let refused = hall(broken).announcer.preview("Bonjour", Class::Ambiance).await.expect_err("broken");
    assert!(refused.to_string().contains("espeak-ng wrote no sound: "), "{refused}");
    let absent = r#"voice_command = ["/no/such/voice", "{text_file}", "{wav}"]"#;
    let hall = hall(absent);
    let refused = hall.announcer.ask(request(Class::Alert, "Bonjour")).await.expect_err("absent");
    assert!(refused.to_string().contains("/no/such/voice"), "{refused}");
    assert!(hall.board.is_open(clocher::condition::Code::VoiceMissing, "voice"));
}
