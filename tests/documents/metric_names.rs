//! The table of metrics, `src/train/observer/metrics.md`, lists exactly the names that runs emit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use regex::Regex;
use rlvr::Result;
use rlvr::advantage::{Distillation, Estimator, Remax};
use rlvr::environment::{
    AgentLoop, Environment, EnvironmentError, EpisodeReward, FnEpisode, Message, Opening, Reply,
    Step,
};
use rlvr::loss::{
    AdaptiveEntropy, KlEstimator, KlPenalty, OffPolicyMask, PolicyObjective, PpoClip, Rejection,
    RejectionScope, RejectionStatistic, SamplerCorrection, TopEntropy,
};
use rlvr::plan::LedgerConfig;
use rlvr::prompt::Problem;
use rlvr::reward::RewardSet;
use rlvr::rollout::LocalWorker;
use rlvr::train::diagnosis::Watchdog;
use rlvr::train::observer::{History, StepRecord};
use rlvr::train::{
    AsyncConfig, AsyncRollouts, Demonstration, DynamicSampling, EvaluationConfig, HeldOut,
    Piecewise, RunConfig, RunEvaluation, SftConfig, SftRunConfig, SftTrainer, StepSchedules,
    SuccessfulSibling, Trainer, TrainerConfig,
};

use crate::common::metric_table::{pattern, table};
use crate::common::toy::{self, Rl};

/// A run with every optional measurement.
fn run_config() -> RunConfig {
    let problem = |prompt: &str| Problem::new(prompt, prompt).with_domain("letters");
    RunConfig {
        steps: 5,
        evaluation: Some(RunEvaluation {
            problems: vec![problem("a"), problem("b")],
            every: 2,
            config: EvaluationConfig {
                samples: 2,
                k: vec![2],
                maj: vec![2],
                ..EvaluationConfig::default()
            },
        }),
        ledger: LedgerConfig {
            peak_tflops: Some(1.0),
            price: Some(2.0),
            ..LedgerConfig::default()
        },
        ..RunConfig::default()
    }
}

/// The names that a run of `trainer` emits, including those of a watchdog.
fn names<V: rlvr::policy::ValueModel>(
    mut trainer: Trainer<rlvr::policy::causal::CausalModel, V>,
) -> BTreeSet<String> {
    let history = History::new();
    let mut observer = Watchdog::new(history.clone());
    let stop = AtomicBool::new(false);
    trainer.run(&run_config(), &mut observer, &stop).unwrap();
    of(&history.records().lock().unwrap())
}

fn of(records: &[StepRecord]) -> BTreeSet<String> {
    let all = records.iter().flat_map(|record| record.metrics.keys());
    all.cloned().collect()
}

fn run(config: &TrainerConfig) -> BTreeSet<String> {
    names(toy::trainer(config, 0, &toy::device()))
}

/// Every setting that can follow a schedule does, and the problems have domains.
fn scheduled() -> BTreeSet<String> {
    let constant = |value| Some(Piecewise::linear([(0, value)]));
    let config = TrainerConfig {
        objective: PolicyObjective::grpo().with_kl(Some(KlPenalty::new(0.1, KlEstimator::K3))),
        adaptive_entropy: Some(AdaptiveEntropy::default()),
        schedules: StepSchedules {
            temperature: constant(1.0),
            max_new_tokens: constant(4.0),
            kl_coef: constant(0.1),
            clip_low: constant(0.2),
            clip_high: constant(0.2),
            reward_weights: [("short".into(), Piecewise::linear([(0, 0.5)]))].into(),
        },
        ..toy::config()
    };
    let problems = toy::problems();
    let domain = |problem: Problem| problem.with_domain("letters");
    let problems = problems.into_iter().map(domain).collect();
    names(toy::build(&config, 0, &toy::device(), toy::rewards(), problems).unwrap())
}

/// Two updates per step with a value function, and a sampler correction with weights and rejection.
fn corrected_ppo() -> BTreeSet<String> {
    let rejection = Rejection {
        scope: RejectionScope::Token,
        statistic: RejectionStatistic::K1,
        lower: Some(0.5),
        upper: 2.0,
    };
    let correction = SamplerCorrection::token_truncate(2.0).with_rejection(rejection);
    run(&TrainerConfig {
        updates_per_pass: 2,
        objective: PolicyObjective::ppo().with_sampler_correction(Some(correction)),
        ..toy::ppo_config()
    })
}

/// Objectives whose parts emit metrics of their own.
fn parts() -> BTreeSet<String> {
    let masked = PolicyObjective {
        off_policy_mask: Some(OffPolicyMask { threshold: 0.5 }),
        ..PolicyObjective::grpo()
    };
    let selecting = PolicyObjective {
        top_entropy: Some(TopEntropy { share: 0.5 }),
        ..PolicyObjective::dapo()
    };
    let bounded = PolicyObjective::dapo().with_surrogate(PpoClip {
        dual_clip: Some(3.0),
        ..PpoClip::range(0.2, 0.2)
    });
    let mut normalized = SamplerCorrection::token_truncate(2.0);
    let weights = normalized.weights.as_mut().unwrap();
    weights.batch_normalize = true;
    let normalized = PolicyObjective::dapo().with_sampler_correction(Some(normalized));
    let objectives = [
        masked,
        selecting,
        bounded,
        normalized,
        PolicyObjective::vespo(),
    ];
    let config = |objective| TrainerConfig {
        objective,
        ..toy::config()
    };
    objectives
        .into_iter()
        .flat_map(|one| run(&config(one)))
        .collect()
}

fn sampled() -> BTreeSet<String> {
    let dynamic = TrainerConfig {
        dynamic_sampling: Some(DynamicSampling::default()),
        ..toy::config()
    };
    let baseline = TrainerConfig {
        advantage: Estimator::Remax(Remax::default()),
        ..toy::config()
    };
    run(&dynamic).into_iter().chain(run(&baseline)).collect()
}

/// Three replies, with a call of a tool in each.
struct Echo;

impl Environment for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn open(&self, _: &Problem, _: u64) -> Result<Opening, EnvironmentError> {
        Ok(Opening::new(FnEpisode(|reply: &Reply<'_>| {
            if reply.turn == 2 {
                return Ok(Step::done(1.0));
            }
            Ok(Step {
                calls: BTreeMap::from([("ok".into(), 1)]),
                ..Step::observe(Message::new("tool", reply.text)).with_reward(0.5)
            })
        })))
    }
}

fn several_turns() -> BTreeSet<String> {
    let shape = rlvr::policy::causal::CausalConfig {
        max_position_embeddings: 64,
        ..toy::shape(6)
    };
    let policy = shape.init(0, &toy::device().autodiff()).unwrap();
    let reward = EpisodeReward::new("accuracy");
    names(
        Rl::builder(policy, toy::tokenizer())
            .config(toy::config())
            .rewards(RewardSet::builder().add(1.0, reward).build().unwrap())
            .problems(toy::problems())
            .agent_loop(AgentLoop::new(Echo))
            .build()
            .unwrap(),
    )
}

fn taught() -> BTreeSet<String> {
    let template = |problem: &Problem, solution: &str| format!("{}{solution}", problem.prompt);
    let context = SuccessfulSibling::new(toy::tokenizer(), 1.0).with_template(template);
    let config = TrainerConfig {
        objective: PolicyObjective::dapo(),
        advantage: Distillation::default().into(),
        ..toy::config()
    };
    let builder = toy::builder(&config, 0, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems());
    names(builder.teacher_context(context).build().unwrap())
}

fn ahead() -> BTreeSet<String> {
    let config = TrainerConfig {
        objective: PolicyObjective::dapo()
            .with_sampler_correction(Some(SamplerCorrection::token_truncate(2.0))),
        ..toy::config()
    };
    let source = AsyncRollouts::new(LocalWorker::default(), AsyncConfig::default()).unwrap();
    let builder = toy::builder(&config, 0, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems());
    names(builder.source(source).build().unwrap())
}

fn supervised() -> BTreeSet<String> {
    let shown = || vec![Demonstration::new("a", "b"), Demonstration::new("c", "d")];
    let policy = toy::policy(0, &toy::device());
    let config = SftConfig::default();
    let mut job = SftTrainer::new(policy, toy::tokenizer(), shown(), config).unwrap();
    let mut history = History::new();
    let watched = SftRunConfig {
        held_out: Some(HeldOut::new(shown(), 1)),
        ..SftRunConfig::default()
    };
    job.run(&watched, &mut history, &AtomicBool::new(false))
        .unwrap();
    of(&history.records().lock().unwrap())
}

#[test]
fn the_table_lists_exactly_the_emitted_metrics() {
    let emitted: BTreeSet<String> = [
        run(&toy::config()),
        scheduled(),
        corrected_ppo(),
        parts(),
        sampled(),
        several_turns(),
        taught(),
        ahead(),
        supervised(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let table = table();
    let distinct: BTreeSet<&str> = table.iter().copied().collect();
    assert_eq!(table.len(), distinct.len(), "a name is listed twice");
    let patterns: Vec<Regex> = table.iter().map(|name| pattern(name)).collect();
    let missing: Vec<&String> = emitted
        .iter()
        .filter(|name| !patterns.iter().any(|pattern| pattern.is_match(name)))
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    let never: Vec<&str> = table
        .iter()
        .zip(&patterns)
        .filter(|(_, pattern)| !emitted.iter().any(|name| pattern.is_match(name)))
        .map(|(name, _)| *name)
        // `tests/rollouts/engines/lifecycle.rs` tests those of inference servers.
        .filter(|name| !name.starts_with("engine/"))
        .collect();
    assert!(never.is_empty(), "never emitted: {never:?}");
}

#[test]
fn a_placeholder_in_the_table_matches_one_name() {
    let with = |name: &str, metric: &str| pattern(name).is_match(metric);
    assert!(with("rewards/<name>/mean", "rewards/accuracy/mean"));
    assert!(!with("rewards/<name>/mean", "rewards/mean"));
    assert!(!with(
        "rewards/<name>/mean",
        "domains/rewards/accuracy/mean"
    ));
    assert!(with("eval/pass@<k>", "eval/pass@16"));
    assert!(!with("reward", "reward_std"));
}
