//! Problems of several sources, mixed by weights.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::Rng;
use serde_json::{Value, json};

use super::piecewise::Piecewise;
use super::problems::{Draw, ProblemSource};
use crate::random;
use crate::types::{Problem, RolloutGroup};
use crate::{Error, Result};

/// The domain separator of the random choice of a source.
const MIXTURE: u64 = u64::from_be_bytes(*b"mixture.");

/// A weighted mixture of problem sources: each problem is drawn from source `i` with probability
/// `w_i / sum(w)`, independent of the sizes of the sources.
///
/// Weights may follow a schedule: in DeepSeek-R1's last stage, general problems are added for the
/// last 400 of 1,700 steps. The source of a problem is a function of the seed, the number of
/// problems drawn before, and the step's weights. The state is that number and the states of the
/// sources.
///
/// ```
/// use rlvr::prelude::*;
/// use rlvr::train::{Mixture, Piecewise, ProblemSource, ShuffledProblems};
///
/// let set = |domain: &str| {
///     (0..100)
///         .map(|i| Problem::new(i.to_string(), "").with_domain(domain))
///         .collect::<Vec<_>>()
/// };
/// let source = |domain, seed| -> Result<Box<dyn ProblemSource>> {
///     Ok(Box::new(ShuffledProblems::new(set(domain), seed)?))
/// };
/// let mut mixture = Mixture::new(
///     0,
///     [
///         (2.0.into(), source("math", 1)?),
///         (1.0.into(), source("code", 2)?),
///         (
///             Piecewise::steps([(0, 0.0), (1300, 3.0)]),
///             source("general", 3)?,
///         ),
///     ],
/// )?;
/// let drawn = mixture.draw(90)?;
/// assert!(
///     drawn
///         .iter()
///         .all(|draw| draw.problem.domain() != Some("general"))
/// );
/// mixture.begin_step(1300);
/// assert!(
///     mixture
///         .draw(90)?
///         .iter()
///         .any(|draw| draw.problem.domain() == Some("general"))
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
pub struct Mixture {
    seed: u64,
    parts: Vec<Part>,
    /// The problems of all sources in turn; empty unless all are known.
    problems: Vec<Arc<Problem>>,
    position: u64,
    /// The step whose weights apply.
    step: u64,
}

struct Part {
    weight: Piecewise,
    source: Box<dyn ProblemSource>,
    /// The number of known problems in the parts before this one.
    offset: u64,
}

impl Mixture {
    /// Creates a mixture of sources with their weights. `seed` determines the random choices.
    ///
    /// # Errors
    /// Returns an error if there is no source, a weight is negative or not finite, or all weights
    /// are 0 in some step.
    pub fn new(
        seed: u64,
        parts: impl IntoIterator<Item = (Piecewise, Box<dyn ProblemSource>)>,
    ) -> Result<Self> {
        let mut known = true;
        let mut problems = Vec::new();
        let mut all = Vec::new();
        for (index, (weight, source)) in parts.into_iter().enumerate() {
            let field = format!("mixture[{index}].weight");
            weight.validate(&field, "a finite number of at least 0", |w| w >= 0.0)?;
            let offset = problems.len() as u64;
            known &= !source.problems().is_empty();
            problems.extend_from_slice(source.problems());
            all.push(Part {
                weight,
                source,
                offset,
            });
        }
        if all.is_empty() {
            return Err(Error::config("mixture", "[]", "at least one source"));
        }
        if !known {
            problems.clear();
        }
        let mixture = Self {
            seed,
            parts: all,
            problems,
            position: 0,
            step: 0,
        };
        // With nonnegative weights, a sum that is 0 between two knots is also 0 at the first of
        // them.
        let steps = mixture.parts.iter().flat_map(|part| part.weight.knots());
        let steps: BTreeSet<u64> = steps.chain([0]).collect();
        match steps
            .into_iter()
            .find(|&step| mixture.weights(step).1 <= 0.0)
        {
            Some(step) => Err(Error::config(
                "mixture",
                format!("all weights are 0 in step {step}"),
                "a weight above 0 in every step",
            )),
            None => Ok(mixture),
        }
    }

    /// Returns the weights of the sources in `step`, and their sum.
    fn weights(&self, step: u64) -> (Vec<f64>, f64) {
        let weights = self.parts.iter().map(|part| part.weight.at(step));
        let weights: Vec<f64> = weights.collect();
        let sum = weights.iter().sum();
        (weights, sum)
    }

    /// Returns the source of the problem at `position`.
    fn choose(&self, position: u64) -> usize {
        let (weights, sum) = self.weights(self.step);
        let mut rng = random::generator(&[self.seed, MIXTURE, position]);
        let uniform = (rng.next_u64() >> 11) as f64 * (-53f64).exp2();
        let mut left = uniform * sum;
        let mut chosen = 0;
        for (index, weight) in weights.into_iter().enumerate() {
            if weight > 0.0 {
                // Rounding may leave a residue after the last one.
                chosen = index;
                left -= weight;
                if left < 0.0 {
                    break;
                }
            }
        }
        chosen
    }
}

impl ProblemSource for Mixture {
    fn draw(&mut self, count: usize) -> Result<Vec<Draw>> {
        let mut draws = Vec::with_capacity(count);
        let parts = self.parts.len() as u64;
        for _ in 0..count {
            let chosen = self.choose(self.position);
            let part = &mut self.parts[chosen];
            let drawn = part.source.draw(1)?;
            self.position += 1;
            draws.extend(drawn.into_iter().map(|draw| Draw {
                // Problems of different sources get different indices.
                index: match self.problems.is_empty() {
                    true => draw.index.wrapping_mul(parts).wrapping_add(chosen as u64),
                    false => part.offset + draw.index,
                },
                ..draw
            }));
        }
        Ok(draws)
    }

    fn problems(&self) -> &[Arc<Problem>] {
        &self.problems
    }

    fn begin_step(&mut self, step: u64) {
        self.step = step;
        for part in &mut self.parts {
            part.source.begin_step(step);
        }
    }

    /// Passes each source the groups of its own problems. A source whose problems are unknown gets
    /// the groups that belong to no other source.
    fn observe(&mut self, groups: &[RolloutGroup]) {
        let owner = |group: &RolloutGroup| {
            let own = |part: &Part| part.source.problems().contains(&group.problem);
            self.parts.iter().position(own)
        };
        let owners: Vec<Option<usize>> = groups.iter().map(owner).collect();
        for (index, part) in self.parts.iter_mut().enumerate() {
            let unknown = part.source.problems().is_empty();
            let both = groups.iter().zip(&owners);
            let own = both.filter(|(_, owner)| owner.map_or(unknown, |owner| owner == index));
            let own: Vec<RolloutGroup> = own.map(|(group, _)| group.clone()).collect();
            if !own.is_empty() {
                part.source.observe(&own);
            }
        }
    }

    fn state(&self) -> Value {
        let sources = self.parts.iter().map(|part| part.source.state());
        json!({ "position": self.position, "sources": sources.collect::<Vec<_>>() })
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let position = state.get("position").and_then(Value::as_u64);
        let sources = state.get("sources").and_then(Value::as_array);
        let (Some(position), Some(sources)) = (
            position,
            sources.filter(|all| all.len() == self.parts.len()),
        ) else {
            let expected = format!("the state of a mixture of {} sources", self.parts.len());
            return Err(Error::config("problem source", state, expected));
        };
        let before: Vec<Value> = self.parts.iter().map(|part| part.source.state()).collect();
        let both = self.parts.iter_mut().zip(sources);
        let mut restored = both.map(|(part, state)| part.source.restore(state));
        if let Some(error) = restored.find_map(Result::err) {
            for (part, state) in self.parts.iter_mut().zip(&before) {
                part.source.restore(state)?;
            }
            return Err(error);
        }
        self.position = position;
        Ok(())
    }
}
