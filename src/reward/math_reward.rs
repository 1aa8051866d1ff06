//! The reward for an answer that is mathematically equal to the reference.

use serde::{Deserialize, Serialize};

use super::math::{Comparison, MathConfig, MathVerifier, Verdict};
use super::{ExtractConfig, Extracted, Extractor, Reward, RewardError, RewardInput, Rule};
use crate::{Error, Result};

/// The outcome of a comparison that reaches no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Undecided {
    /// A fixed score, a finite number. The default is 0.
    Score(f64),
    /// The reward abstains.
    Abstain,
}

impl Default for Undecided {
    fn default() -> Self {
        Self::Score(0.0)
    }
}

/// The settings of a [`MathReward`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathRewardConfig {
    /// The name under which scores are recorded. Default: `accuracy`.
    pub name: String,
    /// How the answer is extracted from the completion. Default: [`ExtractConfig::anchored`].
    pub extract: ExtractConfig,
    /// How answers are compared.
    pub math: MathConfig,
    /// The score of a completion without an answer. Default: 0.
    pub missing: f64,
    /// The outcome of a comparison without a verdict: `{"score": 0}` or `"abstain"`. Default:
    /// `{"score": 0}`.
    pub undecided: Undecided,
}

impl Default for MathRewardConfig {
    fn default() -> Self {
        Self {
            name: "accuracy".into(),
            extract: ExtractConfig::anchored(),
            math: MathConfig::default(),
            missing: 0.0,
            undecided: Undecided::default(),
        }
    }
}

/// Scores 1 if the answer in the completion is mathematically equal to the reference, else 0.
///
/// An [`Extractor`] finds the answer. By default the completion must mark it as the answer: with a
/// box, a tag, "the answer is" or `####`. A completion without one scores 0. A [`MathVerifier`]
/// compares the answer with the reference. If it reaches no verdict within its limits, the score is
/// 0 or the reward abstains ([`MathRewardConfig::undecided`]). The reference may be in a box or a
/// sentence, as in many data sets.
///
/// An expression that equals the reference is right, such as `37+48` for 85. If the question is
/// itself an expression, set [`with_require_evaluated`](Self::with_require_evaluated).
///
/// Consecutive boxes, as in `\boxed{3} or \boxed{4}`, are one answer, the list of them: listing
/// every candidate is not right.
///
/// ```
/// use rlvr::reward::{MathReward, Reward, RewardInput};
///
/// let accuracy = MathReward::default();
/// let score = |completion| {
///     accuracy
///         .score(&RewardInput::new("", r"\frac{1}{2}", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score("<think>0.25?</think> So it is $\\boxed{0.5}$."), 1.0);
/// assert_eq!(score("The answer is 2/4."), 1.0);
/// assert_eq!(score("The answer is 0.25."), 0.0);
/// assert_eq!(score("\\boxed{0.5} or \\boxed{0.25}"), 0.0);
/// assert_eq!(score("0.5"), 0.0); // not marked as the answer
/// ```
///
/// # Errors
/// [`score`](Reward::score) returns an error if the reference is unusable: empty, or not readable
/// by the rule (no letter for [`Rule::Mcq`], no number for [`Rule::LastNumber`]).
#[derive(Clone, Debug)]
pub struct MathReward {
    name: String,
    extractor: Extractor,
    verifier: MathVerifier,
    missing: f64,
    undecided: Undecided,
}

impl Default for MathReward {
    fn default() -> Self {
        let MathRewardConfig {
            name,
            missing,
            undecided,
            ..
        } = MathRewardConfig::default();
        Self {
            name,
            extractor: Extractor::anchored(),
            verifier: MathVerifier::default(),
            missing,
            undecided,
        }
    }
}

/// The extracted answer of a completion and its comparison with the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judged {
    /// The answer that was compared; `None` if none was found.
    pub extracted: Option<Extracted>,
    /// The verdict and its reason. Without an answer, the verdict is [`Verdict::Different`].
    pub comparison: Comparison,
}

impl MathReward {
    /// Creates a reward with these settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the name is empty, a score is not finite, or [`Extractor::new`]
    /// or [`MathVerifier::new`] rejects its settings; their fields are named by path, such as
    /// `extract.rules`.
    pub fn new(config: MathRewardConfig) -> Result<Self> {
        if config.name.is_empty() {
            return Err(Error::config("name", "\"\"", "a name"));
        }
        let undecided = match config.undecided {
            Undecided::Score(score) => score,
            Undecided::Abstain => 0.0,
        };
        for (field, score) in [("missing", config.missing), ("undecided", undecided)] {
            if !score.is_finite() {
                return Err(Error::config(field, score, "a finite number"));
            }
        }
        Ok(Self {
            name: config.name,
            extractor: Extractor::new(config.extract)
                .map_err(|error| Error::from(error).within("extract"))?,
            verifier: MathVerifier::new(config.math)
                .map_err(|error| Error::from(error).within("math"))?,
            missing: config.missing,
            undecided: config.undecided,
        })
    }

    /// Sets [`MathConfig::require_evaluated`]. With `true`, `37+48` is not an answer to "37+48=".
    ///
    /// ```
    /// use rlvr::reward::{MathReward, Reward, RewardInput};
    ///
    /// let accuracy = MathReward::default().with_require_evaluated(true);
    /// let score = |completion| {
    ///     accuracy
    ///         .score(&RewardInput::new("37+48=", "85", completion))
    ///         .unwrap()
    /// };
    /// assert_eq!(score("\\boxed{85}"), Some(1.0));
    /// assert_eq!(score("\\boxed{37+48}"), Some(0.0));
    /// ```
    #[must_use]
    pub fn with_require_evaluated(mut self, required: bool) -> Self {
        self.verifier = self.verifier.with_require_evaluated(required);
        self
    }

    /// Returns the verifier that compares answers.
    pub fn verifier(&self) -> &MathVerifier {
        &self.verifier
    }

    /// Extracts the answer of a completion and compares it with the reference.
    ///
    /// # Errors
    /// Returns an error if the reference is unusable.
    pub fn judge(&self, reference: &str, completion: &str) -> Result<Judged, RewardError> {
        let extracted = self.extractor.extract(completion);
        let rule = extracted.as_ref().map(|found| found.rule);
        let reference = self.usable(reference, rule)?;
        let comparison = match &extracted {
            Some(answer) => self.verifier.compare(&reference, answer.all()),
            None => Comparison {
                verdict: Verdict::Different,
                reason: "no answer found".into(),
            },
        };
        Ok(Judged {
            extracted,
            comparison,
        })
    }

    /// The reference in the form of the extracted answer: its letter or its number if the rule
    /// extracts one.
    fn usable(&self, reference: &str, rule: Option<Rule>) -> Result<String, RewardError> {
        let reference = reference.trim();
        if reference.is_empty() {
            return Err("the reference `answer` is empty; expected the right answer".into());
        }
        // With a single rule, a reference that it cannot read is unusable for every completion.
        let only = match self.extractor.config().rules[..] {
            [rule] => Some(rule),
            _ => None,
        };
        let Some(rule @ (Rule::Mcq | Rule::LastNumber)) = only.or(rule) else {
            return Ok(reference.into());
        };
        match self.extractor.by_rule(rule, reference) {
            Some(read) => Ok(read),
            None if only.is_none() => Ok(reference.into()),
            None => {
                let what = if rule == Rule::Mcq {
                    "a choice"
                } else {
                    "a number"
                };
                Err(format!("the reference `answer` is {reference:?}; expected {what}").into())
            }
        }
    }
}

impl Reward for MathReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let judged = self.judge(input.answer(), input.completion())?;
        if judged.extracted.is_none() {
            return Ok(Some(self.missing));
        }
        Ok(match (judged.comparison.verdict, self.undecided) {
            (Verdict::Equal, _) => Some(1.0),
            (Verdict::Different, _) => Some(0.0),
            (Verdict::Undecided, Undecided::Score(score)) => Some(score),
            (Verdict::Undecided, Undecided::Abstain) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl Fn(&mut MathRewardConfig)) -> MathReward {
        let mut config = MathRewardConfig::default();
        change(&mut config);
        MathReward::new(config).unwrap()
    }

    fn score(reward: &MathReward, reference: &str, completion: &str) -> Option<f64> {
        let input = RewardInput::new("", reference, completion);
        reward.score(&input).unwrap()
    }

    #[test]
    fn equal_different_missing_and_undecided_answers_are_scored() {
        let default = MathReward::default();
        let hopeless = r"\boxed{9^{9^{9^9}}}";
        assert_eq!(score(&default, "2", r"\boxed{\sqrt{4}}"), Some(1.0));
        assert_eq!(score(&default, r"so $\boxed{2}$", r"\boxed{3}"), Some(0.0));
        assert_eq!(score(&default, "2", "2"), Some(0.0));
        assert_eq!(score(&default, "2", r"\boxed{}"), Some(0.0));
        assert_eq!(score(&default, "5", hopeless), Some(0.0));
        let reward = with(|config| {
            config.missing = -1.0;
            config.undecided = Undecided::Abstain;
            config.extract = ExtractConfig::default();
            config.math.precision = 2;
        });
        assert_eq!(
            score(&reward, "2", "no idea, so I will not tell"),
            Some(-1.0)
        );
        assert_eq!(score(&reward, "1/3", "0.33"), Some(1.0));
        assert_eq!(score(&reward, "5", hopeless), None);
        assert_eq!(
            score(
                &with(|c| c.undecided = Undecided::Score(0.5)),
                "5",
                hopeless
            ),
            Some(0.5)
        );
    }

    #[test]
    fn an_unevaluated_expression_is_wrong_if_evaluation_is_required() {
        let strict = MathReward::default().with_require_evaluated(true);
        let by_config = with(|config| config.math.require_evaluated = true);
        for reward in [&strict, &by_config] {
            assert_eq!(score(reward, "85", r"\boxed{37+48}"), Some(0.0));
            assert_eq!(score(reward, "85", r"\boxed{37+48=85}"), Some(1.0));
            assert_eq!(score(reward, "85", "The answer is 85."), Some(1.0));
        }
        let lenient = strict.with_require_evaluated(false);
        assert_eq!(score(&lenient, "85", r"\boxed{37+48}"), Some(1.0));
    }

    #[test]
    fn listing_every_candidate_is_wrong() {
        let default = MathReward::default();
        for shotgun in [
            r"\boxed{3} or \boxed{4} or \boxed{5}",
            r"\boxed{4}, \boxed{5}",
            "The answer is 3 or 4 or 5.",
            "Answer: 4 Answer: 5",
        ] {
            for gold in ["3", "4", "5"] {
                assert_eq!(
                    score(&default, gold, shotgun),
                    Some(0.0),
                    "{gold}: {shotgun}"
                );
            }
        }
        assert_eq!(
            score(&default, "4, 5", r"\boxed{5} and \boxed{4}"),
            Some(1.0)
        );
        assert_eq!(score(&default, "5", r"\boxed{4} no, \boxed{5}"), Some(1.0));
    }

    #[test]
    fn unusable_references_are_errors() {
        let message = |reward: &MathReward, reference: &str| {
            reward
                .judge(reference, r"\boxed{1}")
                .unwrap_err()
                .to_string()
        };
        assert!(message(&MathReward::default(), " ").contains("is empty"));
        let mcq = with(|config| config.extract = ExtractConfig::with_rules([Rule::Mcq]));
        assert!(message(&mcq, "twelve").contains("expected a choice"));
        assert_eq!(score(&mcq, "(D) Alina", "The answer is D."), Some(1.0));
        let number = with(|config| config.extract = ExtractConfig::with_rules([Rule::LastNumber]));
        assert!(message(&number, "twelve").contains("expected a number"));
        assert_eq!(score(&number, "1,22", "about 1.22 m"), Some(1.0));
    }

    #[test]
    fn configurations_are_deserialized_and_invalid_fields_are_named_by_path() {
        let text = r#"{"extract": {"rules": ["boxed"]}, "math": {"precision": 3}, "undecided": "abstain"}"#;
        let config: MathRewardConfig = serde_json::from_str(text).unwrap();
        assert_eq!(
            (config.math.precision, config.undecided),
            (3, Undecided::Abstain)
        );
        assert!(serde_json::from_str::<MathRewardConfig>(r#"{"precision": 3}"#).is_err());
        let message = |text: &str| {
            let config = serde_json::from_str(text).unwrap();
            MathReward::new(config).unwrap_err().to_string()
        };
        assert!(message(r#"{"extract": {"rules": []}}"#).starts_with("invalid `extract.rules`"));
        assert!(
            message(r#"{"math": {"precision": 1000}}"#).starts_with("invalid `math.precision`")
        );
        assert!(message(r#"{"name": ""}"#).starts_with("invalid `name`"));
        let nan = MathRewardConfig {
            missing: f64::NAN,
            ..MathRewardConfig::default()
        };
        assert!(
            MathReward::new(nan)
                .unwrap_err()
                .to_string()
                .starts_with("invalid `missing`")
        );
    }
}
