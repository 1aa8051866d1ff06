//! `MathConfig::require_evaluated`: the question itself is not accepted as its answer, and no
//! answer equals two numbers.

use proptest::prelude::*;
use rlvr_math::{MathConfig, MathVerifier, Verdict};

fn strict() -> MathVerifier {
    MathVerifier::new(MathConfig {
        require_evaluated: true,
        ..MathConfig::default()
    })
    .unwrap()
}

/// A gold, evaluated answers, and equal answers that are not evaluated.
const CASES: [(&str, &[&str], &[&str]); 14] = [
    (
        "85",
        &[
            "85",
            "+85",
            "85.0",
            "\\boxed{85}",
            "$85$",
            "x = 85",
            "37+48=85",
            "(30+7)+48 = 85",
            "8.5 \\times 10^1",
            "85 \\text{ apples}",
            "The answer is 85.",
        ],
        &[
            "37+48",
            "(37)+(48)",
            "\\boxed{37+48}",
            "\\frac{37+48}{1}",
            "{37+48}",
            "x = 37+48",
            "85 = 37+48",
            "37 + 48 \\text{ apples}",
            "170/2",
            "\\frac{170}{2}",
            "17\\cdot 5",
            "17 \\times 5",
            "(17)(5)",
            "85^1",
            "85 + \\sqrt{2} - \\sqrt{2}",
            "85\\cdot\\frac{\\pi}{\\pi}",
            "\\left|-85\\right|",
            "\\begin{vmatrix} 85 & 0 \\\\ 0 & 1 \\end{vmatrix}",
        ],
    ),
    (
        "5",
        &["5", "5.", "\\$5", "5\\text{ cm}"],
        &[
            "\\sqrt{25}",
            "25^{1/2}",
            "\\sqrt[3]{125}",
            "\\lfloor 5.5 \\rfloor",
            "\\lceil 4.5 \\rceil",
            "|-5|",
            "\\log_2 32",
            "\\max(3, 5)",
            "\\gcd(10, 15)",
            "\\lcm(5, 1)",
            "\\binom{5}{1}",
            "{5 \\choose 1}",
            "{10 \\over 2}",
            "12 \\pmod 7",
            "12 \\bmod 7",
            "\\lim_{x \\to 5} x",
            "\\int_0^5 1 dx",
            "\\frac{d}{dx} 5x",
            "2 \\cdot 2.5",
            "5!/4!",
            "--5 + 0",
            "5e^0",
            "-5i^2",
            "(\\sqrt{5})^2",
            "\\sqrt5\\sqrt5",
            "2\\frac12 + 2\\frac12",
        ],
    ),
    (
        "5050",
        &["5050", "5,050"],
        &["\\sum_{k=1}^{100} k", "101 \\cdot 50"],
    ),
    ("3628800", &["3628800"], &["10!", "\\prod_{k=1}^{10} k"]),
    (
        "\\frac{1}{3}",
        &[
            "1/3",
            "\\frac13",
            "0.333333",
            "-\\frac{-1}{3}",
            "0.\\overline{3}",
        ],
        &[
            "2/6",
            "\\frac{2}{6}",
            "\\int_0^1 x^2 dx",
            "1 - \\frac{2}{3}",
            "\\frac{1}{2+1}",
            "3^{-1}",
            "0.5/1.5",
        ],
    ),
    (
        "5.5",
        &["5.5", "11/2", "5\\frac{1}{2}", "5 1/2"],
        &["5 + \\frac{1}{2}", "5 + 0.5", "22/4"],
    ),
    (
        "0.5",
        &["50\\%", "1/2", ".5"],
        &["25\\% + 25\\%", "100\\%/2"],
    ),
    (
        "1000",
        &["1000", "1,000"],
        &["10,000/10", "10^3", "10 \\times 10^2", "10^2 \\cdot 10"],
    ),
    (
        "\\frac{\\sqrt{3}}{2}",
        &["\\sqrt{3}/2", "\\frac{1}{2}\\sqrt{3}", "0.866025"],
        &[
            "\\sin(\\pi/3)",
            "\\cos 30^\\circ",
            "\\frac{2\\sqrt3}{4}",
            "\\frac{\\sqrt{12}}{4}",
            "\\frac{\\sqrt3}{3-1}",
            "\\sqrt{3} - \\frac{\\sqrt{3}}{2}",
        ],
    ),
    (
        "2\\pi",
        &["2\\pi", "\\pi \\cdot 2", "6.283185"],
        &["\\pi + \\pi", "3\\pi - \\pi", "\\frac{4\\pi}{2}"],
    ),
    (
        "1 + \\sqrt{2}",
        &["\\sqrt2 + 1"],
        &["3 - 2 + \\sqrt{2}", "\\sqrt{1} + \\sqrt{2}"],
    ),
    (
        "(1, 2)",
        &["(1,2)", "(1.0, 2)"],
        &["(3-2, 2)", "(1, 1+1)", "(1, \\sqrt{4})"],
    ),
    (
        "[0, 2]",
        &["[0,2]", "0 \\le x \\le 2"],
        &["[0, 4/2]", "[1-1, 2]"],
    ),
    ("x = 3", &["3", "x=3"], &["x = 1+2", "9/3"]),
];

#[test]
fn only_evaluated_answers_are_equal() {
    let (strict, lenient) = (strict(), MathVerifier::default());
    let mut wrong = Vec::new();
    for (gold, evaluated, unevaluated) in CASES {
        for answer in evaluated {
            let comparison = strict.compare(gold, answer);
            if !comparison.is_equal() {
                wrong.push(format!("{gold} {answer}: {comparison:?}"));
            }
        }
        for answer in unevaluated {
            if !lenient.compare(gold, answer).is_equal() {
                wrong.push(format!("{gold} {answer}: not equal without the setting"));
            }
            let comparison = strict.compare(gold, answer);
            if comparison.verdict != Verdict::Different {
                wrong.push(format!("{gold} {answer}: {comparison:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn golds_with_operations_or_variables_do_not_need_evaluated_answers() {
    let strict = strict();
    for (gold, answer) in [
        ("2^{100}", "2^{100}"),
        ("2^{100}", "1267650600228229401496703205376"),
        ("2^{100}", "4^{50}"),
        ("10!", "3628800"),
        ("37+48", "85"),
        ("\\ln 2", "\\ln(2)"),
        ("(x-1)^2", "x^2-2x+1"),
        ("\\tan x", "\\frac{\\sin x}{\\cos x}"),
        ("6x", "2 \\cdot 3 x"),
        ("60^\\circ", "60"),
        ("60", "60^\\circ"),
        ("C", "C"),
    ] {
        assert!(strict.compare(gold, answer).is_equal(), "{gold} {answer}");
    }
}

/// Numbers of which no two are equal.
fn golds() -> Vec<String> {
    let mut golds: Vec<String> = [
        "0",
        "0.5",
        "0.05",
        "1/3",
        "0.333",
        "2/3",
        "1.5",
        "1.005",
        "5.5",
        "-5",
        "-0.5",
        "12.34",
        "1234",
        "1.234",
        "12345",
        "0.123",
        "\\pi",
        "\\frac{\\pi}{3}",
        "60",
        "180",
        "\\sqrt{2}",
        "2\\sqrt{2}",
        "1.41",
        "e",
        "3.14",
        "100",
        "0.01",
        "1000",
        "10^6",
        "0.6",
        "101",
        "\\frac{3}{4}",
        "330",
        "210",
        "3.5",
    ]
    .map(String::from)
    .into();
    golds.extend((1..=60).filter(|n| *n != 60).map(|n| n.to_string()));
    golds
}

/// Answers that could be read as several numbers.
const AMBIGUOUS: [&str; 60] = [
    "50%",
    "50\\%",
    "5\\%",
    "0.5\\%",
    ".5",
    "...5",
    "~5",
    "*5",
    "5.",
    "5,",
    "5..",
    "5 .5",
    "1,5",
    "1,234",
    "12,34",
    "0,123",
    "1.234",
    "12,345",
    "1 234",
    "12 345",
    "1,2",
    "5 5",
    "5_6",
    "101_2",
    "12_3",
    "60^\\circ",
    "60°",
    "180^\\circ",
    "5'",
    "3:4",
    "3:30",
    "5:5",
    "4 \\pm 1",
    "\\pm 5",
    "5 or 6",
    "5, 6",
    "\\{5, 6\\}",
    "5 \\approx 6",
    "5 \\sim 6",
    "x = 5",
    "x = 4 = 5",
    "4 = 5",
    "5 = 5",
    "5 \\ne 6",
    "(5)",
    "[5]",
    "\\{5\\}",
    "5 \\text{ dozen}",
    "5 \\text{ thousand}",
    "5\\text{ cm}",
    "\\$5",
    "5 m",
    "5 g",
    "-5",
    "- 5",
    "−5",
    "(5, 6)",
    "5 \\to 6",
    "1/2/3",
    "5e1",
];

/// Numbers with operations left to carry out.
const UNEVALUATED: [&str; 18] = [
    "2+3",
    "6-1",
    "10/2",
    "\\frac{10}{2}",
    "2\\cdot 2.5",
    "\\sqrt{25}",
    "5!",
    "2^5",
    "10^2",
    "\\gcd(5,10)",
    "12 \\bmod 7",
    "\\sum_{k=1}^{10} k",
    "|{-5}|",
    "\\log_2 32",
    "\\frac{2}{4}",
    "\\int_0^1 x dx",
    "\\sqrt{2}\\sqrt{2}",
    "\\pi - \\pi + 5",
];

#[test]
fn an_answer_equals_at_most_one_number() {
    let strict = strict();
    let golds = golds();
    for (place, gold) in golds.iter().enumerate() {
        for other in &golds[..place] {
            assert!(!strict.compare(gold, other).is_equal(), "{gold} {other}");
        }
    }
    let answers = AMBIGUOUS.into_iter().map(String::from);
    for answer in answers.chain(golds.iter().cloned()) {
        let equal: Vec<&String> = golds
            .iter()
            .filter(|g| strict.compare(g, &answer).is_equal())
            .collect();
        assert!(equal.len() <= 1, "{answer} equals {equal:?}");
    }
    for answer in UNEVALUATED {
        let equal: Vec<&String> = golds
            .iter()
            .filter(|g| strict.compare(g, answer).is_equal())
            .collect();
        assert!(equal.is_empty(), "{answer} equals {equal:?}");
    }
}

/// A number as it may be written, or something similar.
fn spelling() -> impl Strategy<Value = String> {
    let number = (0u32..2_000, 0u32..1_000, 0usize..10).prop_map(|(n, d, form)| match form {
        0 => n.to_string(),
        1 => format!("{n}.{d}"),
        2 => format!("{n},{d}"),
        3 => format!("{n},{d:03}"),
        4 => format!(".{d}"),
        5 => format!("{n} {d:03}"),
        6 => format!("\\frac{{{n}}}{{{d}}}"),
        7 => format!("{n}/{d}"),
        8 => format!("{n}\\times 10^{}", d % 5),
        _ => format!("{n}e{}", d % 5),
    });
    let mark = prop::sample::select(vec![
        "",
        "",
        "",
        "\\%",
        "%",
        "^\\circ",
        " cm",
        "\\text{ apples}",
        ".",
        "..",
        "!",
    ]);
    let sign = prop::sample::select(vec!["", "", "-", "+", "\\pm ", "\\$", "~", "*", "x = "]);
    (sign, number, mark).prop_map(|(sign, number, mark)| format!("{sign}{number}{mark}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_generated_answer_equals_two_numbers(answer in spelling(), a in -3_000i64..3_000, b in -3_000i64..3_000, d in 1i64..1_000) {
        let strict = strict();
        // Numbers that the answer could mean, and unrelated ones.
        let digits: String = answer.chars().filter(char::is_ascii_digit).take(12).collect();
        let n: i64 = digits.parse().unwrap_or(0);
        let mut golds: Vec<(i64, i64)> = vec![(n, 1), (-n, 1), (n, 10), (n, 100), (n, 1_000), (a, d), (b, 1)];
        let parts: Vec<i64> = answer.split(|c: char| !c.is_ascii_digit()).filter_map(|p| p.parse().ok()).collect();
        for part in &parts {
            golds.extend([(*part, 1), (-part, 1), (*part, 100)]);
        }
        if let [x, y, ..] = parts[..] && y != 0 {
            golds.push((x, y));
        }
        let equal: Vec<(i64, i64)> = golds
            .into_iter()
            .filter(|(n, d)| strict.compare(&format!("\\frac{{{n}}}{{{d}}}"), &answer).is_equal())
            .collect();
        for pair in equal.windows(2) {
            let (x, y) = (pair[0], pair[1]);
            prop_assert_eq!(i128::from(x.0) * i128::from(y.1), i128::from(y.0) * i128::from(x.1), "{} equals {:?}", answer, equal);
        }
    }
}
