//! Where the problems of a step come from.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::prompt::ProblemOrder;
use crate::types::{Problem, RolloutGroup};
use crate::{Error, Result};

/// A problem that was drawn for a step, with the place of its randomness.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    /// The problem.
    pub problem: Arc<Problem>,
    /// Which of the source's problems it is.
    pub index: u64,
    /// How often the source has drawn this problem before. Together with `index` it is the address of the completions'
    /// randomness within a step, so a problem that is drawn twice in a step gets other completions.
    pub epoch: u64,
}

/// Chooses the problems of each step: an order, a curriculum, a stream.
///
/// The state of a source is part of a checkpoint, and a step that fails is undone with it: after
/// [`restore`](Self::restore) the source must draw what it drew after [`state`](Self::state) was taken. Everything random in it
/// should therefore be a function of a seed and its state; [`random::generator`](crate::random::generator) helps.
#[doc(alias("DataLoader", "Dataset"))]
pub trait ProblemSource: Send {
    /// The next `count` problems.
    ///
    /// # Errors
    /// If there are none.
    fn draw(&mut self, count: usize) -> Result<Vec<Draw>>;

    /// Every problem that may be drawn, in the order of [`Draw::index`], where that is known. They are checked when the trainer
    /// is built, and a checkpoint is loaded only by a trainer with the same ones. Default: none are known.
    fn problems(&self) -> &[Arc<Problem>] {
        &[]
    }

    /// Called before the problems of the step that `step` steps precede are drawn; it may be called again for the same step. Default:
    /// the step is irrelevant.
    fn begin_step(&mut self, step: u64) {
        let _ = step;
    }

    /// Called with the scored groups of each round, those that dynamic sampling drops included. A curriculum learns from them
    /// what the policy can solve. Default: ignores them.
    fn observe(&mut self, groups: &[RolloutGroup]) {
        let _ = groups;
    }

    /// What a checkpoint has to hold of this source.
    fn state(&self) -> Value;

    /// Goes back to a state that [`state`](Self::state) gave.
    ///
    /// # Errors
    /// If `state` is not one of this source.
    fn restore(&mut self, state: &Value) -> Result<()>;
}

/// All problems in a random order, a new one in each epoch: the default source.
///
/// See [`ProblemOrder`] for the order. Its state is the number of problems drawn so far.
#[derive(Clone, Debug)]
pub struct ShuffledProblems {
    problems: Vec<Arc<Problem>>,
    order: ProblemOrder,
    position: u64,
}

impl ShuffledProblems {
    /// An endless stream of `problems`, whose order is a function of `seed`.
    ///
    /// # Errors
    /// If there is no problem.
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
    fn it_draws_what_it_drew_before_a_restore() {
        let problems = ["a", "b", "c"].map(|prompt| Problem::new(prompt, ""));
        let mut source = ShuffledProblems::new(problems, 3).unwrap();
        source.draw(2).unwrap();
        let state = source.state();
        let first = source.draw(5).unwrap();
        source.restore(&state).unwrap();
        assert_eq!(source.draw(5).unwrap(), first);
        // The same problem in two epochs has two addresses.
        let mut addresses: Vec<_> = first.iter().map(|draw| (draw.epoch, draw.index)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
        assert!(source.restore(&Value::Null).is_err());
        assert!(ShuffledProblems::new([], 0).is_err());
    }
}
