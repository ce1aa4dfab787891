//! Slots to a drawing: inline SVG, styled by the stylesheet, readable without colour. Pure.

use std::fmt::Write;

use super::{
    format::{number, zoned},
    history::{Slot, Span, Window},
    language::Words,
};
use jiff::tz::TimeZone;

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A line through the means, in a band from the smallest to the largest.
    Line,
    /// A bar for each amount.
    Bars,
}

/// What to draw.
pub(crate) struct Chart<'a> {
    /// The part of the past.
    pub(crate) window: &'a Window,
    /// What was measured in it.
    pub(crate) slots: &'a [Slot],
    /// Line or bars.
    pub(crate) shape: Shape,
    /// What it shows, for those who do not see it.
    pub(crate) title: &'a str,
    /// The time zone of its hours.
    pub(crate) zone: &'a TimeZone,
    /// The language of its labels.
    pub(crate) words: &'a Words,
}

/// A drawing's size in CSS pixels. Two are made, for a phone and for a desk, so that text keeps its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Width.
    pub(crate) width: f64,
    /// Height.
    pub(crate) height: f64,
    /// The class that shows it.
    pub(crate) class: &'static str,
}

/// For a phone held upright.
pub(crate) const NARROW: Size = Size { width: 328.0, height: 220.0, class: "chart narrow" };
/// For a desk.
pub(crate) const WIDE: Size = Size { width: 860.0, height: 300.0, class: "chart wide" };

const TOP: f64 = 14.0;
const BOTTOM: f64 = 26.0;
const RIGHT: f64 = 8.0;
/// Width of a digit of the labels, at 12 px.
const DIGIT: f64 = 7.0;

/// Where values and times are on the drawing.
struct Scale {
    left: f64,
    size: Size,
    from_ms: i64,
    to_ms: i64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, ms: i64) -> f64 {
        let whole = (self.to_ms - self.from_ms).max(1) as f64;
        self.left + (ms - self.from_ms) as f64 / whole * (self.size.width - self.left - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.size.height - BOTTOM - share * (self.size.height - TOP - BOTTOM)
    }
}

/// Draws. A window in which nothing was measured still has its axes.
pub(crate) fn draw(chart: &Chart<'_>, size: Size) -> String {
    let ticks = value_ticks(chart);
    let (low, high) = (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
    let decimals = tick_decimals(&ticks);
    let labels: Vec<String> = ticks.iter().map(|tick| number(*tick, decimals, chart.words.language)).collect();
    let widest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(1);
    let left = widest as f64 * DIGIT + 8.0;
    let scale = Scale { left, size, from_ms: chart.window.start_ms(), to_ms: chart.window.end_ms(), low, high };

    let mut svg = String::with_capacity(8_000);
    let (width, height) = (size.width, size.height);
    let _ = write!(
        svg,
        r#"<svg class="{}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{}">"#,
        size.class,
        html_escaped(chart.title)
    );
    for (tick, label) in ticks.iter().zip(&labels) {
        let y = scale.y(*tick);
        let end = width - RIGHT;
        let _ = write!(svg, r#"<path class="grid" d="M{left:.1} {y:.1}H{end:.1}"/>"#);
        let _ = write!(svg, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#, left - 5.0, y + 4.0);
    }
    for (ms, label) in time_ticks(chart, size) {
        let x = scale.x(ms);
        let _ = write!(svg, r#"<path class="tick" d="M{x:.1} {:.1}v5"/>"#, height - BOTTOM);
        let _ = write!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, height - 8.0);
    }
    match chart.shape {
        Shape::Bars => bars(&mut svg, chart, &scale),
        Shape::Line => line(&mut svg, chart, &scale),
    }
    svg.push_str("</svg>");
    svg
}

fn bars(svg: &mut String, chart: &Chart<'_>, scale: &Scale) {
    svg.push_str(r#"<path class="bars" d=""#);
    for slot in chart.slots {
        let Some(measured) = slot.measured.filter(|measured| measured.amount > 0.0) else { continue };
        let (start, end) = (scale.x(slot.start_ms), scale.x(slot.end_ms));
        let gap = ((end - start) * 0.15).min(4.0);
        let (top, foot) = (scale.y(measured.amount), scale.y(0.0));
        let _ = write!(svg, "M{:.1} {foot:.1}V{top:.1}H{:.1}V{foot:.1}z", start + gap, end - gap);
    }
    svg.push_str(r#""/>"#);
}

/// A line for each run of slots without a hole; a lone slot is a dot.
fn line(svg: &mut String, chart: &Chart<'_>, scale: &Scale) {
    let runs = chart.slots.split(|slot| slot.measured.is_none()).filter(|run| !run.is_empty());
    for run in runs {
        let points: Vec<(f64, f64, f64, f64)> = run
            .iter()
            .filter_map(|slot| {
                let m = slot.measured?;
                let middle = slot.start_ms + (slot.end_ms - slot.start_ms) / 2;
                Some((scale.x(middle), scale.y(m.min), scale.y(m.max), scale.y(m.mean)))
            })
            .collect();
        if let [(x, _, _, mean)] = points.as_slice() {
            let _ = write!(svg, r#"<circle class="dot" cx="{x:.1}" cy="{mean:.1}" r="3"/>"#);
            continue;
        }
        let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
            points.enumerate().fold(String::new(), |mut path, (place, (x, y))| {
                let _ = write!(path, "{}{x:.1} {y:.1}", if place == 0 { 'M' } else { 'L' });
                path
            })
        };
        let upper = points.iter().map(|(x, _, max, _)| (*x, *max));
        let lower = points.iter().rev().map(|(x, min, _, _)| (*x, *min));
        let band = path(&mut upper.chain(lower));
        let mean = path(&mut points.iter().map(|(x, _, _, mean)| (*x, *mean)));
        let _ = write!(svg, r#"<path class="band" d="{band}z"/><path class="line" d="{mean}"/>"#);
    }
}

/// Four to seven round values that enclose what was measured; bars stand on zero.
fn value_ticks(chart: &Chart<'_>) -> Vec<f64> {
    let measured = || chart.slots.iter().filter_map(|slot| slot.measured);
    let (low, high) = match chart.shape {
        Shape::Bars => (0.0, measured().map(|m| m.amount).fold(0.0, f64::max)),
        Shape::Line => (
            measured().map(|m| m.min).fold(f64::INFINITY, f64::min),
            measured().map(|m| m.max).fold(f64::NEG_INFINITY, f64::max),
        ),
    };
    round_ticks(low, high)
}

/// Round values from below `low` to above `high`, in steps of 1, 2 or 5 times a power of ten.
fn round_ticks(low: f64, high: f64) -> Vec<f64> {
    let (low, high) = match (low.is_finite() && high.is_finite(), high > low) {
        (false, _) => (0.0, 1.0),
        (true, true) => (low, high),
        (true, false) if low == 0.0 => (0.0, 1.0),
        (true, false) => (low - low.abs() * 0.1, high + high.abs() * 0.1),
    };
    let rough = (high - low) / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((low / step).floor(), (high / step).ceil());
    if !(first.is_finite() && last.is_finite()) || last - first > 12.0 {
        return vec![low, high];
    }
    (0..=(last - first) as i64).map(|n| (first + n as f64) * step).collect()
}

fn tick_decimals(ticks: &[f64]) -> u8 {
    let step = ticks.first().zip(ticks.get(1)).map_or(1.0, |(a, b)| b - a);
    if step >= 1.0 { 0 } else { (-step.log10()).ceil().clamp(0.0, 6.0) as u8 }
}

/// Hours of a day; days of a week or month. Fewer on a phone.
fn time_ticks(chart: &Chart<'_>, size: Size) -> Vec<(i64, String)> {
    let narrow = size.width < 500.0;
    let window = chart.window;
    match window.span {
        Span::Day => hour_ticks(chart, if narrow { 6 } else { 3 }),
        Span::Week => middles(window)
            .map(|(middle, day)| {
                let key = format!("weekday-short-{}", day.weekday().to_monday_one_offset());
                (middle, if narrow { chart.words.say(&key) } else { super::format::short_day(day, chart.words) })
            })
            .collect(),
        Span::Month => middles(window)
            .filter(|(_, day)| if narrow { matches!(day.day(), 1 | 8 | 15 | 22 | 29) } else { day.day() % 2 == 1 })
            .map(|(middle, day)| (middle, day.day().to_string()))
            .collect(),
    }
}

/// The middle of each day.
fn middles(window: &Window) -> impl Iterator<Item = (i64, jiff::civil::Date)> {
    let pairs = window.midnights.iter().zip(window.midnights.iter().skip(1));
    pairs
        .zip(window.first.series(jiff::Span::new().days(1)))
        .map(|((start, end), day)| (start + (end - start) / 2, day))
}

/// Every third or sixth hour of the clock on the wall, wherever it falls on a day of 23 or 25 hours.
fn hour_ticks(chart: &Chart<'_>, every: i8) -> Vec<(i64, String)> {
    const HOUR_MS: i64 = 3_600_000;
    let (from, to) = (chart.window.start_ms(), chart.window.end_ms());
    let mut ticks = Vec::new();
    let mut said = None;
    for ms in (0..=25).map(|n| from + n * HOUR_MS).take_while(|ms| *ms < to) {
        let hour = zoned(ms, chart.zone).hour();
        if hour % every == 0 && said != Some(hour) {
            ticks.push((ms, chart.words.say_with("hour-tick", &[("h", hour.to_string().into())])));
            said = Some(hour);
        }
    }
    ticks
}

/// Text as it may stand in an attribute or an element.
pub(crate) fn html_escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::{
        panel::{
            history::Measured,
            language::{Language, Languages},
        },
        reading::Kind,
    };

    fn drawn(kind: Kind, on: jiff::civil::Date, values: &[(usize, f64)], size: Size) -> String {
        let zone = TimeZone::get("Europe/Paris").expect("bundled");
        let window = Window::around(Span::Day, on, kind, &zone);
        let mut slots = super::super::history::slots(&window, &[]);
        for (place, value) in values {
            slots[*place].measured =
                Some(Measured { min: value - 1.0, max: value + 1.0, mean: *value, amount: *value });
        }
        let shape = if kind == Kind::Counter { Shape::Bars } else { Shape::Line };
        let words = Languages::read().of(Language::French);
        let title = "a <b> \"c\"";
        draw(&Chart { window: &window, slots: &slots, shape, title, zone: &zone, words: &words }, size)
    }

    #[test]
    fn a_hole_in_the_readings_is_a_hole_in_the_line() {
        let svg = drawn(Kind::Gauge, date(2026, 6, 1), &[(0, 5.0), (1, 6.0), (5, 7.0), (9, 5.0), (10, 4.0)], WIDE);
        assert_eq!(svg.matches(r#"class="line""#).count(), 2);
        assert_eq!(svg.matches("<circle").count(), 1, "a lone slot is a dot");
    }

    #[test]
    fn the_night_the_clocks_change_has_each_hour_where_it_was() {
        let ticks = |on| {
            let svg = drawn(Kind::Counter, on, &[(0, 1.0)], WIDE);
            let labels = svg.split(r#"text-anchor="middle">"#).skip(1);
            labels.map(|rest| rest.split('\u{a0}').next().expect("a label").to_owned()).collect::<Vec<_>>()
        };
        let usual = ["0", "3", "6", "9", "12", "15", "18", "21"];
        for on in [date(2026, 3, 29), date(2026, 6, 1), date(2026, 10, 25)] {
            assert_eq!(ticks(on), usual, "{on}");
        }
    }

    #[test]
    fn an_empty_day_still_has_its_axes_and_titles_are_escaped() {
        let svg = drawn(Kind::Gauge, date(2026, 6, 1), &[], NARROW);
        assert!(svg.contains("class=\"grid\"") && svg.contains("12\u{a0}h"));
        assert!(svg.contains("a &lt;b&gt; &quot;c&quot;") && !svg.contains("<b>") && !svg.contains("NaN"));
    }

    #[test]
    fn ticks_are_round_and_enclose_what_was_measured() {
        assert_eq!(round_ticks(0.0, 7.3), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(round_ticks(18.2, 21.7), [18.0, 19.0, 20.0, 21.0, 22.0]);
        assert_eq!(round_ticks(f64::INFINITY, f64::NEG_INFINITY), [0.0, 0.5, 1.0]);
        for (low, high) in [(0.0, 0.0), (5.0, 5.0), (-3.0, -3.0), (1e-9, 2e-9), (1e12, 3e12), (0.1, 0.1 + 1e-17)] {
            let ticks = round_ticks(low, high);
            assert!(ticks.len() <= 13 && ticks.len() >= 2, "{low} {high}: {ticks:?}");
            assert!(ticks[0] <= low && ticks[ticks.len() - 1] >= high && ticks.is_sorted(), "{low} {high}: {ticks:?}");
        }
    }
}
