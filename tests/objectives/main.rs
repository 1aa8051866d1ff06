//! Tests of losses and divergences.

#[path = "../common/mod.rs"]
mod common;

mod cases;
mod distillation;
mod laws;
mod value_loss_laws;
