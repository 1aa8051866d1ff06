//! Hashes of data that must be the same on all learners.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::fnv::Fnv;
use crate::types::RolloutBuffer;
use crate::{Result, host};

/// Hashes the tokens, log-probs and rewards of rollouts.
pub(in crate::train) fn rollouts_hash(rollouts: &RolloutBuffer) -> u64 {
    let mut hash = Fnv::default();
    for group in &rollouts.groups {
        hash.add(group.rollouts.len() as u64);
        group
            .prompt_tokens
            .iter()
            .for_each(|&token| hash.add(token.into()));
        for rollout in &group.rollouts {
            hash.add(rollout.tokens.len() as u64);
            rollout
                .tokens
                .iter()
                .for_each(|&token| hash.add(token.into()));
            let log_probs = rollout.log_probs.iter();
            // All NaNs are equal: serialization does not preserve their bits.
            let bits = log_probs.map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits());
            bits.for_each(|bits| hash.add(bits.into()));
            hash.add(rollout.reward.map_or(1, f64::to_bits));
        }
    }
    hash.finish()
}

/// Hashes the trained weights of a model.
///
/// # Errors
/// Returns an error if they cannot be read from the device.
pub(in crate::train) fn weights_hash<M: Module>(model: &M) -> Result<u64> {
    struct Hash {
        hash: Fnv,
        result: Result<()>,
    }
    impl ModuleVisitor for Hash {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let weight = param.val();
            if !weight.is_require_grad() {
                return;
            }
            match host::floats(weight.inner(), "weights") {
                Ok(numbers) => numbers
                    .iter()
                    .for_each(|x| self.hash.add(x.to_bits().into())),
                Err(error) => self.result = Err(error),
            }
        }
    }
    let mut hash = Hash {
        hash: Fnv::default(),
        result: Ok(()),
    };
    model.visit(&mut hash);
    hash.result?;
    Ok(hash.hash.finish())
}
