//! The reward for an answer that equals the reference, as a number or as text.

use super::setters::{with_extract, with_name};
use super::{Extractor, Reward, RewardError, RewardInput, Rule};
use rlvr_math::exact_number;

/// How two answers are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Comparison {
    /// Character by character, except that all runs of whitespace are equal and surrounding
    /// whitespace is ignored.
    Text,
    /// As exact numbers: integers, decimals and fractions of integers, so that `085` = `85.0` =
    /// `+85` = `170/2` and `1,085` = `1085`. A reference that is not such a number is compared as
    /// [`Text`](Self::Text). The default.
    #[default]
    Number,
}

/// Scores 1 if the answer in the completion equals the reference, else 0.
///
/// By default the answer is the text inside the last `<answer>` tags after the thinking
/// ([`Rule::AnswerTag`]), and it is compared as a number ([`Comparison::Number`]). A completion
/// without an answer scores 0. The reward never abstains.
///
/// ```
/// use rlvr::reward::{AccuracyReward, Comparison, Reward, RewardInput, Rule};
///
/// let accuracy = AccuracyReward::new();
/// let score = |completion| {
///     accuracy
///         .score(&RewardInput::new("37+48=", "85", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(
///     score("<think>84 or 85?</think><answer> 085.0 </answer>"),
///     1.0
/// );
/// assert_eq!(score("<answer>84</answer>"), 0.0);
/// assert_eq!(score("85"), 0.0);
///
/// let whole = AccuracyReward::new()
///     .with_extract(Rule::Whole)
///     .with_comparison(Comparison::Text);
/// let score = |completion| {
///     whole
///         .score(&RewardInput::new("", "New York", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score(" New\nYork"), 1.0);
/// assert_eq!(score("new york"), 0.0);
/// ```
///
/// # Limits
///
/// The reward compares text and plain numbers, not expressions. Units, percent signs, `$`, LaTeX,
/// powers of ten, roots, lists and decimal commas are compared as text. Numbers are compared
/// exactly; a text longer than 1000 bytes is not read as a number. If a right answer can be written
/// in many ways, use [`MathReward`](super::MathReward).
///
/// # Errors
/// [`score`](Reward::score) returns an error if the reference is empty.
#[derive(Clone, Debug)]
pub struct AccuracyReward {
    name: String,
    extractor: Extractor,
    comparison: Comparison,
}

impl Default for AccuracyReward {
    fn default() -> Self {
        Self {
            name: "accuracy".into(),
            extractor: Rule::AnswerTag.into(),
            comparison: Comparison::default(),
        }
    }
}

impl AccuracyReward {
    /// Creates the reward `accuracy` with [`Rule::AnswerTag`], the default [`Tags`](super::Tags)
    /// and [`Comparison::Number`].
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();
    with_extract!();

    /// Sets how answers are compared.
    #[must_use]
    pub fn with_comparison(mut self, comparison: Comparison) -> Self {
        self.comparison = comparison;
        self
    }
}

impl Reward for AccuracyReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let reference = input.answer().trim();
        if reference.is_empty() {
            return Err("the reference `answer` is empty; expected the right answer".into());
        }
        let answer = self.extractor.extract(input.completion());
        let equal = answer.is_some_and(|answer| {
            self.comparison.form(answer.all()) == self.comparison.form(reference)
        });
        Ok(Some(if equal { 1.0 } else { 0.0 }))
    }
}

/// The normal form of an answer: two answers are equal if their normal forms are equal.
#[derive(PartialEq, Eq)]
enum Form {
    /// An integer, or a fraction in lowest terms.
    Number(String),
    Words(String),
}

impl Comparison {
    fn form(self, text: &str) -> Form {
        let number = match self {
            Self::Text => None,
            Self::Number => exact_number(text.trim()),
        };
        number.map_or_else(
            || Form::Words(text.split_whitespace().collect::<Vec<_>>().join(" ")),
            Form::Number,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::Tags;
    use proptest::prelude::*;

    fn equal(comparison: Comparison, answer: &str, reference: &str) -> bool {
        let reward = AccuracyReward::new()
            .with_extract(Rule::Whole)
            .with_comparison(comparison);
        let input = RewardInput::new("", reference, answer);
        reward.score(&input).unwrap() == Some(1.0)
    }

    #[test]
    fn numbers_are_compared_by_value_and_other_answers_as_text() {
        for (answer, reference, expected) in [
            ("085", "85", true),
            ("85", "+85.00", true),
            ("1085", "1,085", true),
            ("0.5", "1/2", true),
            ("0.3333", "1/3", false),
            ("-85", "85", false),
            ("eighty-five", "85", false),
            ("85 apples", "85", false),
            ("", "85", false),
            ("A  B", " A\tB ", true),
            ("AB", "A B", false),
            ("a", "A", false),
            // Not a number: compared as text.
            ("50%", "50%", true),
            ("0.5", "50%", false),
            // A leading decimal point is part of the number.
            (".5", "5", false),
            ("5", ".5", false),
            (".5", "0.5", true),
            (".25", "25", false),
            ("-.5", "-5", false),
        ] {
            assert_eq!(
                equal(Comparison::Number, answer, reference),
                expected,
                "{answer} {reference}"
            );
        }
        let long = "9".repeat(50);
        assert!(equal(Comparison::Number, &format!("0{long}"), &long));
        assert!(!equal(
            Comparison::Number,
            &format!("{long}8"),
            &format!("{long}9")
        ));
        let too_long = "9".repeat(1000);
        assert!(equal(Comparison::Number, &too_long, &too_long));
        assert!(!equal(
            Comparison::Number,
            &format!("0{too_long}"),
            &too_long
        ));
        assert!(!equal(Comparison::Text, "085", "85"));
        assert!(equal(Comparison::Text, " 85\n", "85"));
    }

    #[test]
    fn the_answer_is_read_from_the_tags() {
        let score = |reward: AccuracyReward, completion: &str| {
            let input = RewardInput::new("", "5", completion);
            reward.score(&input).unwrap().unwrap()
        };
        let tagged = AccuracyReward::new;
        assert_eq!(score(tagged(), "<answer>4</answer><answer>5</answer>"), 1.0);
        assert_eq!(score(tagged(), "<answer>5</answer><answer>4</answer>"), 0.0);
        assert_eq!(score(tagged(), "<answer>5"), 0.0);
        assert_eq!(score(tagged(), "<answer>5 or 4</answer>"), 0.0);
        assert_eq!(score(tagged(), "<think><answer>5</answer>"), 0.0);
        let other = Tags::new("(", ")", "[", "]").unwrap();
        let other = Extractor::from(Rule::AnswerTag).tags(other);
        assert_eq!(score(tagged().with_extract(other), "(4) [5]"), 1.0);
        assert_eq!(tagged().name(), "accuracy");
        assert_eq!(tagged().with_name("sum").name(), "sum");
    }

    #[test]
    fn an_empty_reference_is_an_error() {
        for reference in ["", " \n"] {
            let input = RewardInput::new("", reference, "<answer></answer>");
            let error = AccuracyReward::new().score(&input).unwrap_err();
            assert!(error.to_string().contains("`answer` is empty"), "{error}");
        }
    }

    /// A number in one of several notations, or a near miss, with surrounding whitespace.
    fn written() -> impl Strategy<Value = String> {
        let size = (0i64..30, 0usize..3, 0usize..3, 0usize..6);
        let number = size.prop_map(|(value, zeros, tail, form)| {
            let zeros = "0".repeat(zeros);
            match form {
                0 => format!("{zeros}{value}"),
                1 => format!("+{zeros}{value}.{}", "0".repeat(tail)),
                2 => format!("-{zeros}{value}"),
                3 => format!("{}/{}", value * 3, 3 * (tail + 1)),
                4 => format!("{value}.{zeros}5"),
                _ => format!("{value},{zeros}"),
            }
        });
        (number, "[ \n]{0,2}", "[ \n]{0,2}").prop_map(|(n, before, after)| before + &n + &after)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn equality_is_an_equivalence_relation(a in written(), b in written(), c in written()) {
            let same = |x: &str, y: &str| equal(Comparison::Number, x, y);
            prop_assert!(same(&a, &a));
            prop_assert_eq!(same(&a, &b), same(&b, &a));
            prop_assert!(!(same(&a, &b) && same(&b, &c)) || same(&a, &c));
            // Numbers this small are exact in floating point, which gives an independent check.
            let float = |x: &str| x.trim().parse::<f64>().ok();
            if let (Some(x), Some(y)) = (float(&a), float(&b)) {
                prop_assert_eq!(same(&a, &b), x == y);
            }
        }
    }
}
