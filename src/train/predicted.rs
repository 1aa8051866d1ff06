//! Predictions from the shape of the policy: FLOPs, and the memory of an update at the length
//! limit.

use burn::module::Module;
use burn::tensor::DType;

use super::learner::{Learner, Reference};
use super::trained::Trained;
use super::trainer::Trainer;
use crate::host;
use crate::plan::{Kernels, MicroBatch, ModelFlops, TrainingState, UpdateConfig, UpdateMemory};
use crate::policy::{PolicyModel, ValueModel};

impl<M: PolicyModel, V: ValueModel> Learner<M, V> {
    /// Returns the FLOPs of the policy's passes.
    pub(super) fn flops(&self) -> ModelFlops {
        match &self.shape {
            Some(shape) => ModelFlops::new(shape, self.adapters()),
            None => ModelFlops::of_parameters(Module::num_params(&self.policy) as u64),
        }
    }

    /// Returns the number of adapter parameters, if only adapters are trained.
    fn adapters(&self) -> Option<u64> {
        let trained = Trained::of(&self.policy);
        (!trained.all()).then(|| trained.sizes.iter().sum::<usize>() as u64)
    }

    /// Predicts the peak memory of an update on this learner, if the longest micro-batch has
    /// prompts and completions of these lengths in tokens; `None` if the shape of the policy is
    /// unknown.
    fn update_memory(&self, prompt: usize, completion: usize) -> Option<UpdateMemory> {
        let config = &self.config;
        let shape = self.shape.as_ref()?;
        let update = config.problems_per_step * config.group_size / config.updates_per_pass;
        let update = update.div_ceil(self.learners.shards()).max(1);
        let fitting = config
            .max_tokens_per_micro_batch
            .map(|tokens| tokens / (prompt + completion));
        let rows = fitting
            .unwrap_or(update)
            .clamp(1, config.micro_batch.min(update));
        let full = self.policy.unembedding().dtype() == DType::F32;
        let causal = self.policy.as_causal();
        let mut memory = UpdateMemory::new(
            shape,
            &UpdateConfig {
                micro_batch: MicroBatch {
                    rows,
                    prompts: rows.div_ceil(config.group_size),
                    prompt_tokens: prompt as f64,
                    completion_tokens: completion as f64,
                },
                several: rows < update || self.learners.shards() > 1,
                state: match full {
                    true => TrainingState::F32,
                    false => TrainingState::Mixed,
                },
                kernels: match full && host::is_cpu(&self.policy.device()) {
                    true => Kernels::Fused,
                    false => Kernels::Composed,
                },
                recompute: causal.is_some_and(|model| model.gradient_checkpointing()),
                adapters: self.adapters(),
                reference: matches!(self.reference, Some(Reference::Policy(_))),
                critic: self.critic.is_some(),
                logit_chunk: config.logit_chunk,
            },
        );
        if config.sharded_optimizer {
            memory.optimizer /= self.learners.size() as f64;
        }
        Some(memory)
    }
}

impl<M: PolicyModel, V: ValueModel> Trainer<M, V> {
    /// Predicts the memory of an update on each device, in bytes by kind, if completions have the
    /// maximum length. `None` if the policy is not this crate's transformer and
    /// [`TrainerBuilder::shape`](super::TrainerBuilder::shape) was not set.
    ///
    /// Prompts are assumed to be as long as the longest known one, and episodes as long as their
    /// limits allow. If
    /// [`max_tokens_per_micro_batch`](super::TrainerConfig::max_tokens_per_micro_batch) splits the
    /// update, the prediction is for the micro-batch with the longest completions. It does not
    /// include the cache of the crate's generator. See [`UpdateMemory`] for its accuracy.
    pub fn predicted_memory(&self) -> Option<UpdateMemory> {
        let positions = self.policy().max_positions();
        let (prompt, completion) = match &self.collector.agent_loop {
            // The prompts are known to the environment only.
            Some(agent_loop) => {
                let limits = agent_loop.config();
                let reply = self.config().generation.max_new_tokens;
                let turn = limits
                    .max_observation_tokens
                    .map(|observed| observed + reply);
                let turns = turn.map(|turn| limits.max_turns.saturating_mul(turn));
                (0, limits.max_tokens.or(turns).unwrap_or(positions))
            }
            None => {
                let prompts = self.collector.prompts.iter().map(Vec::len);
                let cap = self.config().generation.max_new_tokens;
                (prompts.max().unwrap_or(0), cap)
            }
        };
        self.learner
            .update_memory(prompt, completion.min(positions))
    }
}
