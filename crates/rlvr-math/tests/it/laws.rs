//! Properties of the comparison: it is deterministic on any text, and layout, order and exact
//! arithmetic do not change the verdict.

use proptest::prelude::*;
use rlvr_math::{MathConfig, MathVerifier, Verdict};

/// Pieces of LaTeX in any order, well formed or not.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[0-9]{1,3}",
        2 => "[a-eixyzI]",
        4 => prop::sample::select(vec![
            "+", "-", "*", "/", "^", "_", "=", "<", ">", "!", "%", "'", ",", ";", ":", "|", "&", ".", "(", ")", "[", "]", "{",
            "}", " ", "$", "\\{", "\\}", "\\|", "\\\\", "\\frac", "\\sqrt", "\\binom", "\\sum", "\\prod", "\\int", "\\lim",
            "\\sin", "\\log", "\\ln", "\\gcd", "\\pi", "\\infty", "\\cup", "\\cap", "\\setminus", "\\in", "\\to", "\\pm",
            "\\mp", "\\le", "\\ne", "\\circ", "\\text", "\\mathrm", "\\left", "\\right", "\\begin{pmatrix}", "\\end{pmatrix}",
            "\\begin{vmatrix}", "\\end{vmatrix}", "\\boxed", "\\overline", "\\vec", "\\lfloor", "\\rceil", "\\emptyset",
            "\\mathbb{R}", "\\ldots", "\\bmod", "\\choose", "\\quad", "d", "dx", "sin", "and", "or", "cm", "percent", "x=",
            "e^", "1e9", "\\frac12", "√", "π", "²", "½", "∞", "≤", "⌊",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Well-formed expressions in x and y, as text.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (0u32..50).prop_map(|n| n.to_string()),
        Just("x".to_owned()),
        Just("y".to_owned())
    ];
    leaf.prop_recursive(4, 24, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}+{b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}-{b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("\\frac{{{a}}}{{1+({b})^2}}")),
            (inner.clone(), 0u32..4).prop_map(|(a, n)| format!("({a})^{{{n}}}")),
            inner.clone().prop_map(|a| format!("\\sin({a})")),
            inner.clone().prop_map(|a| format!("|{a}|")),
            inner.prop_map(|a| format!("\\sqrt{{1+({a})^2}}")),
        ]
    })
}

fn verdict(gold: &str, answer: &str) -> Verdict {
    MathVerifier::default().compare(gold, answer).verdict
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn two_comparisons_of_any_texts_are_the_same(a in ".{0,60}", b in ".{0,60}") {
        let first = MathVerifier::default().compare(&a, &b);
        prop_assert_eq!(first, MathVerifier::default().compare(&a, &b));
    }

    #[test]
    fn two_comparisons_of_pieces_in_any_order_are_the_same(a in soup(), b in soup()) {
        let small = MathVerifier::new(MathConfig { fuel: 200_000, ..MathConfig::default() }).unwrap();
        let first = small.compare(&a, &b);
        prop_assert_eq!(&first, &small.compare(&a, &b));
        prop_assert!(!first.reason.is_empty());
    }

    #[test]
    fn an_expression_equals_itself_written_differently(a in expression()) {
        // Not the same text, which is equal without being parsed.
        for same in [format!("0+{a}"), format!("\\frac{{2({a})}}{{2}}"), format!("3({a})-2({a})"), format!("--({a})")] {
            prop_assert_eq!(verdict(&a, &same), Verdict::Equal, "{}", same);
        }
    }

    #[test]
    fn the_order_of_the_sides_does_not_matter(a in expression(), b in expression()) {
        prop_assert_eq!(verdict(&a, &b), verdict(&b, &a));
    }

    #[test]
    fn layout_does_not_matter(a in expression(), b in expression()) {
        let loose = |t: &str| {
            t.replace('(', "\\left( ").replace(')', "\\right) ").replace('+', " + ").replace("\\frac", "\\dfrac")
        };
        let before = verdict(&a, &b);
        prop_assert_eq!(before, verdict(&loose(&a), &b));
        prop_assert_eq!(before, verdict(&format!("${a}$"), &format!("\\boxed{{{}}}", loose(&b))));
    }

    #[test]
    fn sums_and_products_commute(a in expression(), b in expression()) {
        prop_assert_eq!(verdict(&format!("{a}+{b}"), &format!("{b}+{a}")), Verdict::Equal);
        prop_assert_eq!(verdict(&format!("({a})({b})"), &format!("({b})\\cdot({a})")), Verdict::Equal);
    }

    #[test]
    fn adding_a_positive_number_makes_a_difference(a in expression(), n in 1u64..1_000_000_000_000_000_000) {
        prop_assert_eq!(verdict(&a, &format!("{a}+\\frac{{1}}{{{n}}}")), Verdict::Different);
    }

    #[test]
    fn products_of_polynomials_expand(a in -9i64..10, b in -99i64..100, c in -9i64..10, d in -99i64..100) {
        let product = format!("({a}x+{b})({c}x+{d})");
        let expanded = format!("{}x^2+{}x+{}", a * c, a * d + b * c, b * d);
        prop_assert_eq!(verdict(&product, &expanded), Verdict::Equal);
        let wrong = format!("{}x^2+{}x+{}", a * c, a * d + b * c + 1, b * d);
        prop_assert_eq!(verdict(&product, &wrong), Verdict::Different);
    }

    #[test]
    fn fractions_are_exact(n in -10_000i64..10_000, d in 1i64..10_000, k in 1i64..1000) {
        let gold = format!("\\frac{{{n}}}{{{d}}}");
        prop_assert_eq!(verdict(&gold, &format!("{}/{}", n * k, d * k)), Verdict::Equal);
        prop_assert_eq!(verdict(&gold, &format!("\\frac{{{}}}{{{}}}", n * k + 1, d * k)), Verdict::Different);
    }

    #[test]
    fn sets_have_no_order(mut items in prop::collection::vec(-50i64..50, 2..8), turn in 0usize..8) {
        let set = |items: &[i64]| format!("\\{{{}\\}}", items.iter().map(i64::to_string).collect::<Vec<_>>().join(", "));
        let before = set(&items);
        let places = turn % items.len();
        items.rotate_left(places);
        prop_assert_eq!(verdict(&before, &set(&items)), Verdict::Equal);
        items.push(99);
        prop_assert_eq!(verdict(&before, &set(&items)), Verdict::Different);
    }
}

/// Expensive texts: the comparison stays within its limits, on a stack of one megabyte.
#[test]
fn expensive_texts_are_not_equal_to_a_number() {
    let nest = |open: &str, inner: &str, close: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    let mut texts: Vec<String> = [
        "9^{9^{9^9}}",
        "100000!",
        "((9!)!)!",
        "10^{10^{10}}",
        "\\binom{10^9}{5\\cdot 10^8}",
        "(x+y+z+w)^{100000}",
        "1e999999999",
        "\\sum_{k=1}^{10000}\\frac{1}{k}",
        "\\sum_{i=1}^{1000}\\sum_{j=1}^{1000} ij",
        "\\prod_{k=1}^{10000}(x+k)",
        "\\sin(10^{100000})",
        "e^{e^{e^{e^{e}}}}",
        "\\gcd(10^{20000}+1,10^{19999}+7)",
        "\\log_2(3^{100000})",
    ]
    .map(str::to_owned)
    .to_vec();
    for times in [900, 100_000] {
        for (open, close) in [
            ("(", ")"),
            ("{", "}"),
            ("\\left(", "\\right)"),
            ("\\frac{1}{1+", "}"),
            ("\\sqrt{1+", "}"),
            ("\\sin(", ")"),
            ("|1+", "|"),
            ("2^{", "}"),
            ("\\{", "\\}"),
            ("(1,", ")"),
            ("\\begin{pmatrix}1\\\\", "\\end{pmatrix}"),
            ("(a=", ")"),
            ("((0,1)\\cap", ")"),
        ] {
            texts.push(nest(open, "3", close, times));
        }
    }
    for open in [
        "(",
        "\\left(",
        "\\frac{",
        "\\sqrt",
        "-",
        "\\sin ",
        "\\lim_{x\\to 0}",
        "\\sum_{k=1}^{3}",
        "\\int_0^1 x^",
        "2^",
        "!",
        "\\boxed ",
        "<|",
        "\\text{",
    ] {
        texts.push(open.repeat(3_000));
        texts.push(format!("{}x", open.repeat(400)));
        texts.push(open.repeat(1_000_000 / open.len()));
    }
    let run = move || {
        let verifier = MathVerifier::default();
        for text in &texts {
            let start: String = text.chars().take(30).collect();
            assert_ne!(
                verifier.compare("12345", text).verdict,
                Verdict::Equal,
                "{start}"
            );
            assert_ne!(
                verifier.compare(text, "12345").verdict,
                Verdict::Equal,
                "{start}"
            );
        }
    };
    std::thread::Builder::new()
        .stack_size(1 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}
