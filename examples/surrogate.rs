//! An objective that is not in the crate: one trait implementation, and the trainer takes it.
//! `cargo run --release --example surrogate`
//!
//! SPO (Xie et al., arXiv 2401.16025) holds the ratio near 1 with a penalty instead of a clip:
//! `L = -(r A - |A| / (2 epsilon) (r - 1)^2)`. Its gradient points back into the range wherever the
//! ratio has left it, while PPO's is zero there.

#[path = "common/allocator.rs"]
mod allocator;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use rlvr::loss::{
    PolicyObjective, RatioLevel, Surrogate, SurrogateInput, SurrogateLoss, SurrogateTerm,
};
use rlvr::policy::causal::CausalConfig;
use rlvr::prompt::{Arithmetic, CharTokenizer, Problem, Tokenizer, split};
use rlvr::reward::{AccuracyReward, FormatReward, RewardSet};
use rlvr::rollout::GenerationConfig;
use rlvr::train::{
    Demonstration, EvaluationConfig, OptimizerConfig, RunConfig, Schedule, SftConfig, Trainer,
    TrainerConfig, supervise,
};
use rlvr::{Error, Result};

/// Simple Policy Optimization.
#[derive(Debug)]
struct Spo {
    epsilon: f64,
}

impl SurrogateLoss for Spo {
    fn name(&self) -> &str {
        "spo"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        if level != RatioLevel::Token {
            let expected = "token with the spo surrogate: its penalty is on each token's ratio";
            return Err(Error::config("ratio_level", format!("{level:?}"), expected));
        }
        match self.epsilon > 0.0 {
            true => Ok(()),
            false => Err(Error::config("spo.epsilon", self.epsilon, "above 0")),
        }
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let (ratio, advantages) = (input.ratio(), input.advantages.clone());
        let strength = advantages.clone().abs().div_scalar(2.0 * self.epsilon);
        let penalty = (ratio.clone() - 1.0).square() * strength;
        let outside = (ratio.clone().inner() - 1.0)
            .abs()
            .greater_scalar(self.epsilon);
        Ok(SurrogateTerm {
            clipped: Some(outside),
            ..SurrogateTerm::new(penalty - ratio * advantages)
        })
    }
}

fn main() -> Result<()> {
    allocator::keep_memory();
    let task = Arithmetic::default();
    let problems = split(task.problems(4000, 0)?, 200, 0)?;
    let tags = ["<think>", "</think>", "<answer>", "</answer>"];
    let tokenizer = Arc::new(CharTokenizer::new(task.alphabet(), &tags)?);
    let mut demonstrations = Vec::new();
    for (i, problem) in problems.train.iter().enumerate() {
        let Problem { prompt, answer, .. } = problem;
        let thought = if i % 7 < 3 {
            task.worked(problem)?
        } else {
            String::new()
        };
        let response = format!("<think>{thought}</think><answer>{answer}</answer>");
        demonstrations.push(Demonstration::new(prompt, response));
    }
    let device = Device::flex().autodiff();
    let mut policy = CausalConfig::new(tokenizer.vocab_size()).init(0, &device)?;
    let sft = SftConfig {
        optimizer: OptimizerConfig::new(Schedule::constant(3e-3).with_warmup(20)),
        ..SftConfig::default()
    };
    supervise(
        &mut policy,
        tokenizer.as_ref(),
        &demonstrations,
        &sft,
        |_| true,
    )?;

    let rewards = RewardSet::builder()
        .add(1.0, AccuracyReward::new())
        .add(1.0, FormatReward::new())
        .build()?;
    let config = TrainerConfig {
        generation: GenerationConfig::new(32, tokenizer.stop_tokens()),
        objective: PolicyObjective {
            surrogate: Surrogate::custom(Spo { epsilon: 0.2 }),
            ..PolicyObjective::dapo() // its token mean
        },
        optimizer: OptimizerConfig::new(Schedule::constant(3e-4).with_warmup(10)),
        passes: 2,
        ..TrainerConfig::default()
    };
    let mut trainer = Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(rewards)
        .problems(problems.train)
        .build()?;

    println!("{:>6}  held-out accuracy", "step");
    let never = AtomicBool::new(false);
    for steps in [0, 20, 40, 60] {
        let run = RunConfig {
            steps,
            ..RunConfig::default()
        };
        trainer.run(&run, &mut Vec::new(), &never)?;
        let evaluation = trainer.evaluate(&problems.held_out, &EvaluationConfig::default())?;
        println!("{steps:>6}  {:>7.1}%", 100.0 * evaluation.accuracy);
    }
    Ok(())
}
