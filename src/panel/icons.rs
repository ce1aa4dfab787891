//! Small drawings, always beside a word. Drawn for Clocher on a grid of 24, in the colour of the text around them.

/// Name and drawing.
const ICONS: &[(&str, &str)] = &[
    ("home", "M4 11 12 4l8 7M6 10v10h12V10M10 20v-6h4v6"),
    ("speak", "M4 10v4h3l6 5V5L7 10zM16.5 9a4 4 0 0 1 0 6M19 6.5a8 8 0 0 1 0 11"),
    ("look", "M12 5c-5 0-8.5 4-9.5 7 1 3 4.5 7 9.5 7s8.5-4 9.5-7c-1-3-4.5-7-9.5-7zM12 9a3 3 0 1 1 0 6 3 3 0 0 1 0-6z"),
    ("share", "M5 5h14v14H5zM8 9h8M8 12h8M8 15h5"),
    (
        "people",
        "M9 11a3.5 3.5 0 1 1 0-7 3.5 3.5 0 0 1 0 7zM3 20c0-4 2.5-6 6-6s6 2 6 6M16 5a3 3 0 0 1 0 6M18 14.5c2 .8 3 2.7 3 5.5",
    ),
    ("link", "M3 14c3-3 6-4.5 9-4.5s6 1.5 9 4.5M6.5 17c1.8-1.7 3.600-2.5 5.5-2.5s3.7.8 5.5 2.5M12 19.5v.1"),
    ("good", "M5 12.5 10 17.5 19 7"),
    ("notice", "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18zM12 11v6M12 7.5v.1"),
    ("warning", "M12 4 2.5 20h19zM12 10v5M12 17.5v.1"),
    ("alarm", "M8 3h8l5 5v8l-5 5H8l-5-5V8zM12 7.5v6M12 16.5v.1"),
    ("stop", "M6 6h12v12H6z"),
    ("listen", "M5 15v-3a7 7 0 0 1 14 0v3M4 14h3v6H5.5A1.5 1.5 0 0 1 4 18.5zM20 14h-3v6h1.5a1.5 1.5 0 0 0 1.5-1.5z"),
    ("send", "M4 12 20 4l-5 16-3.5-6.5z"),
    ("chart", "M4 4v16h16M8 16v-4M12 16V8M16 16v-6"),
    ("person", "M12 12a4 4 0 1 1 0-8 4 4 0 0 1 0 8zM4.5 21c0-4.5 3-7 7.5-7s7.5 2.5 7.5 7"),
    ("back", "M14 5l-7 7 7 7"),
    ("on", "M10 5l7 7-7 7"),
    ("list", "M8 6h12M8 12h12M8 18h12M4 6v.1M4 12v.1M4 18v.1"),
    ("erase", "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.500 11v5M13.500 11v5"),
    ("clock", "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18zM12 7v5.5l3.5 2"),
];

/// The drawing of a name, as safe markup; nothing for a name we have not drawn.
pub(crate) fn icon(name: &str) -> String {
    let Some((_, path)) = ICONS.iter().find(|(known, _)| *known == name) else { return String::new() };
    format!(
        r#"<svg class="icon" viewBox="0 0 24 24" width="24" height="24" aria-hidden="true"><path d="{path}"/></svg>"#
    )
}
