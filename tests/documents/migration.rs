//! Every name in the first column of `src/migration.md` is an item of the crate or a `doc(alias)`.

use std::fs;
use std::path::Path;

use regex::Regex;

fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The names in the first column, without rows that map to the same name.
fn names(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split(" | ").collect::<Vec<_>>());
    let renamed = cells.filter(|cells| !cells[1].starts_with("the same"));
    renamed
        .flat_map(|cells| cells[0].trim_start_matches("| ").split(", "))
        .map(|name| name.trim_matches('`'))
        .collect()
}

#[test]
fn every_name_of_the_migration_table_is_an_alias_or_an_item() {
    let mut code = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    sources(&root.join("src"), &mut code);
    let aliases = Regex::new(r"#\[doc\(alias( = |\()[^\]]*\]").unwrap();
    let aliases: String = aliases
        .find_iter(&code)
        .map(|found| found.as_str())
        .collect();
    let names = names(include_str!("../../src/migration.md"));
    assert!(names.len() > 70, "only {} names found", names.len());
    let unknown = |name: &&&str| {
        let own = Regex::new(&format!(
            r"pub ((fn|struct|trait|enum) )?(with_)?{}\b",
            regex::escape(name)
        ));
        !aliases.contains(&format!("\"{name}\"")) && !own.unwrap().is_match(&code)
    };
    let unknown: Vec<_> = names.iter().filter(unknown).collect();
    assert!(unknown.is_empty(), "neither alias nor name: {unknown:?}");
}

#[test]
fn names_are_read_from_the_first_column() {
    let page =
        "| TRL | here | |\n|---|---|---|\n| `a`, `b_c` | [`d`](e) | `f` |\n| `g` | the same | |\n";
    assert_eq!(names(page), ["a", "b_c"]);
}
