//! A penalty for repeated n-grams.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::reward::setters::with_name;
use crate::reward::tasks::is_python_space;
use crate::reward::{Reward, RewardError, RewardInput};
use crate::{Error, Result};

/// The unit of n-grams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepetitionUnit {
    /// Words separated by whitespace, in lower case, as in open-r1. The default.
    #[default]
    Words,
    /// Characters, in lower case, without whitespace, for languages that are written without spaces
    /// between words.
    Characters,
    /// Sampled tokens, including the stop token, as in TRL.
    Tokens,
}

/// Returns the share of the n-grams of `units` that repeat an earlier one, `1 - unique / total`; 0
/// if there are none.
///
/// Time and memory are proportional to `n` times the number of units.
fn repeated_share<T: Hash + Eq>(units: &[T], n: usize) -> f64 {
    if n == 0 || units.len() < n {
        return 0.0;
    }
    let total = units.len() - n + 1;
    let unique: HashSet<&[T]> = units.windows(n).collect();
    // Not computed as `1 - unique / total`, which rounds twice.
    (total - unique.len()) as f64 / total as f64
}

/// A penalty for repeated n-grams: 0 at best.
///
/// ```text
/// reward = (1 - unique / total) * max_penalty
///          over the n-grams of the completion; 0 if it has fewer than n units
/// ```
///
/// With [`RepetitionUnit::Words`] this is `repetition_penalty` of open-r1, with
/// [`RepetitionUnit::Tokens`] that of TRL. Both use n = 3 and a penalty of -1. For `language="zh"`,
/// open-r1 splits Chinese into words with a dictionary; [`RepetitionUnit::Characters`] needs none.
///
/// Sources: Yeo et al., Demystifying Long Chain-of-Thought Reasoning (arXiv 2502.03373), appendix
/// C.2, where it is subtracted at the repeated tokens instead of once; huggingface/open-r1,
/// `src/open_r1/rewards.py`; huggingface/trl, `trl/rewards`.
///
/// ```
/// use rlvr::reward::{RepetitionReward, RepetitionUnit, Reward, RewardInput};
///
/// let words = RepetitionReward::new(2, -1.0)?;
/// let score = |completion| {
///     words
///         .score(&RewardInput::new("", "", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score("so so so so so"), -0.75);
/// assert_eq!(score("A wait, a b"), 0.0);
///
/// let tokens = RepetitionReward::new(2, -1.0)?.with_unit(RepetitionUnit::Tokens);
/// let input = RewardInput::new("", "", "so so so").with_tokens(vec![7, 7, 7]);
/// assert_eq!(tokens.score(&input).unwrap(), Some(-0.5));
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RepetitionReward {
    name: String,
    n: usize,
    max_penalty: f64,
    unit: RepetitionUnit,
}

impl RepetitionReward {
    /// Creates the reward `repetition`, over the n-grams of `n` words.
    ///
    /// # Errors
    /// Returns [`Error::Config`] unless `n` is at least 1 and `max_penalty` is finite and at most
    /// 0.
    pub fn new(n: usize, max_penalty: f64) -> Result<Self> {
        if n == 0 {
            return Err(Error::config("n", 0, "1 or more"));
        }
        if !(max_penalty.is_finite() && max_penalty <= 0.0) {
            return Err(Error::config(
                "max_penalty",
                max_penalty,
                "a finite number, at most 0",
            ));
        }
        Ok(Self {
            name: "repetition".into(),
            n,
            max_penalty,
            unit: RepetitionUnit::default(),
        })
    }

    with_name!();

    /// Sets the unit of the n-grams. Default: words.
    #[must_use]
    pub fn with_unit(mut self, unit: RepetitionUnit) -> Self {
        self.unit = unit;
        self
    }
}

/// Maps each word to a number, so that a word is hashed once and not `n` times.
fn word_numbers(text: &str) -> Vec<usize> {
    let mut numbers = HashMap::new();
    text.split(is_python_space)
        .filter(|word| !word.is_empty())
        .map(|word| {
            let next = numbers.len();
            *numbers.entry(word).or_insert(next)
        })
        .collect()
}

impl Reward for RepetitionReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let share = match self.unit {
            RepetitionUnit::Words => {
                repeated_share(&word_numbers(&input.completion().to_lowercase()), self.n)
            }
            RepetitionUnit::Characters => {
                let lower = input.completion().to_lowercase();
                let characters: Vec<char> =
                    lower.chars().filter(|&c| !is_python_space(c)).collect();
                repeated_share(&characters, self.n)
            }
            RepetitionUnit::Tokens => {
                let rollout = &input.rollout;
                let tokens: Vec<u32> = rollout.trained(&rollout.tokens).copied().collect();
                repeated_share(&tokens, self.n)
            }
        };
        // Adding 0 turns -0 into 0.
        Ok(Some(share * self.max_penalty + 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Rollout;
    use proptest::prelude::*;

    fn score(reward: &RepetitionReward, completion: &str) -> f64 {
        let input = RewardInput::new("", "", completion);
        reward.score(&input).unwrap().unwrap()
    }

    #[test]
    fn words_are_split_as_in_python() {
        let one = RepetitionReward::new(1, -1.0).unwrap();
        for (text, expected) in [
            ("a\u{1c}A\u{a0}a\u{3000}a", -0.75),
            ("a a, (a) A", -0.25),
            ("\u{200b}a a", 0.0),
            ("ΑΣ ας", -0.5),
            ("  ", 0.0),
        ] {
            assert_eq!(score(&one, text), expected, "{text:?}");
        }
        assert!(score(&one, "a b").is_sign_positive());
    }

    #[test]
    fn units_can_be_characters_or_tokens() {
        let characters = RepetitionReward::new(2, -1.0)
            .unwrap()
            .with_unit(RepetitionUnit::Characters);
        assert_eq!(score(&characters, "好 的好\n的"), -1.0 / 3.0);
        let tokens = characters
            .with_unit(RepetitionUnit::Tokens)
            .with_name("loops");
        assert_eq!(tokens.name(), "loops");
        let repeated = RewardInput::new("", "", "").with_tokens(vec![7, 8, 7, 8, 7]);
        assert_eq!(tokens.score(&repeated).unwrap(), Some(-0.5));
        // Tokens that the policy did not sample are not counted.
        let mut reply = Rollout::new(vec![7, 8, 7, 8], vec![0.0; 4], "");
        reply.mask = vec![true, true, false, false];
        let reply = RewardInput {
            rollout: reply.into(),
            ..repeated
        };
        assert_eq!(tokens.score(&reply).unwrap(), Some(0.0));
        let nothing = RewardInput::new("", "", "").with_tokens(vec![]);
        assert_eq!(tokens.score(&nothing).unwrap(), Some(0.0));
    }

    #[test]
    fn invalid_penalties_are_rejected() {
        for (n, penalty, start) in [
            (0, -1.0, "invalid `n`: 0"),
            (3, 0.1, "invalid `max_penalty`: 0.1"),
            (3, f64::NAN, "invalid `max_penalty`: NaN"),
            (3, f64::NEG_INFINITY, "invalid `max_penalty`: -inf"),
        ] {
            let error = RepetitionReward::new(n, penalty).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_counting_repeats(units in prop::collection::vec(0u8..4, 0..30), n in 1usize..5) {
            let grams: Vec<Vec<u8>> = (0..(units.len() + 1).saturating_sub(n)).map(|i| units[i..i + n].to_vec()).collect();
            let repeats = (0..grams.len()).filter(|&i| grams[..i].contains(&grams[i])).count();
            let expected = if grams.is_empty() { 0.0 } else { repeats as f64 / grams.len() as f64 };
            prop_assert!((repeated_share(&units, n) - expected).abs() < 1e-12);
        }
    }
}
