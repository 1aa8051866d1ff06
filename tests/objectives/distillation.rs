//! Distillation: divergences over the whole vocabulary and over its most likely tokens, and
//! training with them.

mod job;
mod rewards;
mod tokens;

use burn::module::Module;
use burn::tensor::Device;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::Tokenizer;
use rlvr::train::{Demonstration, SftConfig, supervise};

use crate::common::toy;

/// The demonstrations of the teacher. One layer cannot count: `a` and `aa` look the same, so no
/// response repeats its prompt.
fn demonstrations() -> Vec<Demonstration> {
    [("a", "c"), ("ab", "ca"), ("c", "d"), ("cad", "bca")]
        .map(|(prompt, response)| Demonstration::new(prompt, response))
        .to_vec()
}

/// A wider model than the student, without autodiff.
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
