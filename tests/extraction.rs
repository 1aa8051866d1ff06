//! The extractor on the recorded cases, the laws that hold for every text, and its work on texts made to be slow.
//!
//! `RLVR_REWARDS_DIR` names another folder with a file `math_extract_cases.jsonl`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use rlvr::reward::{ExtractConfig, Extractor, Rule};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    id: String,
    class: String,
    mode: Rule,
    response: Option<String>,
    /// A long response: pieces and how often each is repeated.
    segments: Option<Vec<(String, usize)>>,
    expected: Option<String>,
    /// In place of `expected` where the answer is long.
    expected_len: Option<usize>,
}

fn cases() -> Vec<Case> {
    let folder = std::env::var_os("RLVR_REWARDS_DIR").map(PathBuf::from);
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rewards");
    let path = folder.unwrap_or_else(here).join("math_extract_cases.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn agrees(case: &Case, response: &str) -> bool {
    let found = Extractor::from(case.mode).extract(response);
    let found = found.as_ref().map(|found| found.text.trim());
    match case.expected_len {
        Some(length) => found.map(str::len) == Some(length),
        None => found == case.expected.as_deref().map(str::trim),
    }
}

#[test]
fn the_recorded_cases() {
    let mut table: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases() {
        let written = || {
            let segments = case.segments.iter().flatten();
            segments.map(|(piece, times)| piece.repeat(*times)).collect()
        };
        let response: String = case.response.clone().unwrap_or_else(written);
        let row = table.entry((case.mode.to_string(), case.class.clone())).or_default();
        row.1 += 1;
        if agrees(&case, &response) {
            row.0 += 1;
        } else {
            wrong.push(format!("{} ({}, {})", case.id, case.mode, case.class));
        }
    }
    println!("{:<16}{:<18}{:>6}{:>6}", "rule", "class", "right", "of");
    for ((mode, class), (right, of)) in &table {
        println!("{mode:<16}{class:<18}{right:>6}{of:>6}");
    }
    let total: usize = table.values().map(|row| row.1).sum();
    println!("{} of {total} right; wrong: {wrong:?}", total - wrong.len());
    assert!(total > 0);
    assert!(wrong.len() * 100 <= 3 * total, "{wrong:?}");
}
