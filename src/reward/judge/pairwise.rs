//! Pairwise comparisons of completions.

use std::fmt;

use super::Judge;
use super::ask::ask;
use super::grade::{View, check, reference};
use super::question;
use crate::reward::setters::with_name;
use crate::reward::{GroupInput, GroupReward, RewardError};
use crate::{Error, Result};

/// The preference of a judge between two responses, asked in both orders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preference {
    /// How much better the first response is, from -2 (much worse) to 2 (much better): the mean
    /// over votes and orders.
    pub first: f64,
    /// How much better the response that is shown first was found, from -2 to 2: the mean over
    /// votes and orders. It is 0 for a judge that ignores the order.
    pub position_bias: f64,
}

/// Scores how much better a completion is than the others of its group, according to a judge.
///
/// ```text
/// reward_i = mean over the opponents j of (p_ij + 2) / 4
/// p_ij = mean over votes and over both orders of the verdict:
///        2 much better, 1 better, 0 equal, -1, -2
/// ```
///
/// Each pair is judged in both orders equally often, since judges favour a position. The score is 1
/// for a completion that is much better than all others, and 1/2 for one that is equally good.
/// Completions with equal text are equal without being judged. With n completions,
/// `n (n - 1) votes` questions are asked; [`with_opponents`](Self::with_opponents) reduces the
/// number. DeepSeek-R1 built the training data of its helpful reward model from such verdicts
/// (arXiv 2501.12948, supplement); use [`compare`](Self::compare) to filter pairs.
///
/// In a group of one the reward abstains. A comparison without a verdict is left out of the mean.
///
/// ```
/// use rlvr::reward::RewardError;
/// use rlvr::reward::judge::{Judge, PairwiseReward};
///
/// /// Always prefers the response that is shown first.
/// struct Biased;
///
/// impl Judge for Biased {
///     fn describe(&self) -> String {
///         "biased".into()
///     }
///
///     fn answer(&self, _question: &str, _seed: u64) -> Result<String, RewardError> {
///         Ok("Verdict: A>>B".into())
///     }
/// }
///
/// let reward = PairwiseReward::new(Biased, "A good response is right.");
/// let preference = reward.compare("2+2=", Some("4"), "4", "5")?;
/// assert_eq!((preference.first, preference.position_bias), (0.0, 2.0));
/// # Ok::<(), RewardError>(())
/// ```
///
/// # Errors
/// [`score_group`](GroupReward::score_group) returns an error if a completion has no comparison.
pub struct PairwiseReward<J> {
    name: String,
    judge: J,
    rubric: String,
    votes: u64,
    opponents: Option<usize>,
    reference: bool,
    view: View,
}

/// Two responses to the same prompt.
struct Pair<'a> {
    prompt: &'a str,
    reference: Option<&'a str>,
    first: &'a str,
    second: &'a str,
}

impl<J: Judge> PairwiseReward<J> {
    /// Creates the reward `pairwise`: all pairs, one vote in each order.
    pub fn new(judge: J, rubric: impl Into<String>) -> Self {
        Self {
            name: "pairwise".into(),
            judge,
            rubric: rubric.into(),
            votes: 1,
            opponents: None,
            reference: true,
            view: Box::new(str::to_string),
        }
    }

    with_name!();

    /// Sets the number of votes per pair and order, each with its own seed, 1 to 65536. Default: 1.
    #[must_use]
    pub fn with_votes(mut self, votes: u64) -> Self {
        self.votes = votes;
        self
    }

    /// Sets the number of following completions with which each one is compared, in a circle, at
    /// least 1; it meets as many preceding ones. Default: all.
    #[must_use]
    pub fn with_opponents(mut self, opponents: usize) -> Self {
        self.opponents = Some(opponents);
        self
    }

    with_view!();

    /// Compares two responses to `prompt`, with or without a reference answer. The responses are
    /// shown unchanged.
    ///
    /// # Errors
    /// Returns an error if the judge fails, or if one of its votes has no verdict.
    pub fn compare(
        &self,
        prompt: &str,
        reference: Option<&str>,
        first: &str,
        second: &str,
    ) -> Result<Preference, RewardError> {
        let pair = Pair {
            prompt,
            reference,
            first,
            second,
        };
        let mut found = self.compare_all(&[pair]);
        found
            .pop()
            .unwrap_or_else(|| Err("nothing was compared".into()))
    }

    fn compare_all(&self, pairs: &[Pair]) -> Vec<Result<Preference, RewardError>> {
        let mut questions = Vec::new();
        for pair in pairs {
            for (a, b) in [(pair.first, pair.second), (pair.second, pair.first)] {
                let asked = question::comparison(&self.rubric, pair.prompt, pair.reference, a, b);
                questions.extend((0..self.votes).map(|vote| (asked.clone(), vote)));
            }
        }
        let mut verdicts = ask(&self.judge, questions, question::read_comparison).into_iter();
        let mut mean = || -> Result<f64, RewardError> {
            let votes: Vec<_> = verdicts.by_ref().take(self.votes as usize).collect();
            let votes: Vec<f64> = votes.into_iter().collect::<Result<_, _>>()?;
            Ok(votes.iter().sum::<f64>() / votes.len() as f64)
        };
        let preference = |_| -> Result<Preference, RewardError> {
            let (forward, backward) = (mean(), mean());
            let (forward, backward) = (forward?, backward?);
            Ok(Preference {
                first: (forward - backward) / 2.0,
                position_bias: (forward + backward) / 2.0,
            })
        };
        pairs.iter().map(preference).collect()
    }

    /// The indices of the pairs to compare in a group of `count`.
    fn meetings(&self, count: usize) -> Vec<(usize, usize)> {
        let all = count.saturating_sub(1);
        // Beyond half of the circle, all pairs are known.
        let reach = self.opponents.unwrap_or(all).min(count / 2);
        let mut meetings = Vec::new();
        for step in 1..=reach {
            // At half of the circle, each pair occurs twice.
            let starts = if 2 * step == count { step } else { count };
            meetings.extend((0..starts).map(|at| (at, (at + step) % count)));
        }
        meetings
    }
}

impl<J: Judge> GroupReward for PairwiseReward<J> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
        let inputs = group.inputs();
        if inputs.len() < 2 {
            return Ok(vec![None; inputs.len()]);
        }
        let texts: Vec<String> = inputs
            .iter()
            .map(|one| (self.view)(one.completion()))
            .collect();
        let meetings = self.meetings(texts.len());
        let differ = |&&(a, b): &&(usize, usize)| texts[a] != texts[b];
        let pairs: Vec<Pair> = meetings
            .iter()
            .filter(differ)
            .map(|&(a, b)| Pair {
                prompt: inputs[a].prompt(),
                reference: reference(self.reference, inputs[a]),
                first: &texts[a],
                second: &texts[b],
            })
            .collect();
        let mut found = self.compare_all(&pairs).into_iter();
        let mut sums = vec![(0.0, 0usize); texts.len()];
        let mut failure = None;
        for meeting in &meetings {
            let preference = match differ(&meeting) {
                true => found
                    .next()
                    .map(|one| one.map(|preference| preference.first)),
                false => Some(Ok(0.0)),
            };
            match preference {
                Some(Ok(first)) => {
                    for (place, preference) in [(meeting.0, first), (meeting.1, -first)] {
                        let (sum, count) = sums[place];
                        sums[place] = (sum + (preference + 2.0) / 4.0, count + 1);
                    }
                }
                Some(Err(error)) => failure = Some(error),
                None => {}
            }
        }
        match (sums.iter().all(|(_, count)| *count > 0), failure) {
            (true, _) => Ok(sums
                .iter()
                .map(|(sum, count)| Some(sum / *count as f64))
                .collect()),
            (false, Some(error)) => Err(error),
            (false, None) => Err("a completion was not compared".into()),
        }
    }

    fn validate(&self) -> Result<()> {
        check(&self.rubric, self.votes)?;
        match self.opponents {
            Some(0) => Err(Error::config("opponents", 0, "1 or more")),
            _ => Ok(()),
        }
    }
}

impl<J: Judge> fmt::Debug for PairwiseReward<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairwiseReward")
            .field("name", &self.name)
            .field("judge", &self.judge.describe())
            .field("votes", &self.votes)
            .field("opponents", &self.opponents)
            .finish_non_exhaustive()
    }
}
