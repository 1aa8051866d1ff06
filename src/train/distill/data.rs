//! The data of a distillation: problems and demonstrations.

use std::sync::Arc;

use super::config::DistillConfig;
use crate::prompt::{Problem, ProblemOrder, Tokenizer};
use crate::rollout::{RolloutBuffer, RolloutGroup, RolloutRequest, check_prompts};
use crate::train::{Demonstration, SftExample};
use crate::{Error, Result};

/// The domain separator of the random streams.
const DISTILL: u64 = u64::from_be_bytes(*b"distill.");

/// The texts on which a student learns its teacher's distributions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DistillData {
    /// Problems for which the student generates completions; their reference answers are not used.
    pub problems: Vec<Problem>,
    /// Prompts with given responses, of the teacher or of another source. The student learns the
    /// teacher's distribution at each of their tokens.
    pub demonstrations: Vec<Demonstration>,
}

impl DistillData {
    /// Creates data with problems only.
    pub fn problems(problems: impl IntoIterator<Item = Problem>) -> Self {
        Self {
            problems: problems.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Creates data with demonstrations only.
    pub fn demonstrations(demonstrations: impl IntoIterator<Item = Demonstration>) -> Self {
        Self {
            demonstrations: demonstrations.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// The tokenised data and its order.
pub(super) struct Prepared {
    problems: Vec<(Arc<Problem>, Vec<u32>)>,
    demonstrations: Vec<RolloutGroup>,
    orders: [Option<ProblemOrder>; 2],
}

impl Prepared {
    /// Encodes `data` for a policy with this vocabulary size and number of positions.
    ///
    /// # Errors
    /// Returns an error if a part is missing or has no effect, or a prompt or demonstration (named
    /// by its index) does not fit.
    pub fn new(
        data: DistillData,
        tokenizer: &dyn Tokenizer,
        config: &DistillConfig,
        vocabulary: usize,
        positions: usize,
    ) -> Result<Self> {
        for (field, count, share) in [
            ("problems", data.problems.len(), config.on_policy),
            (
                "demonstrations",
                data.demonstrations.len(),
                1.0 - config.on_policy,
            ),
        ] {
            if (count > 0) != (share > 0.0) {
                let expected = match count {
                    0 => "at least one",
                    _ => "none",
                };
                let expected = format!("{expected} with distill.on_policy = {}", config.on_policy);
                return Err(Error::config(field, count, expected));
            }
        }
        let most = config.generation.max_new_tokens;
        let prompts = check_prompts(&data.problems, tokenizer, vocabulary, positions, most)?;
        let demonstrations = data.demonstrations.iter().enumerate();
        let demonstrations = demonstrations
            .map(|(index, one)| demonstrated(index, one, tokenizer, positions))
            .collect::<Result<Vec<_>>>()?;
        let order = |count: usize| {
            let order = (count > 0).then(|| ProblemOrder::new(count, config.seed));
            order.transpose()
        };
        let orders = [order(prompts.len())?, order(demonstrations.len())?];
        let problems = data.problems.into_iter().map(Arc::new);
        Ok(Self {
            problems: problems.zip(prompts).collect(),
            demonstrations,
            orders,
        })
    }

    /// Returns the generation requests of update `step`, counted from 0.
    pub fn questions(&self, step: u64, config: &DistillConfig) -> Vec<RolloutRequest> {
        let [from, to] = [step, step + 1].map(|step| config.generated(step));
        let Some(order) = &self.orders[0] else {
            return Vec::new();
        };
        let chosen = order
            .indices(from, (to - from) as usize)
            .into_iter()
            .zip(from..);
        let question = |(index, position): (usize, u64)| RolloutRequest {
            problem: self.problems[index].0.clone(),
            prompt: self.problems[index].1.clone(),
            samples: 1,
            address: vec![config.seed, DISTILL, position],
        };
        chosen.map(question).collect()
    }

    /// Returns the demonstrations of update `step`.
    pub fn demonstrations(&self, step: u64, config: &DistillConfig) -> RolloutBuffer {
        let before = |step: u64| step * config.batch_size as u64 - config.generated(step);
        let Some(order) = &self.orders[1] else {
            return RolloutBuffer::new();
        };
        let count = before(step + 1) - before(step);
        let chosen = order.indices(before(step), count as usize).into_iter();
        RolloutBuffer {
            groups: chosen
                .map(|index| self.demonstrations[index].clone())
                .collect(),
        }
    }
}

/// Converts a demonstration into a rollout.
fn demonstrated(
    index: usize,
    demonstration: &Demonstration,
    tokenizer: &dyn Tokenizer,
    positions: usize,
) -> Result<RolloutGroup> {
    let group = SftExample::from(demonstration.clone()).encode(tokenizer)?;
    let prompt = &group.prompt_tokens;
    let tokens = group
        .rollouts
        .iter()
        .map(|one| one.tokens.len())
        .sum::<usize>();
    let fits = prompt.len() + tokens <= positions + 1;
    if prompt.is_empty() || tokens == 0 || !fits {
        return Err(Error::shape(
            format!("demonstration {index}"),
            format!("{} + {tokens} tokens", prompt.len()),
            format!(
                "at least one token of prompt and one of response, and at most {} in all, for {positions} positions",
                positions + 1
            ),
        ));
    }
    Ok(group)
}
