//! The chimes, one for each class: bells of our own, computed, never a recording.
//!
//! They must not be taken for the national alert signal, a siren that holds 380 Hz for seconds in cycles of 101 s
//! (arrêté du 23 mars 2007): short strokes that decay, and no partial near 380 Hz.

use std::f32::consts::TAU;

use super::sound::RATE;
use crate::announcement::Class;

/// One stroke: when in milliseconds, which note in hertz, how hard from 0 to 1.
type Stroke = (u32, f32, f32);

const C5: f32 = 523.25;
const E5: f32 = 659.26;
const G5: f32 = 783.99;
const C6: f32 = 1_046.5;
const E6: f32 = 1_318.51;

/// A single soft bell.
const AMBIANCE: &[Stroke] = &[(0, C6, 0.6)];
/// The two falling notes that everybody knows.
const INFORMATION: &[Stroke] = &[(0, E5, 1.0), (550, C5, 1.0)];
/// Three rising notes.
const IMPORTANT: &[Stroke] = &[(0, C5, 1.0), (380, E5, 1.0), (760, G5, 1.0)];
/// Two groups of three quick high strokes.
const ALERT: &[Stroke] =
    &[(0, G5, 1.0), (180, C6, 1.0), (360, E6, 1.0), (900, G5, 1.0), (1_080, C6, 1.0), (1_260, E6, 1.0)];

/// Partials of a metal bar (glockenspiel): ratio to the note, strength, time to lose 60 dB in seconds.
/// source: modes of a free bar, 1 : 2.756 : 5.404; upper modes die first.
const PARTIALS: &[(f32, f32, f32)] = &[(1.0, 1.0, 1.3), (2.756, 0.35, 0.7), (5.404, 0.12, 0.35)];

/// How long the last stroke rings, in seconds.
const RING: f32 = 1.1;
/// A hammer's touch, and the end, are ramps: no click.
const ATTACK: f32 = 0.003;
const FADE: f32 = 0.08;
/// The loudest sample: below full scale by 5 dB.
const PEAK: f32 = 0.56;

fn strokes(class: Class) -> &'static [Stroke] {
    match class {
        Class::Ambiance => AMBIANCE,
        Class::Information => INFORMATION,
        Class::Important => IMPORTANT,
        Class::Alert => ALERT,
    }
}

/// The chime of a class, samples between -1 and 1 at [`RATE`].
pub(crate) fn chime(class: Class) -> Vec<f32> {
    let strokes = strokes(class);
    let last = strokes.iter().map(|(ms, ..)| *ms).max().unwrap_or(0);
    let mut samples = vec![0.0; at(last) + (RING * RATE as f32) as usize];
    for (ms, note, force) in strokes {
        strike(samples.get_mut(at(*ms)..).unwrap_or_default(), *note, *force);
    }
    fade_out(&mut samples);
    let loudest = samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    samples.iter_mut().for_each(|sample| *sample *= PEAK / loudest.max(f32::MIN_POSITIVE));
    if class == Class::Ambiance {
        samples.iter_mut().for_each(|sample| *sample *= 0.6);
    }
    samples
}

fn at(ms: u32) -> usize {
    (u64::from(ms) * u64::from(RATE) / 1_000) as usize
}

fn strike(samples: &mut [f32], note: f32, force: f32) {
    for (n, sample) in samples.iter_mut().enumerate() {
        let t = n as f32 / RATE as f32;
        let attack = (t / ATTACK).min(1.0);
        let ringing: f32 = PARTIALS
            .iter()
            .map(|(ratio, strength, decay)| strength * 10_f32.powf(-3.0 * t / decay) * (TAU * note * ratio * t).sin())
            .sum();
        *sample += force * attack * ringing;
    }
}

fn fade_out(samples: &mut [f32]) {
    let fade = (FADE * RATE as f32) as usize;
    for (n, sample) in samples.iter_mut().rev().take(fade).enumerate() {
        *sample *= n as f32 / fade as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Energy of `samples` at `frequency` (Goertzel), relative to their whole energy; 1 for a pure tone.
    fn share_at(samples: &[f32], frequency: f32) -> f32 {
        let turn = TAU * frequency / RATE as f32;
        let (re, im) = samples
            .iter()
            .enumerate()
            .fold((0.0, 0.0), |(re, im), (n, s)| (re + s * (turn * n as f32).cos(), im + s * (turn * n as f32).sin()));
        let energy: f32 = samples.iter().map(|s| s * s).sum();
        if energy == 0.0 { 0.0 } else { 2.0 * (re * re + im * im) / (samples.len() as f32 * energy) }
    }

    fn rms(samples: &[f32]) -> f32 {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    }

    fn sna() -> serde_json::Value {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pa/sna_timeline.json");
        serde_json::from_str(&std::fs::read_to_string(file).expect("the timeline")).expect("JSON")
    }

    #[test]
    fn no_chime_has_energy_at_the_frequency_of_the_national_alert_signal() {
        let alert = &sna()["alert"];
        let (centre, tolerance) =
            (alert["frequency_hz"].as_f64().expect("Hz") as f32, alert["tolerance_hz"].as_f64().expect("Hz") as f32);
        for class in Class::ALL {
            for window in chime(class).chunks(RATE as usize / 4).filter(|w| w.len() == RATE as usize / 4) {
                for step in -4..=4 {
                    let frequency = centre + step as f32 * tolerance / 4.0;
                    let share = share_at(window, frequency);
                    assert!(share < 0.02, "{class}: {share} of the energy at {frequency} Hz");
                }
            }
        }
    }

    #[test]
    fn the_measure_does_find_the_national_alert_signal() {
        let siren: Vec<f32> = (0..RATE / 4).map(|n| (TAU * 380.0 * n as f32 / RATE as f32).sin()).collect();
        assert!(share_at(&siren, 380.0) > 0.99);
    }

    #[test]
    fn chimes_are_far_shorter_than_any_tone_of_the_national_alert_signal_cycle() {
        let cycle = sna()["alert"]["cycle_s"].as_f64().expect("s");
        for class in Class::ALL {
            let length = chime(class).len() as f64 / f64::from(RATE);
            assert!((0.8..3.0).contains(&length) && length < cycle / 30.0, "{class}: {length} s");
        }
    }

    #[test]
    fn every_stroke_decays_and_nothing_is_held() {
        for class in Class::ALL {
            let samples = chime(class);
            let last = at(strokes(class).last().expect("a stroke").0);
            let tenth = RATE as usize / 10;
            let rest: Vec<f32> = samples[last..].chunks(tenth).map(rms).collect();
            assert!(rest.is_sorted_by(|a, b| a > b), "{class}: {rest:?}");
            assert!(rest[rest.len() - 1] < rest[0] / 30.0, "{class}: {rest:?}");
        }
    }

    #[test]
    fn each_class_has_its_own_chime_without_clipping_or_clicks() {
        for class in Class::ALL {
            let samples = chime(class);
            assert!(samples.iter().all(|s| s.is_finite() && s.abs() < 0.6), "{class}");
            assert!(samples[0].abs() < 1e-3 && samples[samples.len() - 1].abs() < 1e-3, "{class}");
            for other in Class::ALL.into_iter().filter(|other| *other != class) {
                assert_ne!(samples, chime(other));
            }
        }
    }
}
