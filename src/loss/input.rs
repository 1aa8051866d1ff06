//! The input of a policy loss.

use burn::tensor::{Bool, Tensor};

use crate::{Error, Result};

/// The input of a policy loss. Every tensor is `[B, T]`; values at padding are ignored, even NaN.
#[derive(Clone, Debug)]
pub struct LossInput {
    /// `ln pi(y_t)` of the policy being trained, in nats; carries the gradient.
    pub log_probs: Tensor<2>,
    /// `ln pi_old(y_t)` of the policy before this step's updates; detached. `None` in the first
    /// update after sampling, where it equals `log_probs` and the ratio is exactly 1.
    pub old_log_probs: Option<Tensor<2>>,
    /// `ln pi_ref(y_t)` of the reference policy; detached. Required with a KL term; otherwise the
    /// KL is only reported.
    pub ref_log_probs: Option<Tensor<2>>,
    /// `ln mu(y_t)` of the engine that sampled; detached. NaN if the engine could not score the
    /// token, whose log-ratio then counts as 0. Required with a
    /// [`SamplerCorrection`](super::SamplerCorrection); an [`OffPolicyMask`](super::OffPolicyMask)
    /// uses it if given.
    pub sampler_log_probs: Option<Tensor<2>>,
    /// Entropy of the policy at each token, in nats; carries the gradient of an entropy bonus.
    pub entropies: Option<Tensor<2>>,
    /// `A_t`; detached.
    pub advantages: Tensor<2>,
    /// 1 at trained tokens, 0 elsewhere; detached.
    pub mask: Tensor<2>,
    /// `[B]` The prompt of each row: arbitrary ids, the same for all completions of a prompt.
    /// Required by [`Aggregation::PromptMean`](super::Aggregation::PromptMean).
    pub prompts: Option<Vec<usize>>,
}

impl LossInput {
    /// Creates an on-policy input without reference, sampler log-probs and entropies.
    pub fn new(log_probs: Tensor<2>, advantages: Tensor<2>, mask: Tensor<2>) -> Self {
        Self {
            log_probs,
            old_log_probs: None,
            ref_log_probs: None,
            sampler_log_probs: None,
            entropies: None,
            advantages,
            mask,
            prompts: None,
        }
    }

    pub(super) fn check_shapes(&self) -> Result<()> {
        let [rows, width] = self.log_probs.dims();
        let square = [
            ("old_log_probs", self.old_log_probs.as_ref()),
            ("ref_log_probs", self.ref_log_probs.as_ref()),
            ("sampler_log_probs", self.sampler_log_probs.as_ref()),
            ("entropies", self.entropies.as_ref()),
            ("advantages", Some(&self.advantages)),
            ("mask", Some(&self.mask)),
        ];
        for (name, tensor) in square {
            check_shape(name, tensor, [rows, width], "as log_probs")?;
        }
        match &self.prompts {
            Some(prompts) if prompts.len() != rows => Err(Error::shape(
                "length of `prompts`",
                prompts.len(),
                format!("{rows}, one for each row"),
            )),
            _ => Ok(()),
        }
    }

    /// Returns whether the token log-ratios to the old policy are all exactly zero.
    pub(super) fn is_on_policy(&self) -> bool {
        self.old_log_probs.is_none()
    }
}

/// Rejects a tensor of another shape; the error names it.
pub(super) fn check_shape(
    name: &str,
    tensor: Option<&Tensor<2>>,
    expected: [usize; 2],
    why: &str,
) -> Result<()> {
    match tensor.map(Tensor::dims) {
        Some(dims) if dims != expected => Err(Error::shape(
            name,
            format!("{dims:?}"),
            format!("{expected:?}, {why}"),
        )),
        _ => Ok(()),
    }
}

/// The error of an input that lacks `field`, which `term` needs.
pub(super) fn missing(field: &str, term: &str) -> Error {
    Error::config(
        field,
        "none",
        format!("a value, because the objective has {term}"),
    )
}

/// Zeroes padding before any arithmetic: 0 * NaN is NaN, forward and backward.
pub(super) struct Cleaner {
    padding: Tensor<2, Bool>,
}

impl Cleaner {
    pub(super) fn new(mask: &Tensor<2>) -> Self {
        Self {
            padding: mask.clone().equal_scalar(0.0),
        }
    }

    pub(super) fn clean(&self, tensor: &Tensor<2>) -> Tensor<2> {
        tensor.clone().mask_fill(self.padding.clone(), 0.0)
    }

    /// The same, detached.
    pub(super) fn constant(&self, tensor: &Tensor<2>) -> Tensor<2> {
        self.clean(&tensor.clone().inner())
    }
}
