//! What leaves the loudspeakers: chime, pause, voice; the voice filtered for horns, at an even loudness, never clipped.
//!
//! Pure: samples in, samples out. Who speaks is `voice.rs`, where the sound goes is `player.rs`.

use std::{collections::VecDeque, io::Cursor, ops::Range, sync::Arc, time::Duration};

use ebur128::{EbuR128, Mode};
use hound::{SampleFormat, WavReader};

use super::chime::chime;
use crate::announcement::Class;

/// Samples a second of everything that leaves: what every sound card takes.
pub(crate) const RATE: u32 = 48_000;
/// Between chime and voice.
const PAUSE: Duration = Duration::from_millis(300);
/// Of the voice; source: chosen for horn loudspeakers, EBU R128 asks -23 of broadcast.
const LOUDNESS: f64 = -16.0;
/// True peak that is never passed: -1 dBTP.
const CEILING: f64 = 0.891_25;
/// The limiter aims lower, so that what lies between samples passes too: -1.6 dBFS.
const LIMIT: f32 = 0.831_8;
/// The limiter sees a peak this long before it comes.
const LOOK_AHEAD: usize = RATE as usize / 200;
/// How often what the limiter took away is made up for; each time less is missing.
const ROUNDS: usize = 5;
/// At most so many decibels are made up for: beyond, a voice would be crushed.
const MOST_MADE_UP: f64 = 15.0;
/// Horns carry nothing below, and it costs power.
const HIGH_PASS: f64 = 250.0;
/// Horns hiss above.
const LOW_PASS: f64 = 8_000.0;
/// A clip fainter than this says nothing.
const SILENCE: f64 = -55.0;
/// Around the voice, below this level of its peak, is silence.
const EDGE: f32 = 0.003;
/// Kept of the silence around the voice.
const MARGIN: usize = RATE as usize / 25;
/// A voice may be this long; 1 000 characters are read in 80 s.
const LONGEST: usize = 240;

/// Why a voice's file cannot become sound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SoundError {
    /// Not WAV, or cut off.
    #[error("the voice's file is not sound WAV")]
    NotWav(#[source] hound::Error),
    /// A kind of WAV that no voice makes.
    #[error("the voice's file has {channels} channels, {rate} samples a second, {bits} bits")]
    Unusual {
        /// 1 to 8 were expected.
        channels: u16,
        /// 8 000 to 192 000 were expected.
        rate: u32,
        /// 8, 16, 24, 32 were expected.
        bits: u16,
    },
    /// More than [`LONGEST`].
    #[error("the voice speaks for more than {LONGEST} s")]
    TooLong,
    /// Nothing to hear.
    #[error("the voice is silent")]
    Silent,
    /// The loudness could not be measured.
    #[error("measure the loudness")]
    Loudness(#[from] ebur128::Error),
}

/// A sound ready to be played: mono, 16 bits, [`RATE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sound {
    samples: Arc<[i16]>,
    voice: Range<usize>,
}

impl Sound {
    /// Chime, pause, voice. `wav` is what a program that speaks has written.
    ///
    /// # Errors
    /// When `wav` is not a WAV file with something to hear.
    pub(crate) fn compose(class: Class, wav: &[u8]) -> Result<Self, SoundError> {
        let (spoken, rate) = read(wav)?;
        let voice = for_loudspeakers(&resample(&spoken, rate))?;
        let mut whole = chime(class);
        whole.resize(whole.len() + PAUSE.as_millis() as usize * RATE as usize / 1_000, 0.0);
        let start = whole.len();
        whole.extend_from_slice(&voice);
        Ok(Self { voice: start..whole.len(), samples: whole.iter().map(|s| to_i16(*s)).collect() })
    }

    /// Any samples, for tests of those who play.
    #[cfg(test)]
    pub(crate) fn of(samples: Vec<i16>) -> Self {
        Self { voice: 0..samples.len(), samples: samples.into() }
    }

    /// All samples.
    pub(crate) fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// Where the voice is among the samples.
    #[cfg(test)]
    pub(crate) fn voice(&self) -> Range<usize> {
        self.voice.clone()
    }

    /// How long it lasts.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(RATE))
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.samples.len() * 2
    }

    /// As a WAV file.
    pub(crate) fn to_wav(&self) -> Vec<u8> {
        let mut wav = Vec::with_capacity(HEADER + self.bytes());
        wav.extend_from_slice(&header(self.samples.len()));
        wav.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes()));
        wav
    }
}

/// Bytes of a WAV file before its first sample.
pub(crate) const HEADER: usize = 44;

/// The header of a mono 16-bit WAV file at [`RATE`]; source: Multimedia Programming Interface 1.0, RIFF WAVE, PCM.
pub(crate) fn header(samples: usize) -> [u8; HEADER] {
    let data = u32::try_from(samples * 2).unwrap_or(u32::MAX - 36);
    let mut bytes = [0; HEADER];
    let fields: [&[u8]; 13] = [
        b"RIFF",
        &(data + 36).to_le_bytes(),
        b"WAVE",
        b"fmt ",
        &16_u32.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &RATE.to_le_bytes(),
        &(RATE * 2).to_le_bytes(),
        &2_u16.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &data.to_le_bytes(),
    ];
    for (place, byte) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
        *place = *byte;
    }
    bytes
}

fn to_i16(sample: f32) -> i16 {
    // `as` saturates, and the limiter has already kept it far from the edge.
    (sample * 32_767.0).round() as i16
}

/// Samples between -1 and 1, mono, and their rate.
fn read(wav: &[u8]) -> Result<(Vec<f32>, u32), SoundError> {
    let reader = WavReader::new(Cursor::new(wav)).map_err(SoundError::NotWav)?;
    let spec = reader.spec();
    let (channels, rate, bits) = (spec.channels, spec.sample_rate, spec.bits_per_sample);
    if !(1..=8).contains(&channels) || !(8_000..=192_000).contains(&rate) || !(8..=32).contains(&bits) {
        return Err(SoundError::Unusual { channels, rate, bits });
    }
    if reader.duration() as usize > LONGEST * rate as usize {
        return Err(SoundError::TooLong);
    }
    let all: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        SampleFormat::Float => reader.into_samples::<f32>().collect(),
        SampleFormat::Int => {
            let scale = 1.0 / (1_i64 << (bits - 1)) as f32;
            reader.into_samples::<i32>().map(|sample| Ok(sample? as f32 * scale)).collect()
        }
    };
    let all = all.map_err(SoundError::NotWav)?;
    let mono = all.chunks(usize::from(channels)).map(|frame| frame.iter().sum::<f32>() / f32::from(channels));
    Ok((mono.map(|sample| if sample.is_finite() { sample.clamp(-4.0, 4.0) } else { 0.0 }).collect(), rate))
}

/// Half the width of the interpolation, in zero crossings of its sinc.
const CROSSINGS: usize = 16;
/// Steps of the table between two zero crossings.
const STEPS: usize = 256;

/// To [`RATE`], by a windowed sinc read from a table.
fn resample(samples: &[f32], rate: u32) -> Vec<f32> {
    if rate == RATE {
        return samples.to_vec();
    }
    let table = sinc_table();
    let ratio = f64::from(rate) / f64::from(RATE);
    // Going down, the sinc is widened, so that nothing folds back.
    let cut = (1.0 / ratio).min(1.0);
    let reach = CROSSINGS as f64 / cut;
    let count = (samples.len() as f64 / ratio) as usize;
    (0..count)
        .map(|n| {
            let centre = n as f64 * ratio;
            let first = (centre - reach).ceil().max(0.0) as usize;
            let last = ((centre + reach) as usize).min(samples.len().saturating_sub(1));
            let near = samples.get(first..=last).unwrap_or_default();
            let sum: f64 = near
                .iter()
                .enumerate()
                .map(|(k, sample)| f64::from(*sample) * look_up(&table, ((first + k) as f64 - centre).abs() * cut))
                .sum();
            (sum * cut) as f32
        })
        .collect()
}

fn sinc_table() -> Vec<f64> {
    (0..=CROSSINGS * STEPS + 1)
        .map(|n| {
            let x = n as f64 / STEPS as f64;
            let angle = std::f64::consts::PI * x;
            let sinc = if n == 0 { 1.0 } else { angle.sin() / angle };
            let edge = std::f64::consts::PI * (x / CROSSINGS as f64).min(1.0);
            // Blackman's window: side lobes 58 dB down.
            sinc * (0.42 + 0.5 * edge.cos() + 0.08 * (2.0 * edge).cos())
        })
        .collect()
}

fn look_up(table: &[f64], x: f64) -> f64 {
    let place = x * STEPS as f64;
    let whole = place as usize;
    match table.get(whole..whole + 2) {
        Some([a, b]) => a + (b - a) * (place - whole as f64),
        _ => 0.0,
    }
}

/// Trimmed, filtered, at [`LOUDNESS`], peaks below [`CEILING`].
fn for_loudspeakers(samples: &[f32]) -> Result<Vec<f32>, SoundError> {
    let mut voice = trimmed(samples).to_vec();
    if voice.is_empty() || loudness(&voice)? < SILENCE {
        return Err(SoundError::Silent);
    }
    Biquad::high_pass(HIGH_PASS).run(&mut voice);
    Biquad::low_pass(LOW_PASS).run(&mut voice);
    soften_ends(&mut voice);
    let voice = at_loudness(&voice)?;
    below_ceiling(voice)
}

fn trimmed(samples: &[f32]) -> &[f32] {
    let edge = EDGE * samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    let heard = |sample: &f32| sample.abs() > edge;
    let (Some(first), Some(last)) = (samples.iter().position(heard), samples.iter().rposition(heard)) else {
        return &[];
    };
    let end = (last + MARGIN).min(samples.len());
    samples.get(first.saturating_sub(MARGIN)..end).unwrap_or_default()
}

fn soften_ends(samples: &mut [f32]) {
    let ramp = (MARGIN / 4).min(samples.len() / 2);
    for n in 0..ramp {
        let gain = n as f32 / ramp as f32;
        for place in [n, samples.len() - 1 - n] {
            if let Some(sample) = samples.get_mut(place) {
                *sample *= gain;
            }
        }
    }
}

/// Integrated loudness in LUFS. A word shorter than the measure's 400 ms is measured as if it were repeated.
fn loudness(samples: &[f32]) -> Result<f64, ebur128::Error> {
    let mut meter = EbuR128::new(1, RATE, Mode::I)?;
    let rounds = (RATE as usize).div_ceil(samples.len().max(1)).min(1_000);
    for _ in 0..rounds {
        meter.add_frames_f32(samples)?;
    }
    meter.loudness_global()
}

/// Limiting takes some loudness away, so it is measured again and made up for, by the slope seen so far.
fn at_loudness(samples: &[f32]) -> Result<Vec<f32>, SoundError> {
    let first = LOUDNESS - loudness(samples)?;
    let (mut gain, mut slope) = (first, 1.0);
    let mut loud = limited(samples, from_decibels(gain) as f32);
    let mut reached = loudness(&loud)?;
    for _ in 0..ROUNDS {
        let missing = LOUDNESS - reached;
        let next = (gain + missing / slope).min(first + MOST_MADE_UP);
        if missing.abs() < 0.1 || (next - gain).abs() < 0.01 {
            break;
        }
        loud = limited(samples, from_decibels(next) as f32);
        let now = loudness(&loud)?;
        slope = ((now - reached) / (next - gain)).clamp(0.2, 1.0);
        (gain, reached) = (next, now);
    }
    Ok(loud)
}

fn from_decibels(decibels: f64) -> f64 {
    10_f64.powf(decibels / 20.0)
}

/// Amplified, and no sample beyond [`LIMIT`]: the gain goes down smoothly before a peak comes, and up again after it.
fn limited(samples: &[f32], gain: f32) -> Vec<f32> {
    let mut lowest = Lowest::default();
    let mut mean = Mean::of_ones();
    let wanted = |n: usize| samples.get(n).map_or(1.0, |s| LIMIT / (s.abs() * gain).max(LIMIT));
    // Both windows look back, so what they tell is of the sample two reaches ago.
    let limits = (0..samples.len() + 2 * LOOK_AHEAD).map(|n| mean.push(lowest.push(wanted(n))));
    samples.iter().zip(limits.skip(2 * LOOK_AHEAD)).map(|(sample, limit)| sample * gain * limit).collect()
}

/// A window: this far before and after the sample it is about.
const WINDOW: usize = 2 * LOOK_AHEAD + 1;

/// The lowest of the last [`WINDOW`] values.
#[derive(Default)]
struct Lowest {
    /// Values that may still become the lowest, with their number, rising.
    rising: VecDeque<(usize, f32)>,
    count: usize,
}

impl Lowest {
    fn push(&mut self, value: f32) -> f32 {
        while self.rising.back().is_some_and(|(_, last)| *last >= value) {
            self.rising.pop_back();
        }
        self.rising.push_back((self.count, value));
        self.count += 1;
        while self.rising.front().is_some_and(|(n, _)| n + WINDOW < self.count) {
            self.rising.pop_front();
        }
        self.rising.front().map_or(value, |(_, lowest)| *lowest)
    }
}

/// The mean of the last [`WINDOW`] values.
struct Mean {
    values: VecDeque<f32>,
    sum: f64,
}

impl Mean {
    fn of_ones() -> Self {
        Self { values: std::iter::repeat_n(1.0, WINDOW).collect(), sum: WINDOW as f64 }
    }

    fn push(&mut self, value: f32) -> f32 {
        self.values.push_back(value);
        self.sum += f64::from(value) - f64::from(self.values.pop_front().unwrap_or_default());
        (self.sum / WINDOW as f64) as f32
    }
}

/// What lies between the samples is measured at last, and the whole brought down by what passes.
fn below_ceiling(mut samples: Vec<f32>) -> Result<Vec<f32>, SoundError> {
    let mut meter = EbuR128::new(1, RATE, Mode::TRUE_PEAK)?;
    meter.add_frames_f32(&samples)?;
    let peak = meter.true_peak(0)?;
    if peak > CEILING {
        let down = (CEILING / peak) as f32;
        samples.iter_mut().for_each(|sample| *sample *= down);
    }
    Ok(samples)
}

/// A second-order filter; source: R. Bristow-Johnson, Audio EQ Cookbook, with Q = 1/√2.
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
}

impl Biquad {
    fn high_pass(frequency: f64) -> Self {
        Self::new(frequency, |cos| [(1.0 + cos) / 2.0, -(1.0 + cos), (1.0 + cos) / 2.0])
    }

    fn low_pass(frequency: f64) -> Self {
        Self::new(frequency, |cos| [(1.0 - cos) / 2.0, 1.0 - cos, (1.0 - cos) / 2.0])
    }

    fn new(frequency: f64, numerator: impl Fn(f64) -> [f64; 3]) -> Self {
        let (sin, cos) = (std::f64::consts::TAU * frequency / f64::from(RATE)).sin_cos();
        let alpha = sin * std::f64::consts::FRAC_1_SQRT_2;
        let scale = 1.0 / (1.0 + alpha);
        Self { b: numerator(cos).map(|b| b * scale), a: [-2.0 * cos * scale, (1.0 - alpha) * scale] }
    }

    fn run(&self, samples: &mut [f32]) {
        let ([b0, b1, b2], [a1, a2]) = (self.b, self.a);
        let (mut s1, mut s2) = (0.0, 0.0);
        for sample in samples {
            let x = f64::from(*sample);
            let y = b0 * x + s1;
            s1 = b1 * x - a1 * y + s2;
            s2 = b2 * x - a2 * y;
            *sample = y as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    fn tone(rate: u32, frequency: f32, level: f32, seconds: f32) -> Vec<f32> {
        let count = (rate as f32 * seconds) as usize;
        (0..count).map(|n| level * (TAU * frequency * n as f32 / rate as f32).sin()).collect()
    }

    fn wav(rate: u32, channels: u16, samples: &[f32]) -> Vec<u8> {
        let spec =
            hound::WavSpec { channels, sample_rate: rate, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let mut bytes = Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut bytes, spec).expect("writer");
        for sample in samples {
            for _ in 0..channels {
                writer.write_sample(to_i16(*sample)).expect("sample");
            }
        }
        writer.finalize().expect("end");
        bytes.into_inner()
    }

    fn rms(samples: &[f32]) -> f32 {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    }

    fn decibels(ratio: f32) -> f32 {
        20.0 * ratio.log10()
    }

    fn as_f32(samples: &[i16]) -> Vec<f32> {
        samples.iter().map(|s| f32::from(*s) / 32_767.0).collect()
    }

    fn true_peak(samples: &[f32]) -> f64 {
        let mut meter = EbuR128::new(1, RATE, Mode::TRUE_PEAK).expect("meter");
        meter.add_frames_f32(samples).expect("frames");
        20.0 * meter.true_peak(0).expect("peak").log10()
    }

    /// One harmonic of 140 Hz. Phases are spread as in a throat: aligned, they would be one spike a period.
    fn voice_at(harmonic: f32, t: f32) -> f32 {
        (TAU * 140.0 * harmonic * t + 0.3 * harmonic * harmonic).sin() / harmonic
    }

    /// Something like speech: bursts of a voiced sound with pauses, at very uneven levels.
    fn babble(rate: u32, level: f32) -> Vec<f32> {
        let mut samples = vec![0.0; rate as usize / 2];
        for burst in 0..12 {
            let loud = level * [1.0, 0.2, 0.5, 0.08][burst % 4];
            for n in 0..rate as usize / 4 {
                let t = n as f32 / rate as f32;
                let voiced: f32 = (1..12).map(|h| voice_at(h as f32, t)).sum();
                samples.push(loud * 0.4 * voiced * (std::f32::consts::PI * 4.0 * t).sin());
            }
            samples.resize(samples.len() + rate as usize / 8, 0.0);
        }
        samples.resize(samples.len() + rate as usize, 0.0);
        samples
    }

    #[test]
    fn a_faint_and_a_loud_voice_leave_at_the_same_loudness_without_clipping() {
        for (level, rate, channels) in [(0.02, 16_000, 1), (0.5, 22_050, 2), (1.0, 48_000, 1), (0.9, 96_000, 1)] {
            let sound = Sound::compose(Class::Information, &wav(rate, channels, &babble(rate, level))).expect("sound");
            let voice = as_f32(&sound.samples()[sound.voice()]);
            let measured = loudness(&voice).expect("loudness");
            assert!((measured - LOUDNESS).abs() < 0.5, "{level} at {rate}: {measured} LUFS");
            assert!(true_peak(&as_f32(sound.samples())) <= -0.99, "{level} at {rate}");
        }
    }

    #[test]
    fn the_chime_comes_first_then_a_pause_then_the_voice_and_the_silence_around_it_is_trimmed() {
        let sound = Sound::compose(Class::Alert, &wav(22_050, 1, &babble(22_050, 0.5))).expect("sound");
        let bell = chime(Class::Alert);
        let pause = RATE as usize * 3 / 10;
        assert_eq!(sound.voice().start, bell.len() + pause);
        assert!(sound.samples()[..bell.len()].iter().zip(&bell).all(|(a, b)| *a == to_i16(*b)));
        assert!(sound.samples()[bell.len()..sound.voice().start].iter().all(|s| *s == 0));
        let voice = as_f32(&sound.samples()[sound.voice()]);
        assert!(rms(&voice[..MARGIN / 8]) < 0.01, "starts softly");
        assert!(rms(&voice[..RATE as usize / 4]) > 0.01, "and soon");
        let length = voice.len() as f32 / RATE as f32;
        assert!((4.2..4.7).contains(&length), "12 bursts and 11 pauses are 4.4 s, not {length} s");
    }

    #[test]
    fn a_silent_clip_is_refused() {
        for silent in [vec![0.0; 48_000], tone(48_000, 1_000.0, 0.0005, 1.0), Vec::new()] {
            let refused = Sound::compose(Class::Information, &wav(48_000, 1, &silent));
            assert!(matches!(refused, Err(SoundError::Silent)), "{refused:?}");
        }
    }

    #[test]
    fn what_is_not_a_wav_file_is_refused() {
        let good = wav(22_050, 1, &babble(22_050, 0.5));
        for bytes in [&b""[..], b"RIFF", b"not a sound at all, but long enough to be one if it were", &good[..4_001]] {
            assert!(matches!(Sound::compose(Class::Alert, bytes), Err(SoundError::NotWav(_))));
        }
        let refused = Sound::compose(Class::Alert, &wav(4_000, 1, &babble(4_000, 0.5)));
        assert!(matches!(refused, Err(SoundError::Unusual { rate: 4_000, .. })), "{refused:?}");
    }

    #[test]
    fn a_voice_that_does_not_end_is_refused() {
        let endless = wav(8_000, 1, &vec![0.1; 8_000 * (LONGEST + 1)]);
        assert!(matches!(Sound::compose(Class::Alert, &endless), Err(SoundError::TooLong)));
    }

    #[test]
    fn a_single_short_word_is_as_loud_as_a_sentence() {
        let voice = for_loudspeakers(&tone(RATE, 700.0, 0.05, 0.2)).expect("voice");
        let measured = loudness(&voice).expect("loudness");
        assert!((measured - LOUDNESS).abs() < 1.0, "{measured} LUFS");
    }

    #[test]
    fn resampling_keeps_tones_and_folds_nothing_back() {
        for rate in [8_000, 16_000, 22_050, 44_100, 96_000, 192_000] {
            let out = resample(&tone(rate, 1_000.0, 0.5, 0.5), rate);
            assert_eq!(out.len(), RATE as usize / 2);
            let expected = tone(RATE, 1_000.0, 0.5, 0.5);
            let middle = 4_000..20_000;
            let apart: Vec<f32> =
                out[middle.clone()].iter().zip(&expected[middle.clone()]).map(|(a, b)| a - b).collect();
            let noise = decibels(rms(&apart) / rms(&expected[middle]));
            assert!(noise < -55.0, "{rate}: {noise} dB");
        }
        let above = resample(&tone(192_000, 40_000.0, 0.5, 0.5), 192_000);
        assert!(decibels(rms(&above[4_000..20_000]) / 0.354) < -55.0, "40 kHz is not heard at 8 kHz");
    }

    #[test]
    fn filters_take_away_what_horns_cannot_carry() {
        let through = |frequency| {
            let mut samples = tone(RATE, frequency, 0.5, 1.0);
            Biquad::high_pass(HIGH_PASS).run(&mut samples);
            Biquad::low_pass(LOW_PASS).run(&mut samples);
            decibels(rms(&samples[RATE as usize / 2..]) / (0.5 * std::f32::consts::FRAC_1_SQRT_2))
        };
        assert!(through(60.0) < -24.0, "{}", through(60.0));
        assert!((through(250.0) + 3.0).abs() < 0.3, "{}", through(250.0));
        assert!(through(1_500.0).abs() < 0.3, "{}", through(1_500.0));
        assert!((through(8_000.0) + 3.0).abs() < 0.5, "{}", through(8_000.0));
        assert!(through(16_000.0) < -14.0, "{}", through(16_000.0));
    }

    #[test]
    fn the_limiter_lets_no_sample_pass_and_leaves_the_rest_alone() {
        let mut samples = tone(RATE, 900.0, 0.1, 1.0);
        samples[24_000] = 3.0;
        let out = limited(&samples, 2.0);
        assert!(out.iter().all(|s| s.abs() <= LIMIT + 1e-5));
        assert!((out[10_000] - samples[10_000] * 2.0).abs() < 1e-6);
        assert!((out[30_000] - samples[30_000] * 2.0).abs() < 1e-6);
    }

    #[test]
    fn the_lowest_of_a_window_is_the_one_a_slow_search_finds() {
        let values: Vec<f32> = (0..3 * WINDOW as u64).map(|n| (n * 7_919 % 1_009) as f32).collect();
        let mut lowest = Lowest::default();
        for (n, value) in values.iter().enumerate() {
            let slow = values[(n + 1).saturating_sub(WINDOW)..=n].iter().copied().fold(f32::MAX, f32::min);
            assert_eq!(lowest.push(*value), slow, "at {n}");
        }
    }

    #[test]
    fn the_header_is_one_that_others_read() {
        let sound = Sound::of((0..1_000).collect());
        let wav = sound.to_wav();
        let mut reader = WavReader::new(Cursor::new(&wav)).expect("a WAV file");
        assert_eq!((reader.spec().sample_rate, reader.spec().channels, reader.duration()), (RATE, 1, 1_000));
        assert!(reader.samples::<i16>().map(|s| s.expect("sample")).eq(0..1_000));
    }
}
