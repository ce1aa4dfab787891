//! One point: its value now, and its day, week or month as a drawing, in a sentence and in a table.

use std::sync::Arc;

use askama::Template;
use jiff::civil::Date;

use super::home::{self, Shown};
use crate::{
    panel::{
        accounts::Act,
        answer::{Answer, Problem},
        chart::{self, Chart, Shape},
        format,
        frame::Frame,
        history::{Measured, Slot, Span, Window, slots},
        visit::Visit,
    },
    reading::{Kind, Point, PointId},
};

#[derive(Template)]
#[template(path = "point.html", config = ".askama.toml")]
struct PointPage {
    frame: Frame,
    device: String,
    now: Shown,
    spans: Vec<SpanChoice>,
    heading: String,
    before: Option<String>,
    after: Option<String>,
    narrow: String,
    wide: String,
    summary: String,
    is_counter: bool,
    unit: String,
    rows: Vec<Row>,
    /// Where what it measured is erased, for who may.
    erase: Option<String>,
}

struct SpanChoice {
    href: String,
    word: String,
    is_here: bool,
}

/// A line of the table: when, and the figures.
struct Row {
    when: String,
    figures: Vec<String>,
}

/// `/points/<name>?span=day&on=2026-11-21`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.only_reading()?;
    let ground = &visit.site.ground;
    let id: PointId = visit.tail.parse().map_err(|_| Problem::NotFound)?;
    let point = ground.live.point(&id).cloned().ok_or(Problem::NotFound)?;
    if !visit.may_see(&point) {
        return Err(Problem::Forbidden);
    }
    let today = format::zoned(ground.clock.wall_now().unix_ms, &ground.time_zone).date();
    let on = visit.query.get("on").parse::<Date>().unwrap_or(today).clamp(earliest(), today.max(earliest()));
    let span = Span::from_word(visit.query.get("span"));
    let window = Window::around(span, on, point.kind, &ground.time_zone);
    let slots = past(&visit, &point, &window).await?;
    page(&visit, &point, &window, &slots, today)
}

/// No reading is older.
fn earliest() -> Date {
    jiff::civil::date(2020, 1, 1)
}

/// What the archive has of the window, and of the step before it, where a counter stood.
async fn past(visit: &Visit, point: &Point, window: &Window) -> Result<Vec<Slot>, Problem> {
    let archive = Arc::clone(&visit.site.ground.archive);
    let (id, from, to, step) = (point.id.clone(), window.start_ms(), window.end_ms(), window.step_ms);
    let asked = tokio::task::spawn_blocking(move || archive.history(&id, from - step, to, step)).await;
    let buckets = asked.map_err(|_| Problem::Fell)??;
    Ok(slots(window, &buckets))
}

fn page(visit: &Visit, point: &Point, window: &Window, slots: &[Slot], today: Date) -> Result<Answer, Problem> {
    let (ground, words) = (&visit.site.ground, &visit.words);
    let reading = ground.live.newest(&point.id);
    let now = home::shown(point, reading.as_ref(), &ground.clock, words);
    let device = home::device_label(home::device_of(&point.id), ground);
    let label = home::point_label(point, &device, words);
    let is_counter = point.kind == Kind::Counter;
    let view = View { visit, point, window };
    let title = words.say_with("chart-title", &[("label", label.as_str().into()), ("when", view.heading().into())]);
    let shape = if is_counter { Shape::Bars } else { Shape::Line };
    let drawing = Chart { window, slots, shape, title: &title, zone: &ground.time_zone, words };
    Answer::page(&PointPage {
        frame: Frame::new(visit, &format!("{label} – {device}"), ""),
        now: Shown { label, ..now },
        device,
        spans: Span::ALL.map(|span| view.choice(span, today)).into(),
        heading: view.heading(),
        before: window.before().filter(|on| *on >= earliest()).map(|on| view.address(window.span, on)),
        after: window.after().filter(|on| *on <= today).map(|on| view.address(window.span, on)),
        narrow: chart::draw(&drawing, chart::NARROW),
        wide: chart::draw(&drawing, chart::WIDE),
        summary: view.summary(slots),
        is_counter,
        unit: format::unit(&point.unit, words),
        rows: slots.iter().filter_map(|slot| view.row(slot)).collect(),
        erase: visit.may(Act::Erase).then(|| format!("/erase?what={}", point.id)),
    })
}

struct View<'a> {
    visit: &'a Visit,
    point: &'a Point,
    window: &'a Window,
}

impl View<'_> {
    fn address(&self, span: Span, on: Date) -> String {
        format!("/points/{}?span={}&on={on}", self.point.id, span.as_str())
    }

    /// Another span shows the end of what is shown now, or today.
    fn choice(&self, span: Span, today: Date) -> SpanChoice {
        let word = match span {
            Span::Day => self.visit.words.say("span-day"),
            Span::Week => self.visit.words.say("span-week"),
            Span::Month => self.visit.words.say("span-month"),
        };
        let on = self.window.last().min(today);
        SpanChoice { href: self.address(span, on), word, is_here: span == self.window.span }
    }

    fn heading(&self) -> String {
        let (words, window) = (&self.visit.words, self.window);
        match window.span {
            Span::Day => format::date(window.first, words),
            Span::Week => words.say_with("week-of", &[("date", format::date(window.first, words).into())]),
            Span::Month => format::month(window.first, words),
        }
    }

    fn number(&self, value: f64) -> String {
        format::number(value, self.point.decimals, self.visit.words.language)
    }

    fn with_unit(&self, value: f64) -> String {
        let unit = format::unit(&self.point.unit, &self.visit.words);
        if unit.is_empty() { self.number(value) } else { format!("{}\u{a0}{unit}", self.number(value)) }
    }

    /// What the drawing shows, in a sentence.
    fn summary(&self, slots: &[Slot]) -> String {
        let words = &self.visit.words;
        let measured: Vec<(&Slot, Measured)> = slots.iter().filter_map(|slot| Some((slot, slot.measured?))).collect();
        if measured.is_empty() {
            return words.say("summary-nothing");
        }
        if self.point.kind != Kind::Counter {
            let low = measured.iter().map(|(_, m)| m.min).fold(f64::INFINITY, f64::min);
            let high = measured.iter().map(|(_, m)| m.max).fold(f64::NEG_INFINITY, f64::max);
            let mean = measured.iter().map(|(_, m)| m.mean).sum::<f64>() / measured.len() as f64;
            let values = [("low", low), ("high", high), ("mean", mean)].map(|(k, v)| (k, self.with_unit(v).into()));
            return words.say_with("summary-gauge", &values);
        }
        let total: f64 = measured.iter().map(|(_, m)| m.amount).sum();
        let most = measured.iter().max_by(|(_, a), (_, b)| a.amount.total_cmp(&b.amount));
        let (when, amount) = most.map(|(slot, m)| (self.when(slot), m.amount)).unwrap_or_default();
        words.say_with(
            "summary-counter",
            &[("total", self.with_unit(total).into()), ("most", self.with_unit(amount).into()), ("when", when.into())],
        )
    }

    fn when(&self, slot: &Slot) -> String {
        let (zone, words) = (&self.visit.site.ground.time_zone, &self.visit.words);
        let start = format::zoned(slot.start_ms, zone);
        let is_whole_day = slot.end_ms - slot.start_ms > 20 * 3_600_000;
        match (self.window.span, is_whole_day) {
            (_, true) => format::date(start.date(), words),
            (Span::Day, false) => format::hour(&start, words),
            _ => format!("{} {}", format::short_day(start.date(), words), format::hour(&start, words)),
        }
    }

    fn row(&self, slot: &Slot) -> Option<Row> {
        let measured = slot.measured?;
        let figures = if self.point.kind == Kind::Counter {
            vec![self.number(measured.amount)]
        } else {
            [measured.min, measured.mean, measured.max].map(|value| self.number(value)).to_vec()
        };
        Some(Row { when: self.when(slot), figures })
    }
}
