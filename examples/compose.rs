//! GRPO written out from the crate's parts, without its `Trainer`, as a crate downstream would:
//! `cargo run --release --example compose`.

#[path = "common/allocator.rs"]
mod allocator;

use burn::tensor::Device;
use rlvr::Result;
use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Group};
use rlvr::loss::{LossInput, PolicyObjective, StepCounts};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{LogProbConfig, PolicyModel, ScoredTokens};
use rlvr::prompt::{Arithmetic, CharTokenizer, Problem, ProblemOrder, Tokenizer, split};
use rlvr::reward::{AccuracyReward, FormatReward, RewardSet};
use rlvr::rollout::{
    GenerationConfig, LocalEngine, Rollout, RolloutBatch, RolloutBuffer, RolloutRequest,
    SamplingConfig, sample_rollouts,
};
use rlvr::train::{Demonstration, Optimizer, OptimizerConfig, Schedule, SftConfig, supervise};

fn main() -> Result<()> {
    allocator::keep_memory();
    // Problems such as `37+48=`. Of the demonstrations, three in seven show their work, the others
    // answer directly.
    let task = Arithmetic::default();
    let problems = split(task.problems(4000, 0)?, 200, 0)?;
    let tags = ["<think>", "</think>", "<answer>", "</answer>"];
    let tokenizer = CharTokenizer::new(task.alphabet(), &tags)?;
    let mut demonstrations = Vec::new();
    for (i, Problem { prompt, answer, .. }) in problems.train.iter().enumerate() {
        let worked = task.worked(&problems.train[i])?;
        let thought = if i % 7 < 3 { &worked } else { "" };
        let response = format!("<think>{thought}</think><answer>{answer}</answer>");
        demonstrations.push(Demonstration::new(prompt, response));
    }
    // The policy, after a short warm start by supervised training.
    let device = Device::flex();
    let shape = CausalConfig::new(tokenizer.vocab_size());
    let mut policy = shape.init(0, &device.clone().autodiff())?;
    let sft = SftConfig {
        optimizer: OptimizerConfig::new(Schedule::constant(3e-3).with_warmup(20)),
        ..SftConfig::default()
    };
    supervise(&mut policy, &tokenizer, &demonstrations, &sft, |_| true)?;
    // Rewards, objective and optimizer.
    let rewards = RewardSet::builder()
        .add(1.0, AccuracyReward::new())
        .add(1.0, FormatReward::new())
        .build()?;
    let objective = PolicyObjective::dapo();
    let schedule = Schedule::constant(3e-4).with_warmup(10);
    let mut optimizer = Optimizer::new(OptimizerConfig::new(schedule))?;
    let order = ProblemOrder::new(problems.train.len(), 0)?;
    let sampling = GenerationConfig::new(32, tokenizer.stop_tokens());
    let greedy = sampling.clone().with_sampling(SamplingConfig::greedy());
    println!("{:>6}  accuracy  format  tokens", "step");
    for step in 0..=80 {
        if step % 20 == 0 {
            let held_out = &problems.held_out;
            let answers = scored(&policy, &tokenizer, &rewards, held_out, 1, &greedy, step)?;
            let mean = |of: &dyn Fn(&Rollout) -> Option<f64>| {
                answers.rollouts().filter_map(of).sum::<f64>() / answers.len() as f64
            };
            println!(
                "{step:>6}  {:>7.1}%  {:>5.1}%  {:>6.1}",
                100.0 * mean(&|r| r.score("accuracy")),
                100.0 * mean(&|r| r.score("format")),
                mean(&|r| Some(r.tokens.len() as f64)),
            );
        }
        // Generate and score.
        let chosen = order.indices(step * 16, 16).into_iter();
        let chosen: Vec<Problem> = chosen.map(|i| problems.train[i].clone()).collect();
        let rollouts = scored(&policy, &tokenizer, &rewards, &chosen, 8, &sampling, step)?;
        let lengths = rollouts.lengths();
        // Compare the completions of each group.
        let (scores, groups) = (rollouts.rewards(), rollouts.group_ids());
        let input = AdvantageInput::new(&scores, &groups, &lengths);
        let advantages = Group::default().estimate(&input)?.per_token;
        // Update the policy.
        let batch = RolloutBatch::all(&rollouts, &device)?;
        let (hidden, targets) = (batch.hidden_states(&policy)?, batch.targets.clone());
        let log_probs = LogProbConfig::default();
        let scored = ScoredTokens::new(hidden, policy.unembedding(), targets, &log_probs)?;
        let advantages = batch.per_token(&advantages, "advantages")?;
        let input = LossInput::new(scored.log_probs.clone(), advantages, batch.mask.clone());
        let loss = objective.loss(&input, StepCounts::of(&lengths))?;
        let gradients = scored.backward(loss.loss, &policy)?;
        optimizer.step(&mut policy, gradients)?;
    }
    Ok(())
}

/// Completions of every problem, scored.
fn scored(
    policy: &CausalModel,
    tokenizer: &CharTokenizer,
    rewards: &RewardSet,
    problems: &[Problem],
    samples: usize,
    config: &GenerationConfig,
    step: u64,
) -> Result<RolloutBuffer> {
    let mut questions = Vec::new();
    for (i, problem) in problems.iter().enumerate() {
        let address = [step, i as u64];
        questions.push(RolloutRequest::new(
            problem.clone(),
            tokenizer,
            samples,
            address,
        )?);
    }
    let mut rollouts = sample_rollouts(
        &mut LocalEngine,
        policy,
        step,
        tokenizer,
        &questions,
        config,
    )?;
    rewards.score_rollouts(&mut rollouts);
    Ok(rollouts)
}
