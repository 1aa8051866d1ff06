//! The operations that a transformer spends its time in besides large products.
//!
//! Each function has two forms. The composed form is written with Burn's operations and runs on every device. The fused form is one
//! kernel of `rlvr-kernels` with a backward pass of its own; it is taken for f32 tensors on the `flex` device. Both compute the same
//! formula; they differ in rounding, in speed, and in what is kept for the backward pass.

mod attention;
mod linear;
mod mask;
mod norm;
mod optimizer;
mod pull;
mod rotary;
mod stretches;
mod swiglu;
#[cfg(all(test, feature = "flex", feature = "ndarray"))]
mod tests;
mod token_scores;

#[cfg(feature = "flex")]
mod flex;

/// Runs `work` with the widest vector instructions that the processor has, if kernels are compiled in; see `rlvr_kernels::vectorised`.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "flex")]
    return rlvr_kernels::vectorised(work);
    #[cfg(not(feature = "flex"))]
    work()
}

pub use attention::attention;
pub(crate) use linear::linear;
pub use mask::AttentionMask;
pub(crate) use norm::rms_norm;
pub(crate) use optimizer::{AdamW, add_scaled, sum_of_squares};
pub(crate) use pull::pull;
pub(crate) use rotary::rotate;
pub(crate) use stretches::{COLUMNS_ADDED_TOGETHER, Stretch, stretched_attention, with_numbers};
pub(crate) use swiglu::swiglu;
pub(crate) use token_scores::FusedScores;
