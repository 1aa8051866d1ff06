//! The rollouts of a step: asked, answered, scored, and asked again where there was nothing to learn.

use super::dynamic_sampling::{Exhausted, SamplingReport};
use super::step_metrics::StepTimes;
use super::trainer::Trainer;
use crate::policy::{PolicyModel, ValueModel};
use crate::reward::score_tokens;
use crate::rollout::{
    GenerationConfig, GenerationRequest, Rollout, RolloutBuffer, RolloutGroup, SamplingConfig,
    generate, sample_group,
};
use crate::{Error, Result};

/// What a step learns from.
pub(super) struct Gathered {
    /// Scored, `problems_per_step` groups.
    pub rollouts: RolloutBuffer,
    /// The reward of the greedy completion of each rollout's problem, if the estimator compares with it.
    pub baselines: Option<Vec<Option<f64>>>,
    /// What was dropped on the way, if anything may be.
    pub report: Option<SamplingReport>,
    /// The position in the order of problems after those that were asked.
    pub position: u64,
}

impl<M: PolicyModel, V: ValueModel> Trainer<M, V> {
    /// Asks the next problems, until there are enough groups to learn from.
    pub(super) fn gather(&self, times: &mut StepTimes) -> Result<Gathered> {
        let count = self.config.problems_per_step;
        let mut position = self.problems_asked;
        let mut kept = Vec::with_capacity(count);
        let mut report = None;
        match &self.config.dynamic_sampling {
            None => {
                kept = self.ask(position, count, times)?.groups;
                position += count as u64;
            }
            Some(dynamic) => {
                let mut found = SamplingReport::default();
                let mut dropped: Vec<RolloutGroup> = Vec::new();
                while kept.len() < count && found.rounds < dynamic.max_rounds {
                    let missing = count - kept.len();
                    let asked = self.ask(position, missing, times)?;
                    position += missing as u64;
                    found.rounds += 1;
                    for group in asked.groups {
                        let signal = dynamic.has_signal(&group)?;
                        found.add(&group, signal);
                        if signal {
                            kept.push(group);
                        } else {
                            dropped.push(group);
                        }
                    }
                }
                found.unfilled = count - kept.len();
                if found.unfilled > 0 && dynamic.exhausted == Exhausted::Fail {
                    return Err(Error::NoSignal {
                        step: self.steps_done,
                        kept: kept.len(),
                        wanted: count,
                        asked: found.problems,
                        advice:
                            "take problems that the policy sometimes solves, larger groups, or \
                                 dynamic_sampling.exhausted = keep_flat"
                                .into(),
                    });
                }
                // The last round asked for as many as are missing: there are enough.
                kept.extend(dropped.drain(..found.unfilled));
                let tokens = |group: &RolloutGroup| {
                    group.rollouts.iter().map(|r| r.tokens.len()).sum::<usize>()
                };
                found.dropped_tokens = dropped.iter().map(tokens).sum();
                report = Some(found);
            }
        }
        let rollouts = RolloutBuffer { groups: kept };
        let baselines = match self.advantage.needs_baselines() {
            true => Some(self.greedy_rewards(&rollouts, times)?),
            false => None,
        };
        Ok(Gathered {
            rollouts,
            baselines,
            report,
            position,
        })
    }

    /// The answered and scored groups of the `count` problems from `position` of the order.
    fn ask(&self, position: u64, count: usize, times: &mut StepTimes) -> Result<RolloutBuffer> {
        let indices = self.order.indices(position, count);
        let requests = indices
            .iter()
            .enumerate()
            .map(|(offset, &index)| {
                // A problem that comes twice in a step does so in two epochs.
                let epoch = (position + offset as u64) / self.problems.len() as u64;
                Ok(GenerationRequest::new(
                    self.tokenizer.encode_prompt(&self.problems[index].prompt)?,
                    self.config.group_size,
                    [self.config.seed, self.steps_done, epoch, index as u64],
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        let completions = generate(&self.policy.valid(), &requests, &self.config.generation)?;
        let mut buffer = RolloutBuffer::new();
        for ((index, request), completions) in indices.into_iter().zip(requests).zip(completions) {
            buffer.push(sample_group(
                self.problems[index].clone(),
                request.prompt,
                completions,
                self.tokenizer.as_ref(),
                self.optimizer.updates(),
            )?);
        }
        times.generate += times.lap();
        self.score(&mut buffer);
        times.reward += times.lap();
        Ok(buffer)
    }

    /// Rewards of the completions, then of their tokens.
    fn score(&self, rollouts: &mut RolloutBuffer) {
        self.rewards.score_rollouts(rollouts);
        if let Some(reward) = &self.token_rewards {
            score_tokens(reward.as_ref(), rollouts);
        }
    }

    /// `[N]` The reward of the greedy completion of each rollout's problem (ReMax); one completion for each group.
    fn greedy_rewards(
        &self,
        rollouts: &RolloutBuffer,
        times: &mut StepTimes,
    ) -> Result<Vec<Option<f64>>> {
        let request = |group: &RolloutGroup| {
            // Greedy decoding draws nothing: any address will do.
            GenerationRequest::new(group.prompt_tokens.clone(), 1, [self.config.seed])
        };
        let requests: Vec<_> = rollouts.groups.iter().map(request).collect();
        let config = GenerationConfig {
            sampling: SamplingConfig::greedy(),
            ..self.config.generation.clone()
        };
        let completions = generate(&self.policy.valid(), &requests, &config)?;
        let mut greedy = RolloutBuffer::new();
        for (group, completions) in rollouts.groups.iter().zip(completions) {
            greedy.push(sample_group(
                group.problem.clone(),
                group.prompt_tokens.clone(),
                completions,
                self.tokenizer.as_ref(),
                self.optimizer.updates(),
            )?);
        }
        times.generate += times.lap();
        self.score(&mut greedy);
        times.reward += times.lap();
        let rewards: Vec<_> = greedy.rollouts().map(Rollout::total_reward).collect();
        Ok(rollouts
            .group_ids()
            .into_iter()
            .map(|id| rewards[id])
            .collect())
    }
}
