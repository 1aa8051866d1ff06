//! What a distillation is about: problems that the student answers, and demonstrations.

use std::sync::Arc;

use super::config::DistillConfig;
use crate::prompt::{Problem, ProblemOrder, Tokenizer};
use crate::rollout::{Question, RolloutBuffer, RolloutGroup, check_prompts};
use crate::train::{Demonstration, SftExample};
use crate::{Error, Result};

/// The word that keeps the completions of a distillation apart from other streams.
const DISTILL: u64 = u64::from_be_bytes(*b"distill.");

/// What a student learns its teacher's distributions on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DistillData {
    /// Problems that the student answers; their reference answers are not read.
    pub problems: Vec<Problem>,
    /// Prompts with responses, by the teacher or another, on which it learns what the teacher would say at each token.
    pub demonstrations: Vec<Demonstration>,
}

impl DistillData {
    /// Problems alone.
    pub fn problems(problems: impl IntoIterator<Item = Problem>) -> Self {
        Self {
            problems: problems.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Demonstrations alone.
    pub fn demonstrations(demonstrations: impl IntoIterator<Item = Demonstration>) -> Self {
        Self {
            demonstrations: demonstrations.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// The same as tokens, in an order.
pub(super) struct Prepared {
    problems: Vec<(Arc<Problem>, Vec<u32>)>,
    demonstrations: Vec<RolloutGroup>,
    orders: [Option<ProblemOrder>; 2],
}

impl Prepared {
    /// Encodes `data` for a policy of so many tokens and positions.
    ///
    /// # Errors
    /// If a part is missing or without effect, or a prompt or demonstration does not fit, by its index.
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

    /// What the student is asked in update `step`, counted from 0.
    pub fn questions(&self, step: u64, config: &DistillConfig) -> Vec<Question> {
        let [from, to] = [step, step + 1].map(|step| config.generated(step));
        let Some(order) = &self.orders[0] else {
            return Vec::new();
        };
        let chosen = order
            .indices(from, (to - from) as usize)
            .into_iter()
            .zip(from..);
        let question = |(index, position): (usize, u64)| Question {
            problem: self.problems[index].0.clone(),
            prompt: self.problems[index].1.clone(),
            samples: 1,
            address: vec![config.seed, DISTILL, position],
        };
        chosen.map(question).collect()
    }

    /// The demonstrations of update `step`.
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

/// A demonstration in the shape of a rollout.
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
