//! What people want to see of a device first. A meter can say sixty things; its card shows the few that are asked
//! for, the rest is one gesture away, measurements before states, by their names. By kinds, units and the words of point names: no device is named here.

use crate::{
    panel::states,
    reading::{Kind, Point},
};

/// A device that says no more than this shows it all.
const SHORT: usize = 4;

/// Quantities that stand for one another: of each family, so many are shown.
struct Family {
    kind: Kind,
    /// UCUM, the one people know first coming first; any unit when there is none.
    units: &'static [&'static str],
    most: usize,
}

/// In the order they are shown.
const FAMILIES: &[Family] = &[
    Family { kind: Kind::Gauge, units: &["W", "kW", "V.A", "VA"], most: 1 },
    Family { kind: Kind::Counter, units: &[], most: 2 },
    Family { kind: Kind::Gauge, units: &["L/h", "m3/h", "L/min"], most: 1 },
    Family { kind: Kind::Gauge, units: &["[ppm]"], most: 2 },
    Family { kind: Kind::Gauge, units: &["Cel"], most: 2 },
    Family { kind: Kind::Gauge, units: &["%"], most: 1 },
];

/// Words in a point's name that make it a detail of another one.
const DETAILS: &[&str] = &[
    "apparent",
    "cut",
    "distributor",
    "export",
    "injected",
    "max",
    "mean",
    "min",
    "notice",
    "reactive",
    "subscribed",
    "tariff",
    "total",
    "yesterday",
];

/// How a list is split: what is shown at once, and the rest.
#[derive(Debug)]
pub(crate) struct Split<T> {
    /// At once.
    pub(crate) first: Vec<T>,
    /// On demand.
    pub(crate) rest: Vec<T>,
}

/// Splits what a device says. `point` and `value` read an item.
pub(crate) fn split<T>(items: Vec<T>, point: impl Fn(&T) -> &Point, value: impl Fn(&T) -> Option<f64>) -> Split<T> {
    let count = items.len();
    let mut rest: Vec<Option<T>> = items.into_iter().map(Some).collect();
    let mut first = Vec::new();
    let telling = |item: &T| states::tells(point(item), value(item));
    first.extend(rest.iter_mut().filter_map(|place| place.take_if(|item| telling(item))));
    for family in FAMILIES {
        let mut members: Vec<(Rank, usize)> = rest
            .iter()
            .enumerate()
            .filter_map(|(place, item)| Some((rank(family, point(item.as_ref()?))?, place)))
            .collect();
        members.sort();
        let most = if members.first().is_some_and(|(best, _)| best.details > 0) { 1 } else { family.most };
        let chosen = members.iter().take_while(|(rank, _)| most == 1 || rank.details == 0).take(most);
        let taken: Vec<T> = chosen.filter_map(|(_, place)| rest.get_mut(*place)?.take()).collect();
        first.extend(taken);
    }
    let mut rest: Vec<T> = rest.into_iter().flatten().collect();
    rest.sort_by(|a, b| place(point(a)).cmp(&place(point(b))));
    if count <= SHORT || first.is_empty() {
        first.extend(rest);
        return Split { first, rest: Vec::new() };
    }
    Split { first, rest }
}

/// Where a point stands among the rest.
fn place(point: &Point) -> (bool, &str) {
    (point.kind == Kind::State, &point.label)
}

/// The smaller, the sooner.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    details: usize,
    unit: usize,
    length: usize,
}

/// Where a point stands in a family; `None` when it is not of it.
fn rank(family: &Family, point: &Point) -> Option<Rank> {
    if point.kind != family.kind {
        return None;
    }
    let unit = if family.units.is_empty() { 0 } else { family.units.iter().position(|unit| *unit == point.unit)? };
    let channel = states::channel(point);
    let is_detail = |word: &&str| DETAILS.contains(word) || word.bytes().all(|byte| byte.is_ascii_digit());
    let details = channel.split(['-', '_']).filter(is_detail).count();
    Some(Rank { details, unit, length: channel.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Sharing;

    /// The names of what is shown first, of a device that says `said`: name, unit, kind, value.
    fn first(said: &[(&str, &str, Kind, f64)]) -> Vec<String> {
        let made = |(name, unit, kind, value): &(&str, &str, Kind, f64)| {
            let point = Point {
                id: format!("electricity/hall/{name}").parse().expect("a name"),
                label: (*name).to_owned(),
                unit: (*unit).to_owned(),
                kind: *kind,
                decimals: 0,
                interval: None,
                range: None,
                sharing: Sharing::Internal,
            };
            (point, *value)
        };
        let items: Vec<(Point, f64)> = said.iter().map(made).collect();
        let count = items.len();
        let split = split(items, |(point, _)| point, |(_, value)| Some(*value));
        assert_eq!(split.first.len() + split.rest.len(), count, "nothing gets lost");
        split.first.iter().map(|(point, _)| states::channel(point).to_owned()).collect()
    }

    const LINKY: &[(&str, &str, Kind, f64)] = &[
        ("breaker", "1", Kind::State, 0.0),
        ("current-1", "A", Kind::Gauge, 20.0),
        ("cut-off-power", "kV.A", Kind::Gauge, 12.0),
        ("index", "W.h", Kind::Counter, 7_654_321.0),
        ("index-distributor-1", "W.h", Kind::Counter, 7_654_321.0),
        ("index-tariff-1", "W.h", Kind::Counter, 7_654_321.0),
        ("over-power", "1", Kind::State, 0.0),
        ("power", "V.A", Kind::Gauge, 4_580.0),
        ("power-max", "V.A", Kind::Gauge, 6_120.0),
        ("tariff", "1", Kind::State, 1.0),
    ];

    #[test]
    fn of_a_linky_people_see_power_and_index() {
        assert_eq!(first(LINKY), ["power", "index"]);
    }

    #[test]
    fn a_state_that_calls_for_a_look_comes_before_all() {
        let mut alarmed = LINKY.to_vec();
        alarmed[6].3 = 1.0;
        assert_eq!(first(&alarmed), ["over-power", "power", "index"]);
    }

    #[test]
    fn peak_and_off_peak_are_both_an_index() {
        let historic = [
            ("power", "V.A", Kind::Gauge, 900.0),
            ("index-off-peak", "W.h", Kind::Counter, 1.0),
            ("index-peak", "W.h", Kind::Counter, 2.0),
            ("current-1", "A", Kind::Gauge, 4.0),
            ("subscribed-current", "A", Kind::Gauge, 30.0),
        ];
        assert_eq!(first(&historic), ["power", "index-peak", "index-off-peak"]);
    }

    #[test]
    fn a_submeter_shows_active_power_and_what_was_used() {
        let submeter = [
            ("apparent-power", "V.A", Kind::Gauge, 700.0),
            ("current", "A", Kind::Gauge, 3.0),
            ("index-export", "kW.h", Kind::Counter, 0.0),
            ("index-import", "kW.h", Kind::Counter, 1_234.5),
            ("index-total", "kW.h", Kind::Counter, 1_234.5),
            ("power", "W", Kind::Gauge, 680.0),
            ("voltage", "V", Kind::Gauge, 230.0),
        ];
        assert_eq!(first(&submeter), ["power", "index-import"]);
    }

    #[test]
    fn a_device_that_says_little_hides_nothing() {
        let door = [("state", "1", Kind::State, 0.0), ("battery", "V", Kind::Gauge, 3.0)];
        assert_eq!(first(&door), ["battery", "state"]);
        let flow = [("flow", "L/h", Kind::Gauge, 600.0), ("index", "L", Kind::Counter, 184_250.0)];
        assert_eq!(first(&flow), ["index", "flow"]);
    }

    #[test]
    fn a_device_of_which_no_family_is_known_is_shown_whole() {
        let odd = [1, 2, 3, 4, 5, 6].map(|n| (format!("sound-{n}"), "dB", Kind::Gauge, 40.0));
        let odd: Vec<_> = odd.iter().map(|(name, unit, kind, value)| (name.as_str(), *unit, *kind, *value)).collect();
        assert_eq!(first(&odd).len(), 6);
    }
}
