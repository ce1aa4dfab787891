//! Water that flows when nobody should use any. Rules without a clock, a card or a board: litres in, verdicts out.

use std::{collections::VecDeque, ops::Range, time::Duration};

use crate::config::watch::WatchSettings;

/// What makes a leak of a day's litres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NightRule {
    /// First hour of the night, local, and the hour after its last.
    pub night: (u8, u8),
    /// Litres an hour, all through the night, that make a leak.
    pub floor: f64,
    /// Litres in any one hour that make a burst.
    pub burst: f64,
}

impl Default for NightRule {
    fn default() -> Self {
        Self { night: (2, 6), floor: 1.0, burst: 1_000.0 }
    }
}

impl From<&WatchSettings> for NightRule {
    fn from(settings: &WatchSettings) -> Self {
        Self { night: settings.night, floor: settings.night_floor, burst: settings.burst }
    }
}

impl NightRule {
    fn hours(&self) -> Range<usize> {
        let to = usize::from(self.night.1.min(24));
        usize::from(self.night.0).min(to)..to
    }
}

/// How bad a leak is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// A dripping tap: below 10 L/h, 90 m³ a year.
    Low,
    /// A trickle: below 40 L/h, 350 m³ a year.
    Medium,
    /// A running toilet or a broken pipe.
    High,
}

impl Loss {
    fn of(litres_per_hour: f64) -> Self {
        match litres_per_hour {
            rate if rate < 10.0 => Self::Low,
            rate if rate < 40.0 => Self::Medium,
            _ => Self::High,
        }
    }

    /// `low`, `medium` or `high`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// What a day's litres say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The least hour of the night; 0 when nothing is known of that night.
    pub night_min_l_per_h: f64,
    /// Water flowed all through the night, or burst out in an hour.
    pub leak: bool,
    /// How bad, when it is a leak.
    pub severity: Option<Loss>,
    /// What else is to be noticed: `no_pulse_for_24h_if_hall_used`, `burst`, `no_data`.
    pub diagnostic: Option<&'static str>,
}

/// Judges one day by its litres from local midnight, hour by hour. An hour that is not a number, or negative (the meter
/// was changed), is unknown and takes no part.
pub fn night_flow(hourly: &[f64; 24], rule: &NightRule) -> Verdict {
    let known = |litres: &&f64| litres.is_finite() && **litres >= 0.0;
    let night = hourly.get(rule.hours()).unwrap_or_default().iter().filter(known).copied();
    let least = night.reduce(f64::min);
    let most = hourly.iter().filter(known).copied().fold(0.0, f64::max);
    let seeps = least.is_some_and(|least| least >= rule.floor);
    let bursts = most > rule.burst;
    let severity = match (bursts, seeps) {
        (true, _) => Some(Loss::High),
        (false, true) => least.map(Loss::of),
        (false, false) => None,
    };
    let still = hourly.iter().all(|litres| *litres == 0.0);
    let diagnostic = match least {
        None => Some("no_data"),
        _ if bursts => Some("burst"),
        _ if still => Some("no_pulse_for_24h_if_hall_used"),
        _ => None,
    };
    Verdict { night_min_l_per_h: least.unwrap_or(0.0), leak: seeps || bursts, severity, diagnostic }
}

/// A loss in words: litres an hour, cubic metres a year, and euros where their price is known.
pub(super) fn loss(litres_per_hour: f64, price: Option<f64>) -> String {
    // source: 24 h × 365 days, litres to cubic metres
    let yearly = litres_per_hour * 8.76;
    let money = price.map(|price| format!(", {:.0} € a year", yearly * price)).unwrap_or_default();
    let rate = if litres_per_hour < 10.0 { format!("{litres_per_hour:.1}") } else { format!("{litres_per_hour:.0}") };
    format!("{rate} L/h, {yearly:.0} m³ a year{money} ({} loss)", Loss::of(litres_per_hour).word())
}

/// One meter's index as it comes, for what needs no wall clock: flow without a pause, a burst, silence.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// When its index was last seen, and the index in litres.
    seen: Option<(u64, f64)>,
    /// Since when it is watched without counting.
    still_since: Option<u64>,
    /// When the present flow began, and the index before it.
    flowing: Option<(u64, f64)>,
    last_litre: u64,
    /// The index a minute at a time, over the last hour.
    hour: VecDeque<(u64, f64)>,
    bursting: bool,
    /// Why it is a leak, by rule.
    pub(super) continuous: Option<String>,
    pub(super) burst: Option<String>,
    pub(super) nights: Option<String>,
    pub(super) silent: Option<String>,
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const HOUR_MS_F: f64 = 3_600_000.0;
/// A burst is over below this part of the limit.
const CALMED: f64 = 0.8;

/// A duration for a person: `30 min`.
fn spelt(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3_600 && seconds % 3_600 == 0 => format!("{} h", seconds / 3_600),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Meter {
    /// Why the meter leaks, all rules together.
    pub(super) fn leak(&self) -> Option<String> {
        let causes: Vec<_> = [&self.burst, &self.nights, &self.continuous].into_iter().flatten().cloned().collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    /// Takes an index in.
    pub(super) fn index(&mut self, now_ms: u64, litres: f64, settings: &WatchSettings) {
        match self.seen.replace((now_ms, litres)) {
            Some((_, before)) if litres > before => self.flow(now_ms, before, settings),
            // Put back, or changed: what was seen of the old index says nothing of the new.
            Some((_, before)) if litres < before => self.begin_anew(now_ms),
            _ => {}
        }
        let minute_over = self.hour.back().is_none_or(|(at, _)| now_ms.saturating_sub(*at) >= MINUTE_MS);
        if minute_over {
            self.hour.push_back((now_ms, litres));
        }
        self.judge(now_ms, settings);
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now_ms: u64, settings: &WatchSettings) {
        self.still_since.get_or_insert(now_ms);
        self.judge(now_ms, settings);
    }

    fn flow(&mut self, now_ms: u64, before: f64, settings: &WatchSettings) {
        let paused = now_ms.saturating_sub(self.last_litre) >= millis(settings.continuous_pause);
        if paused || self.flowing.is_none() {
            self.flowing = Some((now_ms, before));
        }
        self.last_litre = now_ms;
        self.still_since = Some(now_ms);
    }

    fn begin_anew(&mut self, now_ms: u64) {
        self.flowing = None;
        self.hour.clear();
        self.still_since = Some(now_ms);
    }

    fn judge(&mut self, now_ms: u64, settings: &WatchSettings) {
        self.continuous = self.flows_without_pause(now_ms, settings);
        self.burst = self.bursts(now_ms, settings);
        self.silent = self.is_silent(now_ms, settings);
    }

    fn flows_without_pause(&mut self, now_ms: u64, settings: &WatchSettings) -> Option<String> {
        if now_ms.saturating_sub(self.last_litre) >= millis(settings.continuous_pause) {
            self.flowing = None;
        }
        let ((since, before), (_, litres)) = self.flowing.zip(self.seen)?;
        // Up to the last litre: until the next, nobody knows.
        let lasted = self.last_litre.saturating_sub(since);
        if now_ms.saturating_sub(since) < millis(settings.continuous_for) || lasted == 0 {
            return None;
        }
        let rate = (litres - before) * HOUR_MS_F / lasted as f64;
        let without = spelt(settings.continuous_pause);
        Some(format!("water flows without a pause of {without}: {}", loss(rate, settings.water_price)))
    }

    fn bursts(&mut self, now_ms: u64, settings: &WatchSettings) -> Option<String> {
        // One entry older than the hour stays: the index the hour began with.
        while self.hour.get(1).is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= HOUR_MS) {
            self.hour.pop_front();
        }
        let ((_, litres), (since, began)) = self.seen.zip(self.hour.front().copied())?;
        // After a silence of hours, what flowed meanwhile is spread over them.
        let spread = (now_ms.saturating_sub(since).max(HOUR_MS)) as f64 / HOUR_MS_F;
        let volume = (litres - began) / spread;
        let limit = if self.bursting { settings.burst * CALMED } else { settings.burst };
        self.bursting = volume > limit;
        self.bursting.then(|| format!("{volume:.0} L in one hour, more than {:.0} L", settings.burst))
    }

    fn is_silent(&self, now_ms: u64, settings: &WatchSettings) -> Option<String> {
        let limit = settings.silent_after?;
        let still = now_ms.saturating_sub(self.still_since?);
        (still >= millis(limit)).then(|| format!("no litre counted for {}", spelt(limit)))
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde::Deserialize;

    use super::*;
    use crate::config::watch;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        hourly_litres_from_local_midnight: [f64; 24],
        expected: Expected,
    }

    #[derive(Deserialize)]
    struct Expected {
        night_min_l_per_h: Option<f64>,
        leak: bool,
        severity: Option<String>,
        diagnostic: Option<String>,
    }

    #[test]
    fn every_day_of_the_night_flow_vectors_is_judged_as_expected() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../tests/fixtures/pulse/night_flow.json")).expect("vectors");
        for case in cases {
            let verdict = night_flow(&case.hourly_litres_from_local_midnight, &NightRule::default());
            let name = case.name;
            assert_eq!(verdict.leak, case.expected.leak, "{name}");
            assert_eq!(verdict.severity.map(|s| s.word().to_owned()), case.expected.severity, "{name}");
            assert_eq!(verdict.diagnostic.map(str::to_owned), case.expected.diagnostic, "{name}");
            if let Some(least) = case.expected.night_min_l_per_h {
                assert_eq!(verdict.night_min_l_per_h, least, "{name}");
            }
        }
    }

    #[test]
    fn the_least_hour_decides_and_unknown_hours_take_no_part() {
        let judge = |night: [f64; 4]| {
            let mut day = [5.0; 24];
            day[2..6].copy_from_slice(&night);
            night_flow(&day, &NightRule::default())
        };
        let seen = |v: Verdict| (v.night_min_l_per_h, v.leak, v.severity);
        assert_eq!(seen(judge([3.0, 4.0, 3.0, 9.0])), (3.0, true, Some(Loss::Low)));
        assert_eq!(seen(judge([25.0; 4])), (25.0, true, Some(Loss::Medium)));
        assert_eq!(seen(judge([300.0, 0.0, 0.0, 300.0])), (0.0, false, None));
        assert_eq!(seen(judge([f64::NAN, 60.0, -5.0, f64::INFINITY])), (60.0, true, Some(Loss::High)));
        assert_eq!(judge([f64::NAN; 4]).diagnostic, Some("no_data"));
    }

    #[test]
    fn a_burst_by_day_is_a_leak_although_the_night_was_dry() {
        let mut day = [0.0; 24];
        day[15] = 2_400.0;
        let verdict = night_flow(&day, &NightRule::default());
        assert_eq!((verdict.leak, verdict.severity, verdict.diagnostic), (true, Some(Loss::High), Some("burst")));
        assert_eq!(verdict.night_min_l_per_h, 0.0);
    }

    #[test]
    fn a_loss_is_told_in_cubic_metres_a_year_and_in_euros_when_their_price_is_known() {
        assert_eq!(loss(60.0, None), "60 L/h, 526 m³ a year (high loss)");
        assert_eq!(loss(1.0, Some(4.5)), "1.0 L/h, 9 m³ a year, 39 € a year (low loss)");
    }

    fn settings() -> WatchSettings {
        WatchSettings {
            continuous_for: Duration::from_secs(7_200),
            continuous_pause: Duration::from_secs(600),
            silent_after: Some(Duration::from_secs(86_400)),
            ..watch::read(None, TimeZone::UTC)
        }
    }

    /// Counts a litre every `every` seconds from `from` to `to`, with a tick at each step.
    fn run(meter: &mut Meter, from: u64, to: u64, every: u64, litres: &mut f64) {
        for second in (from..=to).step_by(every as usize) {
            *litres += 1.0;
            meter.index(second * 1_000, *litres, &settings());
            meter.tick(second * 1_000, &settings());
        }
    }

    #[test]
    fn water_that_never_pauses_is_a_leak_once_it_has_lasted_and_dry_after_a_pause() {
        let (mut meter, mut litres) = (Meter::default(), 100.0);
        meter.index(0, litres, &settings());
        run(&mut meter, 60, 7_200, 60, &mut litres);
        assert_eq!(meter.leak(), None, "not yet two hours since the first litre");
        run(&mut meter, 7_260, 7_260, 60, &mut litres);
        let leak = meter.leak().expect("a leak");
        assert!(leak.contains("60 L/h") || leak.contains("61 L/h"), "{leak}");
        meter.tick((7_260 + 599) * 1_000, &settings());
        assert!(meter.leak().is_some());
        meter.tick((7_260 + 600) * 1_000, &settings());
        assert_eq!(meter.leak(), None);
    }

    #[test]
    fn a_hall_in_use_pauses_now_and_then_and_is_no_leak() {
        let (mut meter, mut litres) = (Meter::default(), 0.0);
        meter.index(0, litres, &settings());
        for use_of_water in 0..20 {
            let start = 60 + use_of_water * 1_800;
            run(&mut meter, start, start + 1_100, 20, &mut litres);
            assert_eq!(meter.leak(), None);
        }
    }

    #[test]
    fn a_thousand_litres_in_an_hour_are_a_burst_until_it_has_calmed() {
        let (mut meter, settings) = (Meter::default(), settings());
        let mut litres = 0.0;
        for minute in 0..=30 {
            litres += 40.0;
            meter.index(minute * MINUTE_MS, litres, &settings);
        }
        let burst = meter.burst.clone().expect("1200 L in half an hour");
        assert!(burst.contains("1200 L"), "{burst}");
        meter.tick(45 * MINUTE_MS, &settings);
        assert!(meter.burst.is_some(), "still within the hour");
        // The hour moves on: the volume in it sinks below 800 L, then to nothing.
        for minute in 46..=120 {
            meter.index(minute * MINUTE_MS, litres, &settings);
        }
        assert_eq!(meter.burst, None);
    }

    #[test]
    fn what_flowed_while_the_meter_was_not_heard_is_no_burst() {
        let (mut meter, settings) = (Meter::default(), settings());
        meter.index(0, 0.0, &settings);
        meter.index(5 * HOUR_MS, 3_000.0, &settings);
        assert_eq!(meter.burst, None, "600 L an hour");
        meter.index(5 * HOUR_MS + 1_000, 5_600.0, &settings);
        assert!(meter.burst.is_some(), "1120 L an hour");
    }

    #[test]
    fn a_meter_that_was_changed_begins_anew() {
        let (mut meter, settings) = (Meter::default(), settings());
        meter.index(0, 900_000.0, &settings);
        meter.index(1_000, 3.0, &settings);
        meter.index(2_000, 4.0, &settings);
        assert_eq!((meter.leak(), meter.burst.clone()), (None, None));
    }

    #[test]
    fn a_meter_that_counts_nothing_for_a_day_is_silent_until_the_next_litre() {
        let (mut meter, settings) = (Meter::default(), settings());
        meter.tick(0, &settings);
        meter.index(5_000, 70.0, &settings);
        meter.tick(86_399_999, &settings);
        assert_eq!(meter.silent, None);
        meter.tick(86_400_000, &settings);
        assert_eq!(meter.silent.as_deref(), Some("no litre counted for 24 h"));
        meter.index(86_401_000, 71.0, &settings);
        assert_eq!(meter.silent, None);
    }
}
