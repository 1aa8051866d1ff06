//! Asynchronous rollouts: no older than the bound, none lost, none used twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::module::Module;
use proptest::prelude::*;
use rand::Rng;
use rlvr::advantage::{Estimator, Remax};
use rlvr::environment::tools::{ReplyParser, ToolSet};
use rlvr::environment::{AgentLoop, ToolEnvironment};
use rlvr::loss::SamplerCorrection;
use rlvr::policy::causal::CausalModel;
use rlvr::rollout::{
    Answer, AsyncEngine, Completion, GenerationConfig, GenerationRequest, InFlight, RolloutBuffer,
    RolloutEngine, VersionSpan, generate,
};
use rlvr::train::{
    AsyncConfig, AsyncRollouts, DynamicSampling, Piecewise, Scorer, ScoringConfig, StepSchedules,
    TrainerConfig,
};
use rlvr::types::PerToken;
use rlvr::{Error, Result, random};

use crate::common::toy::{self, Rl};
use crate::common::until;

/// The script of a mock engine.
#[derive(Clone, Default)]
struct Script {
    /// Seed of the delays, which are up to `most_ms` long; 0 for none.
    seed: u64,
    most_ms: u64,
    /// Samples that fail, by the number of the request.
    failing: BTreeMap<u64, Vec<usize>>,
    /// Every request from this one on fails.
    failing_from: Option<u64>,
    /// The engine answers nothing and reports an error.
    dead: Arc<AtomicBool>,
    /// The addresses of all requests.
    asked: Arc<Mutex<Vec<Vec<u64>>>>,
    /// Answers that were sent.
    sent: Arc<AtomicUsize>,
    cancelled: Arc<AtomicU64>,
}

/// Generates at once with its current weights, and answers later.
struct Delayed {
    script: Script,
    loaded: Option<(CausalModel, u64)>,
    tickets: u64,
    cancelled: Arc<Mutex<BTreeSet<u64>>>,
}

impl Delayed {
    fn new(script: Script) -> Self {
        Self {
            script,
            loaded: None,
            tickets: 0,
            cancelled: Arc::default(),
        }
    }
}

fn failure() -> Error {
    Error::Engine {
        engine: "http://127.0.0.1:9".into(),
        request: "a completion".into(),
        reason: "it refused".into(),
        remedy: "start it".into(),
    }
}

impl AsyncEngine<CausalModel> for Delayed {
    fn load(&mut self, policy: &CausalModel, version: u64) -> Result<()> {
        self.loaded = Some((policy.valid(), version));
        Ok(())
    }

    fn in_flight(&self) -> InFlight {
        InFlight::Finish
    }

    fn version(&self) -> Option<u64> {
        self.loaded.as_ref().map(|(_, version)| *version)
    }

    fn submit(
        &mut self,
        request: GenerationRequest,
        config: &GenerationConfig,
        answers: &Sender<Answer>,
    ) -> Result<u64> {
        let ticket = self.tickets;
        self.tickets += 1;
        let (model, version) = self.loaded.as_ref().unwrap();
        self.script
            .asked
            .lock()
            .unwrap()
            .push(request.address.clone());
        let completions = generate(model, &[request], config)?.remove(0);
        let failing = |sample: usize| {
            let named = self.script.failing.get(&ticket);
            named.is_some_and(|samples| samples.contains(&sample))
                || self.script.failing_from.is_some_and(|from| ticket >= from)
        };
        let completions = completions.into_iter().enumerate();
        let completions = completions.map(|(sample, mut completion)| {
            completion.versions = vec![VersionSpan {
                version: *version,
                tokens: completion.tokens.len(),
            }];
            match failing(sample) {
                true => Err(failure()),
                false => Ok(completion),
            }
        });
        let answer = Answer {
            ticket,
            completions: completions.collect(),
        };
        let delay = match self.script.most_ms {
            0 => 0,
            most => random::generator(&[self.script.seed, ticket]).next_u64() % most,
        };
        if self.script.dead.load(Ordering::Relaxed) {
            return Ok(ticket);
        }
        let (answers, cancelled) = (answers.clone(), self.cancelled.clone());
        let sent = self.script.sent.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            if !cancelled.lock().unwrap().contains(&ticket) {
                let _ = answers.send(answer);
            }
            sent.fetch_add(1, Ordering::Relaxed);
        });
        Ok(ticket)
    }

    fn cancel(&mut self, ticket: u64) {
        self.cancelled.lock().unwrap().insert(ticket);
        self.script.cancelled.fetch_add(1, Ordering::Relaxed);
    }

    fn check(&mut self) -> Result<()> {
        match self.script.dead.load(Ordering::Relaxed) {
            true => Err(failure()),
            false => Ok(()),
        }
    }
}

/// Generates each request separately, as [`Delayed`] does: the number of rows of a batch can change
/// the last bits.
struct OneByOne;

impl RolloutEngine<CausalModel> for OneByOne {
    fn generate(
        &mut self,
        policy: &CausalModel,
        _version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>> {
        let policy = policy.valid();
        let alone =
            |request| Ok(generate(&policy, std::slice::from_ref(request), config)?.remove(0));
        requests.iter().map(alone).collect()
    }
}

/// With the correction that stale rollouts need.
fn config() -> TrainerConfig {
    let mut config = toy::config();
    config.objective.sampler_correction = Some(SamplerCorrection::token_truncate(2.0));
    config.problems_per_step = 3;
    config
}

/// Temperature, length limit and a weight change after two steps.
fn scheduled() -> TrainerConfig {
    let jump = |a: f64, b: f64| Piecewise::steps([(0, a), (2, b)]);
    TrainerConfig {
        schedules: StepSchedules {
            temperature: Some(jump(1.0, 0.7)),
            max_new_tokens: Some(jump(2.0, 4.0)),
            reward_weights: [("short".into(), jump(0.0, 0.5))].into(),
            ..StepSchedules::default()
        },
        ..config()
    }
}

fn staleness(max_staleness: u64) -> AsyncConfig {
    AsyncConfig {
        max_staleness,
        ..AsyncConfig::default()
    }
}

fn try_trainer(config: &TrainerConfig, ahead: AsyncConfig, script: Script) -> Result<Rl> {
    toy::builder(config, 0, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems())
        .source(AsyncRollouts::new(Delayed::new(script), ahead)?)
        .build()
}

fn trainer(config: &TrainerConfig, ahead: AsyncConfig, script: Script) -> Rl {
    try_trainer(config, ahead, script).unwrap()
}

#[test]
fn zero_staleness_equals_the_synchronous_loop_bit_for_bit() {
    let remax = TrainerConfig {
        advantage: Estimator::Remax(Remax::default()),
        ..config()
    };
    let dynamic = TrainerConfig {
        dynamic_sampling: Some(DynamicSampling::default()),
        ..config()
    };
    for config in [config(), remax, dynamic, scheduled()] {
        let mut here = toy::builder(&config, 0, &toy::device())
            .rewards(toy::rewards())
            .problems(toy::problems())
            .engine(OneByOne)
            .build()
            .unwrap();
        let ahead = AsyncConfig {
            ordered: true,
            ..staleness(0)
        };
        let script = Script {
            seed: 5,
            most_ms: 20,
            ..Script::default()
        };
        let mut there = trainer(&config, ahead, script);
        for (a, b) in toy::steps(&mut here, 4)
            .iter()
            .zip(toy::steps(&mut there, 4))
        {
            let mut extra = toy::bits(&b);
            extra.retain(|name, _| !name.starts_with("async/"));
            assert_eq!(toy::bits(a), extra);
            assert_eq!(toy::metric(&b, "async/staleness_max"), 0.0);
        }
        assert_eq!(toy::weights(here.policy()), toy::weights(there.policy()));
        assert_eq!(here.last_rollouts(), there.last_rollouts());
    }
}

#[test]
fn a_rollout_has_the_settings_of_the_step_that_requested_it() {
    let ahead = AsyncConfig {
        ordered: true,
        ..staleness(1)
    };
    let mut trainer = trainer(&scheduled(), ahead, Script::default());
    let mut longest = Vec::new();
    for step in 0..6 {
        let record = trainer.step().unwrap();
        // Those of the first step were requested in it, the others one step before they are used.
        let asked = u64::saturating_sub(step, 1);
        for group in &trainer.last_rollouts().groups {
            for rollout in &group.rollouts {
                let weights: Vec<f64> = rollout.rewards.iter().map(|r| r.weight).collect();
                let expected: &[f64] = if asked < 2 { &[1.0] } else { &[1.0, 0.5] };
                assert_eq!(weights, expected, "step {step}");
            }
        }
        longest.push(toy::metric(&record, "completions/max_length"));
        let weight = toy::metric(&record, "schedule/reward_weights/short");
        assert_eq!(weight, if step < 2 { 0.0 } else { 0.5 });
    }
    assert!(longest[..3].iter().all(|&len| len <= 2.0), "{longest:?}");
    assert!(longest[3..].iter().any(|&len| len > 2.0), "{longest:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn rollouts_older_than_the_bound_are_not_used(
        seed in 0u64..1000,
        bound in 0u64..4,
        most_ms in 1u64..60,
        ordered: bool,
        updates in 1usize..3,
    ) {
        let config = TrainerConfig { updates_per_pass: updates, ..config() };
        let ahead = AsyncConfig { ordered, max_attempts: 100, ..staleness(bound) };
        let script = Script { seed, most_ms, ..Script::default() };
        let mut trainer = trainer(&config, ahead, script);
        let mut addresses = BTreeSet::new();
        let mut versions = Vec::new();
        for _ in 0..6 {
            let version = trainer.policy_version();
            versions.push(version);
            let record = trainer.step().unwrap();
            let oldest = versions[versions.len().saturating_sub(1 + bound as usize)];
            prop_assert_eq!(trainer.last_rollouts().groups.len(), 3);
            for rollout in trainer.last_rollouts().rollouts() {
                prop_assert!(rollout.policy_version >= oldest && rollout.policy_version <= version);
            }
            for group in &trainer.last_rollouts().groups {
                let tokens: Vec<_> = group.rollouts.iter().map(|r| r.tokens.clone()).collect();
                // No rollout is used twice.
                prop_assert!(addresses.insert((group.problem.prompt.clone(), version_of(group), tokens)));
            }
            prop_assert!(toy::metric(&record, "async/staleness_max") <= bound as f64);
            let shares = (0..=bound).map(|age| toy::metric(&record, &format!("async/tokens_stale_{age}")));
            prop_assert!((shares.sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}

fn version_of(group: &rlvr::rollout::RolloutGroup) -> u64 {
    group.rollouts[0].policy_version
}

#[test]
fn an_ordered_run_does_not_depend_on_timing() {
    let run = |seed| {
        let ahead = AsyncConfig {
            ordered: true,
            ..staleness(2)
        };
        let script = Script {
            seed,
            most_ms: 30,
            ..Script::default()
        };
        let mut trainer = trainer(&config(), ahead, script);
        toy::steps(&mut trainer, 5);
        (
            toy::weights(trainer.policy()),
            trainer.last_rollouts().clone(),
        )
    };
    let (first, second) = (run(1), run(2));
    assert_eq!(first, second);
    let stale = |rollouts: &RolloutBuffer| rollouts.rollouts().any(|r| r.policy_version < 4);
    assert!(stale(&first.1), "it ran ahead");
}

#[test]
fn training_on_stale_rollouts_learns() {
    let script = Script {
        seed: 3,
        most_ms: 3,
        ..Script::default()
    };
    // In order, so that the outcome does not depend on timing.
    let ahead = AsyncConfig {
        ordered: true,
        ..staleness(1)
    };
    let mut trainer = trainer(&config(), ahead, script);
    let records = toy::steps(&mut trainer, 40);
    let reward = |range: std::ops::Range<usize>| {
        let count = range.len() as f64;
        let rewards = records[range]
            .iter()
            .map(|record| toy::metric(record, "reward"));
        rewards.sum::<f64>() / count
    };
    let (first, last) = (reward(0..5), reward(35..40));
    assert!(last > first + 0.3, "{first} {last}");
    assert!(
        records
            .iter()
            .any(|r| toy::metric(r, "async/staleness") > 0.0)
    );
}

#[test]
fn a_checkpoint_keeps_finished_groups_and_requests_the_others_again() {
    let folder = tempfile::tempdir().unwrap();
    let first = Script::default();
    let mut before = trainer(&config(), staleness(2), first.clone());
    toy::steps(&mut before, 2);
    // Every request is answered at once. The step after the last answer has all of them.
    let sent = || first.sent.load(Ordering::Relaxed) == first.asked.lock().unwrap().len();
    until("every request is answered", sent);
    toy::steps(&mut before, 1);
    let path = before.save_checkpoint(folder.path(), 1).unwrap();
    let asked = first.asked.lock().unwrap().clone();
    // The rollouts of two steps ran ahead.
    assert_eq!(asked.len(), 3 * 3 + 2 * 3);

    let second = Script::default();
    let mut after = trainer(&config(), staleness(2), second.clone());
    after.load_checkpoint(&path).unwrap();
    assert_eq!(after.steps_done(), 3);
    let mut learned: Vec<_> = Vec::new();
    for _ in 0..2 {
        after.step().unwrap();
        learned.extend(after.last_rollouts().groups.iter().map(version_of));
    }
    // The next two steps use the finished groups, and those in flight are requested again at their
    // old addresses.
    let again = second.asked.lock().unwrap().clone();
    let old: Vec<_> = again.iter().filter(|address| address[1] < 3).collect();
    assert!(
        old.iter().all(|address| asked.contains(address)),
        "{again:?}"
    );
    let stale = learned.iter().filter(|&&version| version < 3).count();
    assert_eq!(stale + old.len(), 6, "{learned:?} {again:?}");
    assert!(stale > 0);
}

/// Fails while the flag is set.
struct Failing(Arc<AtomicBool>);

impl Scorer for Failing {
    fn name(&self) -> String {
        "failing".into()
    }

    fn log_probs(&self, rollouts: &RolloutBuffer, _config: &ScoringConfig) -> Result<PerToken> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(failure()),
            false => Ok(PerToken::filled(&rollouts.lengths(), -1.0)),
        }
    }
}

#[test]
fn a_failed_step_leaves_its_rollouts_for_the_next() {
    let fails = Arc::new(AtomicBool::new(true));
    let script = Script::default();
    let ahead = AsyncConfig {
        ordered: true,
        ..staleness(1)
    };
    let config = TrainerConfig {
        measure_kl: true,
        ..config()
    };
    let mut trainer = toy::builder(&config, 0, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems())
        .reference(Failing(fails.clone()))
        .source(AsyncRollouts::new(Delayed::new(script.clone()), ahead).unwrap())
        .build()
        .unwrap();
    assert!(trainer.step().is_err());
    let asked = script.asked.lock().unwrap().clone();
    fails.store(false, Ordering::Relaxed);
    trainer.step().unwrap();
    assert_eq!(
        *script.asked.lock().unwrap(),
        asked,
        "nothing is requested again"
    );
    let learned: Vec<_> = trainer.last_rollouts().groups.iter().collect();
    assert_eq!(learned.len(), 3);
    assert!(asked.iter().take(3).all(|address| address[1] == 0));
}

#[test]
fn failed_samples_make_a_smaller_group_and_failed_groups_are_requested_again() {
    let script = Script {
        failing: BTreeMap::from([(0, vec![1, 4]), (1, (0..8).collect())]),
        ..Script::default()
    };
    let ahead = AsyncConfig {
        ordered: true,
        ..staleness(0)
    };
    let mut trainer = trainer(&config(), ahead, script.clone());
    let record = trainer.step().unwrap();
    assert_eq!(toy::metric(&record, "async/failed_samples"), 10.0);
    assert_eq!(toy::metric(&record, "async/failed_groups"), 1.0);
    let groups = &trainer.last_rollouts().groups;
    let samples: Vec<_> = groups[0].rollouts.iter().map(|r| r.sample).collect();
    assert_eq!(samples, [0, 2, 3, 5, 6, 7]);
    assert_eq!(groups[1].rollouts.len(), 8);
    let asked = script.asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[1], asked[3]);
}

#[test]
fn a_failed_engine_ends_the_run_with_its_error() {
    let failing = Script {
        failing_from: Some(3),
        ..Script::default()
    };
    let dead = Script::default();
    dead.dead.store(true, Ordering::Relaxed);
    for (script, steps) in [(failing, 1), (dead, 0)] {
        let mut trainer = trainer(&config(), staleness(0), script);
        toy::steps(&mut trainer, steps);
        let before = toy::weights(trainer.policy());
        let message = trainer.step().unwrap_err().to_string();
        assert!(
            message.contains("http://127.0.0.1:9") && message.contains("start it"),
            "{message}"
        );
        assert_eq!(toy::weights(trainer.policy()), before);
    }
}

#[test]
fn an_unreachable_bound_is_an_error_and_not_a_hang() {
    // The learner is faster than the engine: rollouts requested ahead are too old when they arrive.
    let script = Script {
        seed: 1,
        most_ms: 400,
        ..Script::default()
    };
    let ahead = AsyncConfig {
        max_dropped: 0,
        ..staleness(1)
    };
    let mut trainer = trainer(&config(), ahead, script.clone());
    let message = (0..30)
        .find_map(|_| trainer.step().err())
        .unwrap()
        .to_string();
    assert!(message.contains("max_staleness"), "{message}");
    assert!(script.cancelled.load(Ordering::Relaxed) > 0);
}

#[test]
fn settings_incompatible_with_stale_rollouts_are_errors() {
    let refused = |config: &TrainerConfig, ahead: AsyncConfig| {
        try_trainer(config, ahead, Script::default())
            .err()
            .unwrap()
            .to_string()
    };
    let message = refused(&toy::config(), staleness(1));
    assert!(
        message.contains("sampler_correction") && message.contains("token_truncate"),
        "{message}"
    );
    assert!(try_trainer(&toy::config(), staleness(0), Script::default()).is_ok());
    let none = AsyncConfig {
        max_attempts: 0,
        ..staleness(0)
    };
    assert!(refused(&config(), none).contains("async.max_attempts"));

    let tools = ToolEnvironment::new(ToolSet::new(), ReplyParser::named("hermes").unwrap());
    let several_turns = toy::builder(&config(), 0, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems())
        .agent_loop(AgentLoop::new(tools))
        .source(AsyncRollouts::new(Delayed::new(Script::default()), staleness(1)).unwrap())
        .build();
    let message = several_turns.err().unwrap().to_string();
    assert!(message.contains("agent_loop"), "{message}");
}
