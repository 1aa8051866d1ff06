//! Divergences of a student from a teacher at every token, with an exact gradient and without
//! `[B, T, V]` in memory.

mod divergence;
mod tokens;
mod top;

pub use divergence::Divergence;
pub use tokens::{DistilledTokens, TopAgreement};
pub use top::{TopLogProbs, TopTokens};
