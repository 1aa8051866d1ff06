//! Tests of generation, of engines and of the rollout buffer.

#[path = "../common/mod.rs"]
mod common;

mod buffer;
mod decoder;
#[cfg(all(feature = "flex", feature = "remote"))]
mod engines;
mod generation;
mod worker;
