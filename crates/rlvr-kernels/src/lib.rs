//! CPU kernels of a transformer on slices of `f32`: forward passes and their exact backward passes.
//!
//! What a language model spends its time in besides large products, each in one pass over memory, vectorised for the processor
//! that it runs on and spread over the threads of the current [`rayon`] pool: [`attention`] with memory linear in the length,
//! [`rms_norm`], [`rotate`], [`swiglu`], [`linear`], log-probs and entropies of tokens without their logits ([`token_scores`]), and [`AdamW`].
//! Products are those of the crate [`gemm`].
//!
//! Results do not depend on the number of threads, bit for bit.
//!
//! ```
//! use rlvr_kernels::{Matrix, token_scores};
//!
//! // Two tokens with hidden states of size 2, and a vocabulary of 3.
//! let (hidden, unembedding) = ([1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 2.0, 5.0, 5.0, 5.0]);
//! let (hidden, unembedding) = (Matrix::new(&hidden, 2, 2), Matrix::new(&unembedding, 2, 3));
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
mod parallel;
mod rotary;
mod simd;
mod stretches;

pub use attention::{
    AttentionGradients, AttentionShape, Heads, Sight, attention, attention_backward,
};
pub use gate::{swiglu, swiglu_backward};
pub use linear::{linear, sum_of_rows};
pub use log_probs::{TokenScore, token_scores, token_scores_backward};
pub use matrix::{Matrix, add_product, product};
pub use norm::{rms_norm, rms_norm_backward, rms_norm_gain_gradient};
pub use optimizer::{AdamW, add_scaled, sum_of_squares};
pub use rotary::{RotaryTable, rotate};
pub use simd::vectorised;
pub use stretches::{Stretch, StretchShape, stretched_attention};
