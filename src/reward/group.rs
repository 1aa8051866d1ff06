//! Rewards that compare the completions of a group, or read the scores of other rewards.

use std::borrow::Cow;
use std::sync::Arc;

use super::{RewardError, RewardInput};

/// A rule that says how good each completion of a group is, compared with the others.
///
/// A [`Reward`](super::Reward) sees one completion. This one sees all completions of one problem, and the scores that other
/// rewards of the set have given them, if it [`reads`](Self::reads) them: it runs after those. Otherwise the contract is that of
/// [`Reward`](super::Reward), with the group in place of the completion: one call has one time limit, and an error or a panic
/// is recorded for all of the group.
///
/// ```
/// use rlvr::reward::{AccuracyReward, GroupInput, GroupReward, RewardError, RewardInput, RewardSet};
///
/// /// 1 for the shortest right answers of a group.
/// struct Shortest;
///
/// impl GroupReward for Shortest {
///     fn name(&self) -> &str {
///         "shortest"
///     }
///
///     fn reads(&self) -> Vec<&str> {
///         vec!["accuracy"]
///     }
///
///     fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
///         let right: Vec<bool> = group.scores("accuracy")?.iter().map(|&score| score >= Some(1.0)).collect();
///         let lengths = group.inputs().iter().map(|input| input.length());
///         let shortest = lengths.clone().zip(&right).filter(|(_, right)| **right).map(|(length, _)| length).min();
///         let best = |(length, &right)| right && Some(length) == shortest;
///         Ok(lengths.zip(&right).map(|one| Some(if best(one) { 1.0 } else { 0.0 })).collect())
///     }
/// }
///
/// let rewards = RewardSet::builder()
///     .add(1.0, AccuracyReward::new())
///     .add_group(0.5, Shortest)
///     .build()?;
/// let group = ["<answer>4</answer>", "<think>2+2</think><answer>4</answer>", "4"];
/// let scored = rewards.score(group.map(|text| RewardInput::new("2+2=", "4", text)).to_vec());
/// let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
/// assert_eq!(totals, [Some(1.5), Some(1.0), Some(0.0)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait GroupReward: Send + Sync + 'static {
    /// The name under which scores are recorded; unique in a set, the same on every call.
    fn name(&self) -> &str;

    /// The names of the rewards whose scores it reads. A set must have all of them. Default: none.
    fn reads(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Scores a group, in the order of its inputs, one result for each: a finite number, or `None` to abstain.
    ///
    /// # Errors
    /// If the reward could not do its work on this group.
    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError>;

    /// Rejects invalid settings. [`RewardSetBuilder::build`](super::RewardSetBuilder::build) calls it. Default: all are valid.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field.
    fn validate(&self) -> crate::Result<()> {
        Ok(())
    }
}

impl<R: GroupReward + ?Sized> GroupReward for Arc<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn reads(&self) -> Vec<&str> {
        (**self).reads()
    }

    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
        (**self).score_group(group)
    }

    fn validate(&self) -> crate::Result<()> {
        (**self).validate()
    }
}

impl<R: GroupReward + ?Sized> GroupReward for Box<R> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn reads(&self) -> Vec<&str> {
        (**self).reads()
    }

    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
        (**self).score_group(group)
    }

    fn validate(&self) -> crate::Result<()> {
        (**self).validate()
    }
}

/// The completions of a group and the scores that other rewards gave them.
#[derive(Clone, Debug)]
pub struct GroupInput<'a> {
    inputs: Vec<&'a RewardInput>,
    scores: Vec<Scores<'a>>,
}

/// The scores of one reward.
#[derive(Clone, Debug)]
struct Scores<'a> {
    name: Cow<'a, str>,
    /// By input.
    scores: Cow<'a, [Option<f64>]>,
}

impl<'a> GroupInput<'a> {
    /// A group without scores.
    ///
    /// ```
    /// use rlvr::reward::{GroupInput, RewardInput};
    ///
    /// let inputs = ["4", "5"].map(|text| RewardInput::new("2+2=", "4", text));
    /// let group = GroupInput::new(&inputs).with_scores("accuracy", vec![Some(1.0), Some(0.0)]);
    /// assert_eq!(group.inputs()[1].completion(), "5");
    /// assert_eq!(group.scores("accuracy")?[0], Some(1.0));
    /// assert!(group.scores("format").is_err());
    /// # Ok::<(), rlvr::reward::RewardError>(())
    /// ```
    pub fn new(inputs: impl IntoIterator<Item = &'a RewardInput>) -> Self {
        Self {
            inputs: inputs.into_iter().collect(),
            scores: Vec::new(),
        }
    }

    /// The same group with the scores of each input by the reward called `name`.
    #[must_use]
    pub fn with_scores(
        mut self,
        name: impl Into<Cow<'a, str>>,
        scores: impl Into<Cow<'a, [Option<f64>]>>,
    ) -> Self {
        let (name, scores) = (name.into(), scores.into());
        self.scores.push(Scores { name, scores });
        self
    }

    /// The completions.
    pub fn inputs(&self) -> &[&'a RewardInput] {
        &self.inputs
    }

    /// The score of each input by the reward called `name`, before its weight; `None` where it gave no number: it abstained,
    /// failed, or was not run.
    ///
    /// # Errors
    /// If the scores are not there, since [`GroupReward::reads`] does not name the reward, or are not one for each input.
    pub fn scores(&self, name: &str) -> Result<&[Option<f64>], RewardError> {
        let found = self.scores.iter().find(|known| known.name == name);
        let Some(Scores { scores, .. }) = found else {
            let message =
                format!("no scores of `{name}`: `reads` of the group reward must name it");
            return Err(message.into());
        };
        if scores.len() != self.inputs.len() {
            let (got, wanted) = (scores.len(), self.inputs.len());
            return Err(format!("{got} scores of `{name}` for {wanted} inputs").into());
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_do_not_fit_the_inputs_are_an_error() {
        let inputs = [RewardInput::new("", "", "")];
        let group = GroupInput::new(&inputs).with_scores("accuracy", vec![None, Some(1.0)]);
        let error = group.scores("accuracy").unwrap_err().to_string();
        assert_eq!(error, "2 scores of `accuracy` for 1 inputs");
        let error = group.scores("format").unwrap_err().to_string();
        assert!(error.starts_with("no scores of `format`"), "{error}");
    }

    #[test]
    fn shared_and_boxed_group_rewards_are_group_rewards() {
        struct Rank;
        impl GroupReward for Rank {
            fn name(&self) -> &str {
                "rank"
            }
            fn reads(&self) -> Vec<&str> {
                vec!["a"]
            }
            fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
                Ok((0..group.inputs().len()).map(|i| Some(i as f64)).collect())
            }
        }
        let shared: Arc<dyn GroupReward> = Arc::new(Rank);
        let boxed: Box<dyn GroupReward> = Box::new(shared);
        assert_eq!(
            (GroupReward::name(&boxed), boxed.reads()),
            ("rank", vec!["a"])
        );
        let inputs = [RewardInput::new("", "", ""), RewardInput::new("", "", "")];
        let scores = boxed.score_group(&GroupInput::new(&inputs)).unwrap();
        assert_eq!(scores, [Some(0.0), Some(1.0)]);
    }
}
