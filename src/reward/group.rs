//! Rewards that compare the completions of a group, or read the scores of other rewards.

use std::borrow::Cow;
use std::sync::Arc;

use super::{RewardError, RewardInput};

/// Scores all completions of a group at once.
///
/// A [`Reward`](super::Reward) reads one completion. A group reward reads all completions of one
/// problem, together with the scores that other rewards of the set gave them if it
/// [`reads`](Self::reads) these; it runs after those rewards. Otherwise the contract is that of
/// [`Reward`](super::Reward), applied to the group: a call has one time limit, and an error or a
/// panic is recorded for the whole group.
///
/// ```
/// use rlvr::reward::{
///     AccuracyReward, GroupInput, GroupReward, RewardError, RewardInput, RewardSet,
/// };
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
///     fn score_group(
///         &self,
///         group: &GroupInput,
///     ) -> Result<Vec<Option<f64>>, RewardError> {
///         let right: Vec<bool> = group
///             .scores("accuracy")?
///             .iter()
///             .map(|&score| score >= Some(1.0))
///             .collect();
///         let lengths = group.inputs().iter().map(|input| input.length());
///         let shortest = lengths
///             .clone()
///             .zip(&right)
///             .filter(|(_, right)| **right)
///             .map(|(length, _)| length)
///             .min();
///         let best = |(length, &right)| right && Some(length) == shortest;
///         Ok(lengths
///             .zip(&right)
///             .map(|one| Some(if best(one) { 1.0 } else { 0.0 }))
///             .collect())
///     }
/// }
///
/// let rewards = RewardSet::builder()
///     .add(1.0, AccuracyReward::new())
///     .add_group(0.5, Shortest)
///     .build()?;
/// let group = [
///     "<answer>4</answer>",
///     "<think>2+2</think><answer>4</answer>",
///     "4",
/// ];
/// let scored = rewards.score(
///     group
///         .map(|text| RewardInput::new("2+2=", "4", text))
///         .to_vec(),
/// );
/// let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
/// assert_eq!(totals, [Some(1.5), Some(1.0), Some(0.0)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait GroupReward: Send + Sync + 'static {
    /// Returns the name under which scores are recorded. It is unique in a set and the same on
    /// every call.
    fn name(&self) -> &str;

    /// Returns the names of the rewards whose scores it reads, all of which must be in the set.
    /// Default: none.
    fn reads(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Scores a group and returns one result for each input, in order: a finite number, or `None`
    /// to abstain.
    ///
    /// # Errors
    /// Returns an error if the reward cannot score this group.
    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError>;

    /// Checks the settings. [`RewardSetBuilder::build`](super::RewardSetBuilder::build) calls it.
    /// The default accepts them.
    ///
    /// # Errors
    /// Returns [`Error::Config`](crate::Error::Config), which names the field, if a setting is
    /// invalid.
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
    /// One for each input.
    scores: Cow<'a, [Option<f64>]>,
}

impl<'a> GroupInput<'a> {
    /// Creates a group without scores.
    ///
    /// ```
    /// use rlvr::reward::{GroupInput, RewardInput};
    ///
    /// let inputs = ["4", "5"].map(|text| RewardInput::new("2+2=", "4", text));
    /// let group =
    ///     GroupInput::new(&inputs).with_scores("accuracy", vec![Some(1.0), Some(0.0)]);
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

    /// Adds the score of each input by the reward called `name`.
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

    /// Returns the completions.
    pub fn inputs(&self) -> &[&'a RewardInput] {
        &self.inputs
    }

    /// Returns the score of each input by the reward called `name`, before its weight; `None` if
    /// the reward abstained, failed, or did not run.
    ///
    /// # Errors
    /// Returns an error if [`GroupReward::reads`] does not name the reward, or if the number of
    /// scores is not that of the inputs.
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
    fn a_wrong_number_of_scores_is_an_error() {
        let inputs = [RewardInput::new("", "", "")];
        let group = GroupInput::new(&inputs).with_scores("accuracy", vec![None, Some(1.0)]);
        let error = group.scores("accuracy").unwrap_err().to_string();
        assert_eq!(error, "2 scores of `accuracy` for 1 inputs");
        let error = group.scores("format").unwrap_err().to_string();
        assert!(error.starts_with("no scores of `format`"), "{error}");
    }

    #[test]
    fn arc_and_box_forward_to_the_group_reward() {
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
