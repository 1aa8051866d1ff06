//! The extractor on the golden cases, its properties on generated texts, and its time on texts made
//! to be slow.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use rlvr_math::{ExtractConfig, Extractor, Rule, Thinking};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    id: String,
    class: String,
    mode: Rule,
    response: Option<String>,
    /// The parts of a long response, and how often each is repeated.
    segments: Option<Vec<(String, usize)>>,
    expected: Option<String>,
    /// The length of the answer, in place of `expected`, if it is long.
    expected_len: Option<usize>,
}

impl Case {
    fn response(&self) -> String {
        self.response.clone().unwrap_or_else(|| {
            let segments = self.segments.iter().flatten();
            segments.map(|(part, times)| part.repeat(*times)).collect()
        })
    }

    fn agrees(&self, found: Option<&str>) -> bool {
        match self.expected_len {
            Some(length) => found.map(str::len) == Some(length),
            None => found == self.expected.as_deref().map(str::trim),
        }
    }
}

#[test]
fn every_golden_case_has_its_answer() {
    let cases: Vec<Case> = include_str!("../golden/math_extract_cases.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(cases.len(), 144);
    let mut wrong = Vec::new();
    for case in &cases {
        let found = Extractor::from(case.mode).extract(&case.response());
        let found = found.as_ref().map(|found| found.text.trim());
        if !case.agrees(found) {
            wrong.push(format!(
                "{} ({}, {}): {found:?}",
                case.id, case.mode, case.class
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

/// Parts of responses: what the rules look for, and what looks like it.
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

/// Extracts from `text`. The limit is far above the milliseconds that linear time takes, and below
/// what quadratic time takes.
fn extract_in_linear_time(extractor: &Extractor, text: &str) {
    const LIMIT: Duration = Duration::from_secs(30);
    let start = Instant::now();
    extractor.extract(text);
    let head: String = text.chars().take(40).collect();
    assert!(start.elapsed() < LIMIT, "{head:?}: {:?}", start.elapsed());
}

#[test]
fn repeated_pieces_are_read_in_linear_time() {
    const BYTES: usize = 200_000;
    for first in PIECES {
        for second in ["", "x", "1", " a "] {
            let piece = format!("{first}{second}");
            let text = piece.repeat(BYTES / piece.len());
            for rule in RULES {
                extract_in_linear_time(&Extractor::from(rule), &text);
            }
        }
    }
}

#[test]
fn texts_that_were_once_read_in_quadratic_time_are_read_in_linear_time() {
    const BYTES: usize = 2_000_000;
    for (start, piece) in [
        ("The answer is ", "-.5{"),
        ("The answer is ", "-.5A"),
        ("", "\\boxed\\"),
        ("", "\\\\boxed"),
    ] {
        let text = format!("{start}{}", piece.repeat(BYTES / piece.len()));
        for rule in RULES {
            extract_in_linear_time(&Extractor::from(rule), &text);
        }
    }
}

#[test]
fn every_pair_of_pieces_is_read_in_linear_time() {
    const BYTES: usize = 40_000;
    // All rules but `Whole`, which always finds an answer.
    let rules = RULES.into_iter().filter(|rule| *rule != Rule::Whole);
    let extractor = Extractor::new(ExtractConfig::with_rules(rules)).unwrap();
    // Repeated, a pair in the other order is the same text but for its ends.
    for (place, first) in PIECES.iter().enumerate() {
        for second in &PIECES[..place] {
            let piece = format!("{first}{second}");
            let text = piece.repeat(BYTES / piece.len());
            extract_in_linear_time(&extractor, &text);
        }
    }
}

/// Pieces and other characters in any order.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(&PIECES[..]).prop_map(String::from),
        1 => "[ -~]{0,6}",
        1 => "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// Text without a box, a brace or a think tag.
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
    fn the_first_rule_that_finds_an_answer_decides(text in soup()) {
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
    fn a_box_is_found_between_other_pieces(before in noise(), answer in balanced(), after in noise()) {
        let response = format!("<think>\\boxed{{0}}</think>{before}\\boxed{{{answer}}}{after}");
        let found = Extractor::default().extract(&response).unwrap();
        prop_assert_eq!(found.rule, Rule::Boxed);
        prop_assert_eq!(found.text.as_str(), answer.trim());
    }

    #[test]
    fn the_thinking_does_not_change_the_answer(thought in soup(), answer in 0u32..100_000) {
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
    fn the_thinking_is_searched_only_if_configured(thought in "[a-z ]{0,9}") {
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
fn invalid_settings_are_errors() {
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
}

#[test]
fn a_configuration_is_read_back_as_written() {
    let default = ExtractConfig::default();
    let text = serde_json::to_string(&default).unwrap();
    let read = |text: &str| serde_json::from_str::<ExtractConfig>(text).unwrap();
    assert_eq!(read(&text), default);
    assert_eq!(read("{}"), default);
}
