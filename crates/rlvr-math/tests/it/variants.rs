//! Pairs written for this crate: for every kind of answer, equal spellings and near misses.
//!
//! A line of `tests/golden/math_variants.tsv` is a verdict, `=` (equal), `!` (different) or `?`
//! (undecided), a gold and an answer, separated by tabs. A line that starts with `#` is a heading.

use rlvr_math::{MathConfig, MathVerifier, Verdict};

const VARIANTS: &str = include_str!("../golden/math_variants.tsv");

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
fn delimiters_boxes_and_spaces_do_not_change_the_verdict() {
    let verifier = MathVerifier::default();
    let mut wrong = Vec::new();
    for (verdict, gold, answer) in pairs() {
        // Texts that have delimiters already, or for which these would change the meaning.
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
            if comparison.verdict != verdict {
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
fn each_convention_is_an_option() {
    type Change = fn(&mut MathConfig);
    let verdict = |change: Change, gold: &str, answer: &str| {
        let mut config = MathConfig::default();
        change(&mut config);
        MathVerifier::new(config)
            .unwrap()
            .compare(gold, answer)
            .verdict
    };
    use Verdict::{Different, Equal, Undecided};
    // The verdict by default, and with the change.
    let cases: [(Change, &str, &str, Verdict, Verdict); 11] = [
        (
            |c| c.percent_as_number = false,
            "50\\%",
            "50",
            Equal,
            Different,
        ),
        (|c| c.decimal_comma = false, "1.5", "1,5", Equal, Different),
        (
            |c| c.ignore_missing_unit = false,
            "10\\text{ cm}",
            "10",
            Equal,
            Different,
        ),
        (
            |c| c.degree_as_number = false,
            "60^\\circ",
            "60",
            Equal,
            Different,
        ),
        (
            |c| c.unordered_lists = false,
            "1,2",
            "2,1",
            Equal,
            Different,
        ),
        (
            |c| c.assignment_as_value = false,
            "x=3",
            "3",
            Equal,
            Different,
        ),
        (
            |c| c.interval_as_relation = false,
            "(2,\\infty)",
            "x>2",
            Equal,
            Different,
        ),
        (
            |c| c.precision = 8,
            "\\frac{1}{3}",
            "0.333333",
            Equal,
            Different,
        ),
        (
            |c| c.precision = 2,
            "\\frac{1}{3}",
            "0.33",
            Different,
            Equal,
        ),
        (|c| c.strict = false, "x+1", "y+1", Different, Equal),
        (|c| c.fuel = 1, "x^2+1", "1+x\\cdot x", Equal, Undecided),
    ];
    for (change, gold, answer, by_default, changed) in cases {
        assert_eq!(verdict(|_| {}, gold, answer), by_default, "{gold} {answer}");
        assert_eq!(verdict(change, gold, answer), changed, "{gold} {answer}");
    }
}

#[test]
fn invalid_settings_are_errors() {
    for (json, message) in [
        (
            r#"{"precision": 101}"#,
            "invalid `precision`: 101; expected 0 to 100 decimals",
        ),
        (r#"{"fuel": 0}"#, "invalid `fuel`: 0; expected 1 to"),
        (
            r#"{"max_depth": 0}"#,
            "invalid `max_depth`: 0; expected 1 to 1048576",
        ),
    ] {
        let config: MathConfig = serde_json::from_str(json).unwrap();
        let error = MathVerifier::new(config).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    assert!(serde_json::from_str::<MathConfig>(r#"{"precison": 6}"#).is_err());
}
