//! Learning from a teacher: divergences over the whole vocabulary and over its most likely tokens, and what minimises them.

mod common;
#[path = "common/toy.rs"]
mod toy;

#[path = "distillation/job.rs"]
mod job;
#[path = "distillation/rewards.rs"]
mod rewards;
#[path = "distillation/tokens.rs"]
mod tokens;

use burn::module::Module;
use burn::tensor::Device;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::Tokenizer;
use rlvr::train::{Demonstration, SftConfig, supervise};

/// What the teacher was taught. One layer cannot count: after `a` and after `aa` it sees the same, so no response repeats its prompt.
fn demonstrations() -> Vec<Demonstration> {
    [("a", "c"), ("ab", "ca"), ("c", "d"), ("cad", "bca")]
        .map(|(prompt, response)| Demonstration::new(prompt, response))
        .to_vec()
}

/// Wider than the student, off the gradient tape.
fn teacher(device: &Device) -> CausalModel {
    let shape = CausalConfig {
        hidden_size: 24,
        ..toy::shape(toy::tokenizer().vocab_size())
    };
    let mut teacher = shape.init(40, &device.clone().autodiff()).unwrap();
    let config = SftConfig {
        steps: 18,
        batch_size: 4,
        optimizer: toy::optimizer(0.02),
        ..SftConfig::default()
    };
    supervise(
        &mut teacher,
        &toy::tokenizer(),
        &demonstrations(),
        &config,
        |_| true,
    )
    .unwrap();
    teacher.valid()
}
