//! What can be asked of a gateway: each path with its parameters and what it answers. The router, the check of queries
//! and the OpenAPI document are all read from this table, so that none can say something else than another.

use super::{page::Format, refusal::Code};

/// A thing that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Observations,
    Points,
    Gaps,
    Health,
    Metrics,
    Days,
    DaySchema,
    Day,
    OpenApi,
}

/// A resource's place in the table.
#[derive(Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "some of it is read by the test that writes the OpenAPI document"))]
pub(crate) struct Route {
    pub(crate) resource: Resource,
    /// Its path; at most one part of it, in braces, is a parameter.
    pub(crate) template: &'static str,
    /// What it is, in a line.
    pub(crate) summary: &'static str,
    /// What one must know to use it.
    pub(crate) doc: &'static str,
    /// All that its query and its path take. The query takes nothing else.
    pub(crate) parameters: &'static [&'static Parameter],
    /// Media types it answers with, the usual one first.
    pub(crate) media: &'static [&'static str],
    /// Whether the answer has a tag and may be asked for with If-None-Match.
    pub(crate) tagged: bool,
    /// Why it may refuse, besides [`Code::OF_ALL`].
    pub(crate) refusals: &'static [Code],
}

/// Something that is said in a query or in a path.
#[derive(Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "some of it is read by the test that writes the OpenAPI document"))]
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) form: Form,
    /// What it means, with its unit.
    pub(crate) doc: &'static str,
}

/// Where a parameter is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Query,
    Path,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A whole number; more than `most` is taken as `most`.
    Whole { least: u64, usual: Option<u64>, most: u64 },
    /// One of some words; the first is meant when none is said.
    Word(&'static [&'static str]),
    /// What `next` of an earlier page said.
    Cursor,
    /// The number of a reading, or an RFC 3339 time.
    Bound,
    /// A day: `2026-11-21`.
    Date,
}

pub(crate) const AFTER: Parameter = Parameter {
    name: "after",
    place: Place::Query,
    form: Form::Cursor,
    doc: "The cursor that an earlier page gave as `next`: what comes after it is answered, and everything up to it is \
          taken as safe with this peer. Without it, from the oldest reading there is.",
};
pub(crate) const LIMIT: Parameter = Parameter {
    name: "limit",
    place: Place::Query,
    form: Form::Whole { least: 1, usual: Some(5_000), most: 20_000 },
    doc: "Readings and gaps in an answer at most. The gateway's own limit of a page in bytes may end it sooner.",
};
pub(crate) const WAIT: Parameter = Parameter {
    name: "wait",
    place: Place::Query,
    form: Form::Whole { least: 0, usual: Some(0), most: 60 },
    doc: "Seconds to wait for news when there is none (long poll). Not with a range, nor with `order=newest`.",
};
pub(crate) const FORMAT: Parameter = Parameter {
    name: "format",
    place: Place::Query,
    form: Form::Word(Format::WORDS),
    doc: "How readings are laid out: `rows`, one a line; `columns`, one block of one point a line, as differences; \
          `senml`, an RFC 8428 pack, which `Accept: application/senml+json` asks for too. The query goes before the \
          header.",
};
pub(crate) const FROM: Parameter = Parameter {
    name: "from",
    place: Place::Query,
    form: Form::Bound,
    doc: "Where a range begins, included: the number of a reading, or a time. No cursor moves. Not with `after` or \
          `wait`.",
};
pub(crate) const TO: Parameter = Parameter {
    name: "to",
    place: Place::Query,
    form: Form::Bound,
    doc: "Where a range ends, included. A number where `from` is a number, a time where it is a time.",
};
pub(crate) const CONTINUE: Parameter = Parameter {
    name: "continue",
    place: Place::Query,
    form: Form::Whole { least: 0, usual: None, most: u64::MAX },
    doc: "Goes on with a range of which an answer was not `complete`: the number it told. Only with `from` or `to`.",
};
/// The word of [`ORDER`] that asks for the newest readings.
pub(crate) const NEWEST: &str = "newest";
pub(crate) const ORDER: Parameter = Parameter {
    name: "order",
    place: Place::Query,
    form: Form::Word(&["seq", NEWEST]),
    doc: "`newest`: the newest reading of each point, the latest first, to know how things are before a backlog has \
          come. No cursor moves, which gives the same readings again in their place. Goes with `before`, `limit` and \
          `format` only.",
};
pub(crate) const BEFORE: Parameter = Parameter {
    name: "before",
    place: Place::Query,
    form: Form::Whole { least: 0, usual: None, most: u64::MAX },
    doc: "Goes on with `order=newest` when an answer was not `complete`: the number it told.",
};
pub(crate) const DAY: Parameter = Parameter {
    name: "day",
    place: Place::Path,
    form: Form::Date,
    doc: "A day of the commune's civil time, from midnight to midnight: 23 or 25 hours when the clocks change.",
};

const JSON: &str = "application/json";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const SENML: &str = "application/senml+json";
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(crate) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(crate) const CSV: &str = "text/csv; charset=utf-8; header=present";

/// Everything there is.
pub(crate) const ROUTES: &[Route] = &[
    Route {
        resource: Resource::Observations,
        template: "/v1/observations",
        summary: "Readings, after a cursor or within a range",
        doc: "At least once: asking `after=X` says that everything up to X is safe with the peer; each peer has its \
              own cursor. JSON lines; the last one is `{\"next\", \"complete\", \"remaining\"}`, of a range \
              `{\"continue\", \"complete\"}`, of the newest `{\"before\", \"complete\"}`. An answer without it was cut short and must be thrown away whole. The \
              header `Link` with `rel=\"next\"` is the next request, in every form. Readings that will never come are \
              lines `{\"gap\"}` in their place; with a `count` below its numbers, the others between them are told in \
              lines of their own. Numbers may be missing in between: they are of points this peer may not see. Once \
              the month's data budget is spent, only `order=newest` is answered, with the points that are alarms.",
        parameters: &[&AFTER, &LIMIT, &WAIT, &FORMAT, &FROM, &TO, &CONTINUE, &ORDER, &BEFORE],
        media: &[NDJSON, SENML],
        tagged: false,
        refusals: &[Code::BadQuery, Code::Contradiction, Code::CursorOfAnotherStore, Code::BudgetSpent],
    },
    Route {
        resource: Resource::Points,
        template: "/v1/points",
        summary: "The points this peer may see",
        doc: "Units are UCUM, case sensitive (`W`, `kW.h`, `L`, `Cel`, `[ppm]`, `1`).",
        parameters: &[],
        media: &[JSON],
        tagged: true,
        refusals: &[Code::BadQuery],
    },
    Route {
        resource: Resource::Gaps,
        template: "/v1/gaps",
        summary: "Readings that will never come",
        doc: "The last 500, oldest first, of all points: what was lost cannot always say of which point it was. \
              `earlier` counts the gaps before these.",
        parameters: &[],
        media: &[JSON],
        tagged: true,
        refusals: &[Code::BadQuery],
    },
    Route {
        resource: Resource::Health,
        template: "/v1/health",
        summary: "How the gateway is, in less than 2 kB",
        doc: "The tag leaves out what changes by itself each second (uptime, time of day).",
        parameters: &[],
        media: &[JSON],
        tagged: true,
        refusals: &[Code::BadQuery],
    },
    Route {
        resource: Resource::Metrics,
        template: "/metrics",
        summary: "The newest reading of each point and the gateway's own figures, for Prometheus",
        doc: "OpenMetrics 1.0 when `Accept` names it, else the text format 0.0.4. Values come without timestamps, as \
              Prometheus wants them; when a reading was taken is a metric of its own.",
        parameters: &[],
        media: &[PROMETHEUS, OPENMETRICS],
        tagged: false,
        refusals: &[Code::BadQuery],
    },
    Route {
        resource: Resource::Days,
        template: "/v1/days",
        summary: "The days that can be had as files: a Frictionless Data Package",
        doc: "Days of which readings are stored, the latest 400, in the commune's civil time. `undated` are ranges of \
              numbers taken while no clock could date them: they are in no day, \
              `/v1/observations?from=FIRST&to=LAST` gives them.",
        parameters: &[],
        media: &[JSON],
        tagged: true,
        refusals: &[Code::BadQuery],
    },
    Route {
        resource: Resource::DaySchema,
        template: "/v1/days/schema.json",
        summary: "The columns of a day's file: a Frictionless Table Schema",
        doc: "The same for every gateway of this version.",
        parameters: &[],
        media: &[JSON],
        tagged: true,
        refusals: &[Code::BadQuery],
    },
    Route {
        resource: Resource::Day,
        template: "/v1/days/{day}.csv",
        summary: "The readings of one day, as CSV",
        doc: "RFC 4180 with a header line, in order of number; `/v1/days/schema.json` tells the columns. What was lost \
              of the day is a line of quality `lost` that counts it. A day that is over has a tag. The answer is \
              written as it is read; one that does not end as HTTP wants it was cut short.",
        parameters: &[&DAY],
        media: &[CSV],
        tagged: true,
        refusals: &[Code::BadQuery, Code::NoSuchDay, Code::BudgetSpent],
    },
    Route {
        resource: Resource::OpenApi,
        template: "/v1/openapi.json",
        summary: "This document",
        doc: "OpenAPI 3.1.",
        parameters: &[],
        media: &[JSON],
        tagged: true,
        refusals: &[Code::BadQuery],
    },
];

impl Route {
    /// The route of a path, and what stands in the path for its parameter.
    pub(crate) fn find(path: &str) -> Option<(&'static Self, Option<&str>)> {
        ROUTES.iter().find_map(|route| Some((route, route.matches(path)?)))
    }

    fn matches<'a>(&self, path: &'a str) -> Option<Option<&'a str>> {
        let Some((before, rest)) = self.template.split_once('{') else {
            return (path == self.template).then_some(None);
        };
        let (_, after) = rest.split_once('}')?;
        let said = path.strip_prefix(before)?.strip_suffix(after)?;
        (!said.is_empty() && !said.contains('/')).then_some(Some(said))
    }

    /// The names its query takes.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.parameters.iter().filter(|parameter| parameter.place == Place::Query).map(|parameter| parameter.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str) -> Option<(Resource, Option<&str>)> {
        Route::find(path).map(|(route, said)| (route.resource, said))
    }

    #[test]
    fn every_path_of_the_table_finds_its_own_resource() {
        for route in ROUTES {
            let path = route.template.replace("{day}", "2026-11-21");
            assert_eq!(find(&path).map(|(resource, _)| resource), Some(route.resource), "{path}");
        }
        assert_eq!(find("/v1/days/2026-11-21.csv"), Some((Resource::Day, Some("2026-11-21"))));
        assert_eq!(find("/v1/days/schema.json"), Some((Resource::DaySchema, None)));
        for nowhere in
            ["/", "/v1", "/v1/points/", "/v1/days/.csv", "/v1/days/a/b.csv", "/v1/days/2026-11-21", "/V1/points"]
        {
            assert_eq!(find(nowhere), None, "{nowhere}");
        }
    }
}
