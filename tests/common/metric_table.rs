//! The table of metrics in `src/train/observer/metrics.md`.

use regex::Regex;

/// The names of the table, as written.
pub fn table() -> Vec<&'static str> {
    let rows = include_str!("../../src/train/observer/metrics.md").lines();
    let names = rows.filter_map(|row| row.strip_prefix("| `")?.split(" | ").next());
    names
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect()
}

/// The pattern of a name of the table: `<..>` is any name.
pub fn pattern(name: &str) -> Regex {
    let any = Regex::new("<[a-z]+>").unwrap();
    Regex::new(&format!(
        "^{}$",
        any.replace_all(&regex::escape(name), ".+")
    ))
    .unwrap()
}
