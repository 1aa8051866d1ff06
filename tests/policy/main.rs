//! Tests of policies: forward passes, gradients, adapters, and folders of open weights.

#[path = "../common/mod.rs"]
mod common;

mod adapters;
mod causal;
mod half_precision;
#[cfg(feature = "hf")]
mod hf_adapters;
#[cfg(feature = "hf")]
mod hf_conversation;
#[cfg(feature = "hf")]
mod hf_prompt;
#[cfg(feature = "hf")]
mod hf_weights;
mod policy_contract;
