//! Accept and its like: lists of names with weights (RFC 9110, 12.4.2).

/// Each item of the values of a header: its name without parameters, and its weight in thousandths.
pub(crate) fn items<'a>(values: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = (&'a str, u16)> {
    values.into_iter().flat_map(|value| value.split(',')).map(item)
}

/// `gzip;q=0.8` as its name and thousandths of weight. A weight that is none counts as a refusal.
fn item(item: &str) -> (&str, u16) {
    let mut parts = item.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(1_000, |text| {
        let q = text.trim().parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
        q.map_or(0, |q| (q * 1_000.0) as u16)
    });
    (name, weight)
}
