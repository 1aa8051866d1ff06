//! Every documented metric is emitted and matches the rollouts.

use rlvr::rollout::{FinishReason, Rollout};
use rlvr::train::TrainerConfig;

use crate::common::assert_close;
use crate::common::toy;

/// What a dashboard may count on at every step.
const PROMISED: [&str; 22] = [
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
    "clip_ratio/region_mean",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "time/generate",
    "time/reward",
    "time/update",
    "rewards/accuracy/mean",
    "rewards/short/mean",
    "rewards/short/std",
    "rewards/short/abstained",
    "rewards/short/gated",
    "rewards/short/failed",
    "rewards/short/timed_out",
    "time/reward/short",
    "num_tokens",
];

#[test]
fn every_promised_metric_is_there_and_finite() {
    let measured = TrainerConfig {
        measure_kl: true,
        ..toy::config()
    };
    for config in [measured, toy::ppo_config()] {
        let mut trainer = toy::trainer(&config, 0, &toy::device());
        for (at, record) in toy::steps(&mut trainer, 3).iter().enumerate() {
            assert_eq!(record.step, at as u64 + 1);
            for name in PROMISED {
                let value = toy::metric(record, name);
                assert!(value.is_finite(), "{name} is {value}");
            }
            let positive = ["grad_norm", "learning_rate", "tokens_per_second", "entropy"];
            for name in positive {
                assert!(toy::metric(record, name) > 0.0, "{name}");
            }
            assert_eq!(record.get("kl").is_some(), config.needs_reference());
            let critic = record.get("value/explained_variance").is_some();
            assert_eq!(critic, record.get("value/loss").is_some());
            assert_eq!(critic, config == toy::ppo_config());
        }
    }
}

#[test]
fn metrics_match_the_rollouts() {
    let mut trainer = toy::trainer(&toy::config(), 2, &toy::device());
    let mut seen = 0;
    for _ in 0..4 {
        let record = trainer.step().unwrap();
        let buffer = trainer.last_rollouts();
        let rollouts: Vec<&Rollout> = buffer.rollouts().collect();
        assert_eq!(rollouts.len(), 32);
        let count = rollouts.len() as f64;
        let mean =
            |of: &dyn Fn(&Rollout) -> f64| rollouts.iter().map(|r| of(r)).sum::<f64>() / count;
        let check = |name: &str, want: f64| {
            assert_close(toy::metric(&record, name), want, 1e-9, 1e-12, name);
        };
        // The reward by the rule of the task, not by what was recorded.
        let mut score = 0.0;
        let mut flat = 0.0;
        let mut deviations = 0.0;
        for group in &buffer.groups {
            let totals: Vec<f64> = group
                .rollouts
                .iter()
                .map(|r| {
                    let right = r.text.starts_with(&group.problem.answer);
                    f64::from(right) + 0.25 * f64::from(r.finish == FinishReason::Stop)
                })
                .collect();
            for (rollout, total) in group.rollouts.iter().zip(&totals) {
                assert_eq!(rollout.reward, Some(*total));
            }
            let sum: f64 = totals.iter().sum();
            score += sum;
            flat += f64::from(totals.iter().all(|t| t == &totals[0]));
            let centre = sum / 8.0;
            let squares: f64 = totals.iter().map(|t| (t - centre).powi(2)).sum();
            deviations += (squares / 7.0).sqrt();
        }
        check("reward", score / count);
        check("reward_std", deviations / 4.0);
        check("frac_reward_zero_std", flat / 4.0);
        check(
            "rewards/accuracy/mean",
            mean(&|r| r.score("accuracy").unwrap()),
        );
        let stopped = |r: &Rollout| f64::from(r.finish == FinishReason::Stop);
        check("rewards/short/mean", mean(&stopped));
        let share = mean(&stopped);
        let spread = (share * (1.0 - share) * count / (count - 1.0)).sqrt();
        check("rewards/short/std", spread);
        check("completions/clipped_ratio", 1.0 - mean(&stopped));
        let lengths = rollouts.iter().map(|r| r.tokens.len());
        check("completions/mean_length", mean(&|r| r.tokens.len() as f64));
        check(
            "completions/min_length",
            lengths.clone().min().unwrap() as f64,
        );
        check("completions/max_length", lengths.max().unwrap() as f64);
        let ended: f64 = rollouts
            .iter()
            .map(|r| stopped(r) * r.tokens.len() as f64)
            .sum();
        let name = "completions/mean_terminated_length";
        check(
            name,
            ended / rollouts.iter().map(|r| stopped(r)).sum::<f64>(),
        );
        let tokens = buffer.tokens() as f64;
        let entropy: f64 = rollouts.iter().map(|r| r.entropy.unwrap()).sum();
        check("entropy", entropy / tokens);
        check("learning_rate", 0.02);
        check("rewards/unscored", 0.0);
        check("rewards/failures", 0.0);
        seen += buffer.tokens();
        check("num_tokens", seen as f64);
        let seconds = toy::metric(&record, "time/step");
        let parts = ["generate", "reward", "prepare", "update"];
        let parts = parts.map(|part| toy::metric(&record, &format!("time/{part}")));
        assert!(parts.iter().all(|&part| part > 0.0) && parts.iter().sum::<f64>() <= seconds);
    }
}

#[test]
fn rollouts_record_what_was_sampled() {
    let config = toy::config();
    let mut trainer = toy::trainer(&config, 2, &toy::device());
    let policy = trainer.policy().clone();
    trainer.step().unwrap();
    let buffer = trainer.last_rollouts();
    let batch = rlvr::rollout::RolloutBatch::all(buffer, &toy::device()).unwrap();
    let scores = batch.score(&policy, &config.log_probs()).unwrap();
    let want = batch.unpad(scores.log_probs, "log-probs").unwrap();
    for (rollout, want) in buffer.rollouts().zip(want.rows()) {
        assert_eq!(rollout.log_probs.len(), rollout.tokens.len());
        for (got, want) in rollout.log_probs.iter().zip(want) {
            assert_close(f64::from(*got), *want, 1e-4, 1e-5, "log-prob");
        }
        let stopped = rollout.tokens.last() == Some(&1);
        assert_eq!(stopped, rollout.finish == FinishReason::Stop);
        assert!(stopped || rollout.tokens.len() == 4);
    }
    for group in &buffer.groups {
        let samples: Vec<usize> = group.rollouts.iter().map(|r| r.sample).collect();
        assert_eq!(samples, (0..8).collect::<Vec<_>>());
    }
}

#[test]
fn every_completion_has_its_own_random_stream() {
    // So small a rate that nothing but the streams tells two steps apart.
    let mut config = toy::config();
    config.problems_per_step = 8;
    config.optimizer = toy::optimizer(1e-12);
    let spoken = |config: &TrainerConfig, steps: usize| {
        let mut trainer = toy::trainer(config, 0, &toy::device());
        toy::steps(&mut trainer, steps);
        let mut groups: Vec<(String, Vec<Vec<u32>>)> = trainer
            .last_rollouts()
            .groups
            .iter()
            .map(|group| {
                let tokens = group.rollouts.iter().map(|r| r.tokens.clone());
                (group.problem.prompt.clone(), tokens.collect())
            })
            .collect();
        groups.sort();
        groups
    };
    let first = spoken(&config, 1);
    // Each of the four problems comes twice, and is not answered twice the same.
    for pair in first.chunks(2) {
        assert_eq!(pair[0].0, pair[1].0);
        assert_ne!(pair[0].1, pair[1].1);
    }
    let second = spoken(&config, 2);
    for (a, b) in first.iter().zip(&second) {
        assert_ne!(a.1, b.1, "{}: the second step repeats the first", a.0);
    }
    // What is generated beside a completion does not touch it; the seed does.
    config.generation.max_rows = 8;
    assert_eq!(spoken(&config, 1), first);
    config.seed = 1;
    assert_ne!(spoken(&config, 1), first);
}
