//! Fused operations of a transformer.
//!
//! Each function has two forms. The composed form uses Burn's operations and runs on every device.
//! The fused form is one kernel of `rlvr-kernels` with its own backward pass, and is used for f32
//! tensors on the `flex` device. Both compute the same formula; they differ in rounding, speed, and
//! in what they keep for the backward pass.

mod attention;
mod linear;
mod mask;
mod norm;
mod optimizer;
mod packed;
mod pull;
mod rotary;
mod segments;
mod swiglu;
#[cfg(all(test, feature = "flex", feature = "ndarray"))]
mod tests;
mod token_scores;
mod weight_format;

#[cfg(feature = "flex")]
mod flex;

/// Runs `work` with the widest vector instructions of the processor if the kernels are compiled in;
/// see `rlvr_kernels::vectorised`.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "flex")]
    return rlvr_kernels::vectorised(work);
    #[cfg(not(feature = "flex"))]
    work()
}

pub(crate) use attention::{attention, attention_gradients};
pub(crate) use linear::linear;
pub use mask::AttentionMask;
pub(crate) use norm::rms_norm;
pub(crate) use optimizer::{AdamW, add_scaled, sum_of_squares};
pub(crate) use packed::PackedWeight;
pub(crate) use pull::pull;
pub(crate) use rotary::rotate;
pub(crate) use segments::{KvSegment, REDUCTION_LANES, segmented_attention, with_floats};
pub(crate) use swiglu::swiglu;
pub(crate) use token_scores::FusedScores;
pub use weight_format::WeightFormat;
