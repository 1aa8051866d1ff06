//! Agreement with the golden cases: golds and answers with the verdict of a human grader.

use rlvr_math::{Comparison, ExtractConfig, Extractor, MathConfig, MathVerifier, Rule, Verdict};
use serde::Deserialize;

/// The cases with another verdict than `equal` says: every other case with `"equal": true` is
/// equal, and every other case with `"equal": false` is different.
const EXCEPTIONS: [(&str, Verdict); 16] = [
    ("m0033", Verdict::Different),
    ("m0974", Verdict::Undecided),
    ("m0023", Verdict::Undecided),
    ("m0331", Verdict::Undecided),
    ("m1269", Verdict::Undecided),
    ("m1245", Verdict::Undecided),
    ("m1266", Verdict::Undecided),
    ("m1242", Verdict::Undecided),
    ("m1285", Verdict::Undecided),
    ("m1246", Verdict::Undecided),
    ("m1286", Verdict::Undecided),
    ("m1243", Verdict::Undecided),
    ("m1237", Verdict::Undecided),
    ("m1209", Verdict::Undecided),
    ("m1208", Verdict::Undecided),
    ("m1220", Verdict::Undecided),
];

#[derive(Deserialize)]
struct Case {
    id: String,
    gold: String,
    answer: Option<String>,
    response: Option<String>,
    equal: bool,
    extract: Option<String>,
    precision: Option<u32>,
    strict: Option<bool>,
}

fn cases() -> Vec<Case> {
    include_str!("../golden/math_cases.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The answer, extracted if the case has a response, and its comparison with the gold.
fn compare(case: &Case) -> (Option<String>, Comparison) {
    let config = MathConfig {
        precision: case.precision.unwrap_or(6),
        strict: case.strict.unwrap_or(true),
        ..MathConfig::default()
    };
    let verifier = MathVerifier::new(config).unwrap();
    let answer = match (&case.answer, &case.response) {
        (Some(answer), _) => Some(answer.clone()),
        (None, Some(response)) => {
            let extractor = match case.extract.as_deref() {
                Some("number") => Extractor::from(Rule::LastNumber),
                Some("mcq") => Extractor::from(Rule::Mcq),
                Some("bracket") => bracket_first(),
                _ => Extractor::default(),
            };
            extractor
                .extract(response)
                .map(|found| found.all().to_owned())
        }
        (None, None) => panic!("{}: neither answer nor response", case.id),
    };
    // The gold of a multiple-choice question is written like a response: `(D) Alina`.
    let gold = match case.extract.as_deref() {
        Some("mcq") => Extractor::from(Rule::Mcq)
            .extract(&case.gold)
            .map_or_else(|| case.gold.clone(), |found| found.text),
        _ => case.gold.clone(),
    };
    let comparison = verifier.compare(&gold, answer.as_deref().unwrap_or_default());
    (answer, comparison)
}

/// The default rules with square brackets before them.
fn bracket_first() -> Extractor {
    let mut config = ExtractConfig::default();
    config.rules.insert(0, Rule::Bracket);
    Extractor::new(config).unwrap()
}

#[test]
fn every_golden_case_has_its_verdict() {
    let cases = cases();
    assert_eq!(cases.len(), 787);
    for (id, _) in EXCEPTIONS {
        assert!(cases.iter().any(|case| case.id == id), "no case {id}");
    }
    let mut wrong = Vec::new();
    for case in &cases {
        let exception = EXCEPTIONS.into_iter().find(|(id, _)| *id == case.id);
        let expected = match (exception, case.equal) {
            (Some((_, verdict)), _) => verdict,
            (None, true) => Verdict::Equal,
            (None, false) => Verdict::Different,
        };
        let (answer, comparison) = compare(case);
        if comparison.verdict != expected {
            let short = |text: &str| text.chars().take(200).collect::<String>();
            wrong.push(format!(
                "{}: expected {}, got {} ({}): gold {:?}, answer {:?}",
                case.id,
                expected.name(),
                comparison.verdict.name(),
                comparison.reason,
                short(&case.gold),
                answer.as_deref().map(short),
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
