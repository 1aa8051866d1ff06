//! Problem sources, which choose the problems of each step.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::prompt::ProblemOrder;
use crate::types::{Problem, RolloutGroup};
use crate::{Error, Result};

/// A problem drawn for a step, with the address of its randomness.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// The problem.
    pub problem: Arc<Problem>,
    /// The index of the problem in its source.
    pub index: u64,
    /// The number of times the source has drawn this problem before. With `index` it is the address
    /// of the completions' randomness within a step, so a problem that is drawn twice in a step
    /// gets different completions.
    pub epoch: u64,
}

/// Chooses the problems of each step, such as a shuffled order, a curriculum or a stream.
///
/// The state of a source is part of a checkpoint, and is restored after a failed step. After
/// [`restore`](Self::restore) the source must draw the same problems as it did after the call of
/// [`state`](Self::state). Its randomness should therefore be a function of a seed and its state,
/// for example with [`random::generator`](crate::random::generator).
///
/// ```
/// use rlvr::train::{Draw, ProblemSource};
/// use rlvr::types::Problem;
/// use serde_json::{Value, json};
/// use std::sync::Arc;
///
/// /// An endless stream of sums: 1+1, 2+2, ...
/// struct Doubles(u64);
///
/// impl ProblemSource for Doubles {
///     fn draw(&mut self, count: usize) -> rlvr::Result<Vec<Draw>> {
///         let draw = |index: u64| Draw {
///             problem: Arc::new(Problem::new(
///                 format!("{index}+{index}="),
///                 (2 * index).to_string(),
///             )),
///             index,
///             epoch: 0,
///         };
///         let first = self.0;
///         self.0 += count as u64;
///         Ok((first..self.0).map(draw).collect())
///     }
///
///     fn state(&self) -> Value {
///         json!(self.0)
///     }
///
///     fn restore(&mut self, state: &Value) -> rlvr::Result<()> {
///         let position = state.as_u64();
///         self.0 = position
///             .ok_or_else(|| rlvr::Error::config("state", state, "a position"))?;
///         Ok(())
///     }
/// }
///
/// let mut source = Doubles(1);
/// assert_eq!(source.draw(3)?[2].problem.answer, "6");
/// # Ok::<(), rlvr::Error>(())
/// ```
#[doc(alias("DataLoader", "Dataset"))]
pub trait ProblemSource: Send {
    /// Draws the next `count` problems.
    ///
    /// # Errors
    /// Returns an error if there are none.
    fn draw(&mut self, count: usize) -> Result<Vec<Draw>>;

    /// Returns every problem that may be drawn, in the order of [`Draw::index`], if they are known.
    /// They are checked when the trainer is built, and a checkpoint can only be loaded by a trainer
    /// with the same problems. Default: empty, for unknown problems.
    fn problems(&self) -> &[Arc<Problem>] {
        &[]
    }

    /// Called before the problems of step `step`, counted from 0, are drawn; possibly more than
    /// once for the same step. Default: does nothing.
    fn begin_step(&mut self, step: u64) {
        let _ = step;
    }

    /// Called with the scored groups of each round, including those that dynamic sampling drops. A
    /// curriculum can adapt to what the policy solves. Default: does nothing.
    fn observe(&mut self, groups: &[RolloutGroup]) {
        let _ = groups;
    }

    /// Returns the state of this source for a checkpoint.
    fn state(&self) -> Value;

    /// Restores a state that [`state`](Self::state) returned.
    ///
    /// # Errors
    /// Returns an error if `state` is not a state of this source.
    fn restore(&mut self, state: &Value) -> Result<()>;
}

/// All problems in a new random order in each epoch: the default source.
///
/// See [`ProblemOrder`] for the order. The state is the number of problems drawn so far.
#[derive(Clone, Debug)]
pub struct ShuffledProblems {
    problems: Vec<Arc<Problem>>,
    order: ProblemOrder,
    position: u64,
}

impl ShuffledProblems {
    /// Creates an endless stream of `problems`, whose order is a function of `seed`.
    ///
    /// # Errors
    /// Returns an error if there is no problem.
    pub fn new(problems: impl IntoIterator<Item = Problem>, seed: u64) -> Result<Self> {
        let problems: Vec<_> = problems.into_iter().map(Arc::new).collect();
        if problems.is_empty() {
            return Err(Error::config("problems", "none", "at least one problem"));
        }
        Ok(Self {
            order: ProblemOrder::new(problems.len(), seed)?,
            problems,
            position: 0,
        })
    }
}

impl ProblemSource for ShuffledProblems {
    fn draw(&mut self, count: usize) -> Result<Vec<Draw>> {
        let indices = self.order.indices(self.position, count);
        let draws = indices.into_iter().enumerate().map(|(offset, index)| Draw {
            problem: self.problems[index].clone(),
            index: index as u64,
            epoch: (self.position + offset as u64) / self.problems.len() as u64,
        });
        let draws = draws.collect();
        self.position += count as u64;
        Ok(draws)
    }

    fn problems(&self) -> &[Arc<Problem>] {
        &self.problems
    }

    fn state(&self) -> Value {
        json!({ "position": self.position })
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let position = state.get("position").and_then(Value::as_u64);
        self.position = position
            .ok_or_else(|| Error::config("problem source", state, "an object with a `position`"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_source_draws_the_same_problems() {
        let problems = ["a", "b", "c"].map(|prompt| Problem::new(prompt, ""));
        let mut source = ShuffledProblems::new(problems, 3).unwrap();
        source.draw(2).unwrap();
        let state = source.state();
        let first = source.draw(5).unwrap();
        source.restore(&state).unwrap();
        assert_eq!(source.draw(5).unwrap(), first);
        // The same problem has a different address in each epoch.
        let mut addresses: Vec<_> = first.iter().map(|draw| (draw.epoch, draw.index)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
        assert!(source.restore(&Value::Null).is_err());
        assert!(ShuffledProblems::new([], 0).is_err());
    }
}
