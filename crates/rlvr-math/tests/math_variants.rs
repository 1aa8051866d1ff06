//! Pairs written for this crate: for every kind of answer, spellings that are equal and near misses that are not.
//!
//! `tests/golden/math_variants.tsv`: `=` (equal), `!` (different) or `?` (undecided), gold, answer, separated by tabs; `#` begins
//! a section.

use rlvr_math::{MathConfig, MathVerifier, Verdict};

const VARIANTS: &str = include_str!("golden/math_variants.tsv");

fn pairs() -> impl Iterator<Item = (Verdict, &'static str, &'static str)> {
    VARIANTS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut fields = line.split('\t');
            let verdict = match fields.next() {
                Some("=") => Verdict::Equal,
                Some("!") => Verdict::Different,
                Some("?") => Verdict::Undecided,
                mark => panic!("{line}: {mark:?}"),
            };
            (verdict, fields.next().unwrap(), fields.next().unwrap())
        })
}

#[test]
fn every_variant_has_its_verdict() {
    let verifier = MathVerifier::default();
    let mut wrong = Vec::new();
    for (verdict, gold, answer) in pairs() {
        let comparison = verifier.compare(gold, answer);
        if comparison.verdict != verdict {
            wrong.push(format!("{gold:?} and {answer:?}: {comparison:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn dollars_boxes_and_blanks_do_not_matter() {
    let verifier = MathVerifier::default();
    let mut wrong = Vec::new();
    for (verdict, gold, answer) in pairs() {
        let equal = verdict == Verdict::Equal;
        // What is delimited already, or is a dollar amount, is left alone.
        if answer.is_empty()
            || answer.matches('{').count() != answer.matches('}').count()
            || [gold, answer]
                .iter()
                .any(|t| t.contains(['$', '.', '`', '*']) || t.contains("box"))
        {
            continue;
        }
        for (gold, answer) in [
            (gold.to_owned(), format!("${answer}$")),
            (format!("${gold}$"), format!("\\boxed{{{answer}}}")),
            (format!("\\boxed{{{gold}}}"), format!("  {answer} ")),
            (
                format!("The answer is $\\boxed{{{gold}}}$."),
                format!("\\[{answer}\\]"),
            ),
        ] {
            let comparison = verifier.compare(&gold, &answer);
            if (comparison.verdict == Verdict::Equal) != equal {
                wrong.push(format!("{gold:?} and {answer:?}: {comparison:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn conventions_are_options() {
    let with = |change: fn(&mut MathConfig)| {
        let mut config = MathConfig::default();
        change(&mut config);
        MathVerifier::new(config).unwrap()
    };
    type Change = fn(&mut MathConfig);
    let cases: [(Change, &str, &str); 9] = [
        (|c| c.percent_as_number = false, "50\\%", "50"),
        (|c| c.decimal_comma = false, "1.5", "1,5"),
        (|c| c.ignore_missing_unit = false, "10\\text{ cm}", "10"),
        (|c| c.degree_as_number = false, "60^\\circ", "60"),
        (|c| c.unordered_lists = false, "1,2", "2,1"),
        (|c| c.assignment_as_value = false, "x=3", "3"),
        (|c| c.interval_as_relation = false, "(2,\\infty)", "x>2"),
        (|c| c.precision = 8, "\\frac{1}{3}", "0.333333"),
        (|c| c.fuel = 1, "x^2+1", "1+x\\cdot x"),
    ];
    for (change, gold, answer) in cases {
        assert_eq!(
            MathVerifier::default().compare(gold, answer).verdict,
            Verdict::Equal,
            "{gold} {answer}"
        );
        assert_ne!(
            with(change).compare(gold, answer).verdict,
            Verdict::Equal,
            "{gold} {answer}"
        );
    }
    assert_eq!(
        with(|c| c.strict = false).compare("x+1", "y+1").verdict,
        Verdict::Equal
    );
    assert_eq!(
        with(|c| c.precision = 2)
            .compare("\\frac{1}{3}", "0.33")
            .verdict,
        Verdict::Equal
    );
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for json in [
        r#"{"precision": 101}"#,
        r#"{"fuel": 0}"#,
        r#"{"max_depth": 0}"#,
    ] {
        let config: MathConfig = serde_json::from_str(json).unwrap();
        let error = MathVerifier::new(config).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
    }
    assert!(serde_json::from_str::<MathConfig>(r#"{"precison": 6}"#).is_err());
}
