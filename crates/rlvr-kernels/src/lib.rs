//! CPU kernels of a transformer on slices of `f32`: forward passes and their exact backward passes.
//!
//! The kernels are [`attention`] with memory linear in the sequence length,
//! [`segmented_attention`] for generation, [`rms_norm`], [`rotate`], [`swiglu`], [`linear`],
//! log-probs and entropies of tokens without their logits ([`token_scores`]), and [`AdamW`]. Each
//! is vectorised for the processor that it runs on and uses the threads of the current [`rayon`]
//! pool. Matrix products use the crate [`gemm`].
//!
//! Matrices and tensors are row-major unless they carry strides. Results are bit-for-bit
//! independent of the number of threads.
//!
//! ```
//! use rlvr_kernels::{Matrix, token_scores};
//!
//! // Two tokens with hidden states of size 2, and a vocabulary of 3.
//! let (hidden, unembedding) = ([1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 2.0, 5.0, 5.0, 5.0]);
//! let (hidden, unembedding) =
//!     (Matrix::new(&hidden, 2, 2), Matrix::new(&unembedding, 2, 3));
//! let scores = token_scores(hidden, unembedding, &[2, 0], 1.0, true, 64);
//! assert!((scores[0].log_prob - -0.407_606).abs() < 1e-5); // ln(e^2 / (1 + e + e^2))
//! assert!((scores[1].entropy - 3f32.ln()).abs() < 1e-6);
//! ```

#![warn(missing_docs)]

mod attention;
mod few_rows;
mod gate;
mod linear;
mod log_probs;
mod matrix;
mod norm;
mod optimizer;
mod packed;
mod parallel;
mod rotary;
mod segments;
mod simd;

pub use attention::{
    AttentionGradients, AttentionShape, Heads, Mask, attention, attention_backward,
};
pub use gate::{swiglu, swiglu_backward};
pub use linear::{linear, sum_of_rows};
pub use log_probs::{TokenScore, token_scores, token_scores_backward};
pub use matrix::{Matrix, product};
pub use norm::{rms_norm, rms_norm_backward, rms_norm_gain_gradient};
pub use optimizer::{AdamW, add_scaled, sum_of_squares};
pub use packed::{PackedFormat, PackedMatrix};
pub use rotary::{RotaryTable, rotate};
pub use segments::{KvSegment, SegmentedShape, segmented_attention};
pub use simd::vectorised;
