//! The extractor on the recorded cases, the laws that hold for every text, and its work on texts made to be slow.
//!
//! `RLVR_REWARDS_DIR` names another folder with a file `math_extract_cases.jsonl`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use rlvr_math::{ExtractConfig, Extractor, Rule};
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
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = folder.unwrap_or_else(here).join("math_extract_cases.jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
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
            segments
                .map(|(piece, times)| piece.repeat(*times))
                .collect()
        };
        let response: String = case.response.clone().unwrap_or_else(written);
        let row = table
            .entry((case.mode.to_string(), case.class.clone()))
            .or_default();
        row.1 += 1;
        if agrees(&case, &response) {
            row.0 += 1;
        } else {
            wrong.push(format!("{} ({}, {})", case.id, case.mode, case.class));
        }
    }
    report(&format!(
        "{:<16}{:<18}{:>6}{:>6}",
        "rule", "class", "right", "of"
    ));
    for ((mode, class), (right, of)) in &table {
        report(&format!("{mode:<16}{class:<18}{right:>6}{of:>6}"));
    }
    let total: usize = table.values().map(|row| row.1).sum();
    report(&format!(
        "{} of {total} right; wrong: {wrong:?}",
        total - wrong.len()
    ));
    assert!(total > 0);
    assert!(wrong.is_empty(), "{wrong:?}");
}

const RULES: [Rule; 10] = [
    Rule::Boxed,
    Rule::AnswerTag,
    Rule::AnswerLine,
    Rule::Gsm8k,
    Rule::LastExpression,
    Rule::LastNumber,
    Rule::Mcq,
    Rule::Bracket,
    Rule::Code,
    Rule::Whole,
];

/// What the rules look for, and what they must not trip over.
const PIECES: [&str; 52] = [
    "\\boxed{",
    "\\boxed ",
    "\\fbox{",
    "\\boxed",
    "{",
    "}",
    "\\{",
    "\\}",
    "\\",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "The answer is ",
    "Answer:",
    "**",
    "answer",
    "final ",
    "#### ",
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "\\begin{align}",
    "\\end{align}",
    "\\begin{pmatrix}",
    "\\\\",
    "&",
    "\\frac{",
    "\\frac12",
    "```python\n",
    "```",
    "[",
    "]",
    "\\sqrt[",
    "A",
    "(B)",
    "not ",
    "I ",
    "1,234",
    "5 2/3",
    "-.5",
    "10^{",
    "%",
    " ",
    "\n",
    "é",
    "答案是",
    "x = ",
    ". ",
];

#[test]
fn repeated_pieces_are_read_in_linear_time() {
    // A quadratic reader would need minutes for one of these.
    const BYTES: usize = 200_000;
    for first in PIECES {
        for second in ["", "x", "1", " a "] {
            let piece = format!("{first}{second}");
            let text = piece.repeat(BYTES / piece.len());
            for rule in RULES {
                let _ = Extractor::from(rule).extract(&text);
            }
        }
    }
}

#[test]
fn what_was_once_quadratic_is_linear() {
    for (start, piece) in [
        ("The answer is ", "-.5{"),
        ("The answer is ", "-.5A"),
        ("", "\\boxed\\"),
        ("", "\\\\boxed"),
    ] {
        let text = format!("{start}{}", piece.repeat(2_000_000 / piece.len()));
        for rule in RULES {
            let _ = Extractor::from(rule).extract(&text);
        }
    }
}

#[test]
fn every_pair_of_pieces_is_read_in_linear_time() {
    const BYTES: usize = 60_000;
    let mut config = ExtractConfig::with_rules(RULES);
    // So that no rule ends the search.
    config.rules.retain(|rule| *rule != Rule::Whole);
    for first in PIECES {
        for second in PIECES {
            let piece = format!("{first}{second}");
            let text = piece.repeat(BYTES / piece.len());
            let _ = Extractor::new(config.clone()).unwrap().extract(&text);
        }
    }
}

fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(&PIECES[..]).prop_map(String::from),
        1 => "[ -~]{0,6}",
        1 => "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// Text in which no box begins or ends.
fn noise() -> impl Strategy<Value = String> {
    let pieces = PIECES
        .into_iter()
        .filter(|piece| !piece.contains(['{', '}', '\\']) && !piece.contains("think"));
    let pieces: Vec<&str> = pieces.collect();
    prop::collection::vec(prop::sample::select(pieces), 0..20).prop_map(|pieces| pieces.concat())
}

/// Text with balanced braces.
fn balanced() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z0-9 +=,]{0,5}",
        Just("\\{".to_string()),
        Just("\\pi".to_string())
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop::collection::vec(inner, 1..3).prop_map(|parts| format!("\\frac{{{}}}", parts.concat()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_answered(text in soup()) {
        for rule in RULES {
            let found = Extractor::from(rule).extract(&text);
            if let (Some(found), Rule::Boxed | Rule::AnswerTag | Rule::Bracket | Rule::Code) = (found, rule) {
                prop_assert!(text.contains(&found.text), "{rule}: {}", found.text);
            }
        }
        let config = ExtractConfig::with_rules(RULES);
        let found = Extractor::new(config).unwrap().extract(&text).unwrap();
        let first = RULES.into_iter().find_map(|rule| Extractor::from(rule).extract(&text));
        prop_assert_eq!(Some(found), first);
    }

    #[test]
    fn a_box_is_found_in_any_noise(before in noise(), answer in balanced(), after in noise()) {
        let response = format!("<think>\\boxed{{0}}</think>{before}\\boxed{{{answer}}}{after}");
        let found = Extractor::default().extract(&response).unwrap();
        prop_assert_eq!(found.rule, Rule::Boxed);
        prop_assert_eq!(found.text.as_str(), answer.trim());
    }

    #[test]
    fn an_answer_is_found_whatever_was_thought(thought in soup(), answer in 0u32..100_000) {
        for said in [
            format!("The answer is {answer}."),
            format!("<answer>{answer}</answer>"),
            format!("#### {answer}"),
            format!("so it is {answer}."),
        ] {
            let response = format!("{thought}</think>{said}");
            let found = Extractor::default().extract(&response).unwrap();
            prop_assert_eq!(found.text, answer.to_string(), "{}", response);
        }
    }

    #[test]
    fn thinking_is_searched_only_when_asked(thought in "[a-z ]{0,9}") {
        use rlvr_math::Thinking;
        let with = |thinking| {
            let config = ExtractConfig { thinking, ..ExtractConfig::default() };
            Extractor::new(config).unwrap()
        };
        let (closed, open) = (format!("<think>\\boxed{{1}}{thought}</think>"), format!("<think>\\boxed{{1}}{thought}"));
        for text in [&closed, &open] {
            prop_assert_eq!(with(Thinking::Skip).extract(text), None);
            prop_assert_eq!(with(Thinking::Search).extract(text).unwrap().text, "1");
        }
        let said = "\\boxed{2}";
        prop_assert_eq!(with(Thinking::Required).extract(said), None);
        prop_assert_eq!(with(Thinking::Required).extract(&format!("{closed}{said}")).unwrap().text, "2");
    }
}

#[test]
fn configurations_that_mean_nothing_are_refused() {
    let message = |config: ExtractConfig| Extractor::new(config).unwrap_err().to_string();
    let default = ExtractConfig::default;
    for (config, start) in [
        (ExtractConfig::with_rules([]), "invalid `rules`: []"),
        (
            ExtractConfig::with_rules([Rule::Boxed, Rule::Boxed]),
            "invalid `rules`: boxed twice",
        ),
        (
            ExtractConfig {
                choices: "AAB".into(),
                ..default()
            },
            "invalid `choices`: \"AAB\"",
        ),
        (
            ExtractConfig {
                choices: "abc".into(),
                ..default()
            },
            "invalid `choices`: \"abc\"",
        ),
        (
            ExtractConfig {
                languages: vec!["".into()],
                ..default()
            },
            "invalid `languages`: \"\"",
        ),
    ] {
        let message = message(config);
        assert!(message.starts_with(start), "{message}");
    }
    let text = serde_json::to_string(&default()).unwrap();
    assert_eq!(
        serde_json::from_str::<ExtractConfig>(&text).unwrap(),
        default()
    );
    assert_eq!(
        serde_json::from_str::<ExtractConfig>("{}").unwrap(),
        default()
    );
}

/// Prints a line even where the output of tests is captured.
fn report(text: &str) {
    use std::io::Write;
    // A closed stream is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{text}");
}
