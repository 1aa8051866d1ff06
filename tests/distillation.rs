//! Learning from a teacher: divergences over the whole vocabulary and over its most likely tokens, and the jobs that minimise them.

mod common;

#[path = "distillation/tokens.rs"]
mod tokens;
