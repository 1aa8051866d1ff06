//! Every estimator in the training loop: its inputs, and the advantages that the loss uses.

use burn::module::Module;
use rlvr::advantage::{
    AdvantageEstimator, AdvantageInput, Advantages, Estimator, Gae, Gdpo, Group, GroupMean,
    OptimalTokenBaseline, Probabilities, ReinforcePlusPlus, Remax, SingletonGroup,
};
use rlvr::loss::{KlEstimator, KlPenalty, PolicyObjective};
use rlvr::policy::causal::CausalModel;
use rlvr::policy::{PolicyModel, squared_probabilities};
use rlvr::reward::{RewardError, RewardInput, TokenReward};
use rlvr::rollout::{RolloutBatch, RolloutBuffer};
use rlvr::train::observer::StepRecord;
use rlvr::train::{EvaluationConfig, KlInReward, TrainerConfig};
use rlvr::types::PerToken;

use crate::common::assert_close;
use crate::common::toy::{self, Rl};

/// The builder of a trainer with one on-policy update, averaged over tokens: the loss is minus the
/// mean advantage of a token.
fn builder(
    config: &TrainerConfig,
    seed: u64,
) -> rlvr::train::TrainerBuilder<CausalModel, rlvr::policy::ValueHead<CausalModel>> {
    toy::builder(config, seed, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems())
}

fn config(advantage: impl Into<Estimator>) -> TrainerConfig {
    TrainerConfig {
        objective: PolicyObjective::dapo(),
        advantage: advantage.into(),
        ..toy::config()
    }
}

fn loss_of(advantages: &Advantages) -> f64 {
    let tokens: Vec<f64> = advantages.per_token.values().collect();
    -tokens.iter().sum::<f64>() / tokens.len() as f64
}

/// The log-probs of the policy for its own tokens, computed outside the trainer.
fn thoughts(policy: &CausalModel, rollouts: &RolloutBuffer) -> [PerToken; 2] {
    let (policy, config) = (policy.valid(), toy::config().log_probs());
    let batch = RolloutBatch::all(rollouts, &policy.device()).unwrap();
    let hidden = batch.hidden_states(&policy).unwrap();
    let squares = squared_probabilities(hidden, policy.unembedding(), &config).unwrap();
    let log_probs = batch.score(&policy, &config).unwrap().log_probs;
    [log_probs, squares].map(|table| batch.unpad(table, "numbers").unwrap())
}

/// The advantages of the trainer's last step, from its rollouts alone.
fn recomputed(
    trainer: &Rl,
    estimator: &dyn AdvantageEstimator,
    before: &CausalModel,
    greedy: &RolloutBuffer,
) -> Advantages {
    let rollouts = trainer.last_rollouts();
    let (rewards, groups, lengths) = (rollouts.rewards(), rollouts.group_ids(), rollouts.lengths());
    let names = ["accuracy", "short"];
    let parts: Vec<Vec<Option<f64>>> = rollouts
        .rollouts()
        .map(|rollout| names.map(|name| rollout.score(name)).to_vec())
        .collect();
    let answered = |group: usize| {
        let asked = &rollouts.groups[group].problem;
        let found = greedy.groups.iter().find(|other| &other.problem == asked);
        found.unwrap().rollouts[0].reward
    };
    let baselines: Vec<_> = groups.iter().map(|group| answered(*group)).collect();
    let [log_probs, squares] = thoughts(before, rollouts);
    let probabilities = Probabilities {
        log_probs: &log_probs,
        sum_pi_squared: &squares,
        importance_weights: None,
    };
    let token_rewards = rollouts.token_rewards();
    let mut input = AdvantageInput::new(&rewards, &groups, &lengths)
        .with_components(&parts, &[1.0, 0.25])
        .with_baselines(&baselines)
        .with_probabilities(probabilities);
    input.token_rewards = token_rewards.as_ref();
    estimator.estimate(&input).unwrap()
}

/// A step, and the expected loss of its rollouts.
fn step(trainer: &mut Rl, estimator: &dyn AdvantageEstimator) -> (StepRecord, f64) {
    let before = trainer.policy().clone();
    let exam = trainer
        .evaluate(&toy::problems(), &EvaluationConfig::default())
        .unwrap();
    let record = trainer.step().unwrap();
    let want = loss_of(&recomputed(trainer, estimator, &before, &exam.greedy));
    (record, want)
}

#[test]
fn every_estimator_without_a_critic_trains_on_its_own_advantages() {
    let all = Estimator::all();
    // `tests/objectives/distillation` tests the estimators that need a teacher.
    let ready = all
        .iter()
        .filter(|estimator| !estimator.needs_values() && !estimator.needs_ref_log_probs());
    let mut losses = Vec::new();
    for estimator in ready {
        let mut trainer = toy::trainer(&config(estimator.clone()), 1, &toy::device());
        for _ in 0..3 {
            let (record, want) = step(&mut trainer, estimator);
            let name = estimator.name();
            assert_close(toy::metric(&record, "loss"), want, 1e-4, 1e-5, name);
            assert!(toy::metric(&record, "grad_norm").is_finite(), "{name}");
            losses.push(want.abs());
        }
    }
    assert_eq!(losses.len(), 3 * (all.len() - 2));
    // Lengths differ, so that few of these means are 0 and the comparison can fail.
    assert!(losses.iter().filter(|loss| **loss > 1e-3).count() > 20);
}

#[test]
fn a_group_size_of_one_works_for_estimators_without_groups() {
    let singleton = SingletonGroup::Score;
    let alone = [
        Estimator::ReinforcePlusPlus(ReinforcePlusPlus::default()),
        Remax {}.into(),
        Group {
            singleton,
            ..Group::default()
        }
        .into(),
    ];
    for estimator in alone {
        let config = TrainerConfig {
            group_size: 1,
            ..config(estimator.clone())
        };
        let mut trainer = toy::trainer(&config, 0, &toy::device());
        let (record, want) = step(&mut trainer, &estimator);
        assert_close(
            toy::metric(&record, "loss"),
            want,
            1e-4,
            1e-5,
            estimator.name(),
        );
    }
    for estimator in Estimator::all() {
        if !estimator.needs_groups() {
            continue;
        }
        let config = TrainerConfig {
            group_size: 1,
            ..config(estimator.clone())
        };
        let error = config.validate().unwrap_err().to_string();
        let named = error.contains("group_size") && error.contains(estimator.name());
        assert!(named, "{error}");
        // The same for a custom estimator.
        let config = TrainerConfig {
            advantage: Remax {}.into(),
            ..config
        };
        let config = TrainerConfig {
            advantage: Estimator::custom(estimator),
            ..config
        };
        assert!(builder(&config, 0).build().is_err());
    }
}

#[test]
fn the_greedy_baseline_is_reported_and_consumes_no_randomness() {
    let mut with = toy::trainer(&config(Remax {}), 2, &toy::device());
    let mut without = toy::trainer(&config(ReinforcePlusPlus::default()), 2, &toy::device());
    let exam = with
        .evaluate(&toy::problems(), &EvaluationConfig::default())
        .unwrap();
    // Every problem is used once per step.
    let rewards: Vec<f64> = exam.greedy.rewards().into_iter().flatten().collect();
    let record = with.step().unwrap();
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    assert_close(
        toy::metric(&record, "baseline/reward"),
        mean,
        1e-9,
        0.0,
        "baseline",
    );
    let other = without.step().unwrap();
    assert_eq!(other.get("baseline/reward"), None);
    assert_eq!(with.last_rollouts(), without.last_rollouts());
}

#[test]
fn the_optimal_token_baseline_learns_the_task_over_several_updates() {
    let config = TrainerConfig {
        passes: 2,
        updates_per_pass: 2,
        ..config(OptimalTokenBaseline::default())
    };
    let mut trainer = toy::trainer(&config, 0, &toy::device());
    let records = toy::steps(&mut trainer, 20);
    let reward = |record: &StepRecord| toy::metric(record, "rewards/accuracy/mean");
    let (first, last) = (reward(&records[0]), reward(&records[19]));
    assert!(last > first + 0.3, "{first} to {last}");
}

/// Slightly less for each later token.
struct Hurry;

impl TokenReward for Hurry {
    fn name(&self) -> &str {
        "hurry"
    }

    fn score(&self, input: &RewardInput) -> Result<Vec<f64>, RewardError> {
        if input.prompt() == "c" && input.rollout.sample == 0 {
            return Err("not this one".into());
        }
        Ok((0..input.length()).map(|t| -0.1 * t as f64).collect())
    }
}

#[test]
fn token_rewards_are_recorded_and_used() {
    let estimators: [Estimator; 3] = [
        ReinforcePlusPlus {
            whiten: false,
            ..ReinforcePlusPlus::default()
        }
        .into(),
        Group::default().into(),
        Remax {}.into(),
    ];
    for estimator in estimators {
        let builder = builder(&config(estimator.clone()), 1).token_rewards(Hurry);
        let mut trainer = builder.build().unwrap();
        let before = trainer.policy().clone();
        let record = trainer.step().unwrap();
        let mut sums = Vec::new();
        for group in &trainer.last_rollouts().groups {
            for rollout in &group.rollouts {
                let tokens = rollout.tokens.len();
                if group.problem.prompt == "c" && rollout.sample == 0 {
                    assert_eq!(rollout.reward, None);
                    assert!(rollout.token_rewards.is_empty());
                    continue;
                }
                let want: Vec<f64> = (0..tokens).map(|t| -0.1 * t as f64).collect();
                assert_eq!(rollout.token_rewards, want);
                sums.push(want.iter().sum::<f64>());
            }
        }
        assert_eq!(toy::metric(&record, "rewards/unscored"), 1.0);
        assert_eq!(toy::metric(&record, "rewards/failures"), 1.0);
        let mean = sums.iter().sum::<f64>() / sums.len() as f64;
        assert_close(
            toy::metric(&record, "rewards/hurry/mean"),
            mean,
            1e-9,
            0.0,
            "hurry",
        );
        if !estimator.needs_baselines() {
            let want = recomputed(&trainer, &estimator, &before, trainer.last_rollouts());
            let name = estimator.name();
            assert_close(
                toy::metric(&record, "loss"),
                loss_of(&want),
                1e-4,
                1e-5,
                name,
            );
        }
    }
}

#[test]
fn incompatible_components_are_errors_that_name_both() {
    let refused = |result: rlvr::Result<Rl>, words: [&str; 2]| match result {
        Ok(_) => panic!("it was built"),
        Err(error) => {
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    };
    let penalised = TrainerConfig {
        kl_in_reward: Some(KlInReward {
            penalty: KlPenalty::new(0.1, KlEstimator::K1),
            adaptive: None,
        }),
        ..config(Gdpo::default())
    };
    let (rewards, problems) = (toy::rewards(), toy::problems());
    let built = toy::build(&penalised, 0, &toy::device(), rewards, problems);
    refused(built, ["kl_in_reward", "gdpo"]);
    // The deviation of a group whose rewards are all equal would be that of its penalties.
    let penalised = |advantage: Estimator| TrainerConfig {
        advantage,
        ..penalised.clone()
    };
    let text = penalised(Group::default().into())
        .validate()
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("kl_in_reward") && text.contains("`group`"),
        "{text}"
    );
    penalised(GroupMean::default().into()).validate().unwrap();
    let builder = |estimator: Estimator| builder(&config(estimator), 0);
    let gdpo = builder(Gdpo::default().into()).token_rewards(Hurry);
    refused(gdpo.build(), ["hurry", "gdpo"]);
    let dense = builder(Group::default().into()).token_rewards(Hurry);
    assert!(dense.build().is_ok());
    let custom = builder(Estimator::custom(Gdpo::default())).token_rewards(Hurry);
    refused(custom.build(), ["hurry", "gdpo"]);
    let custom = builder(Estimator::custom(Gae::default()));
    refused(custom.build(), ["advantage", "gae"]);

    struct Accuracy;
    impl TokenReward for Accuracy {
        fn name(&self) -> &str {
            "accuracy"
        }
        fn score(&self, _: &RewardInput) -> Result<Vec<f64>, RewardError> {
            Ok(Vec::new())
        }
    }
    let group = builder(Group::default().into()).token_rewards(Accuracy);
    refused(group.build(), ["name", "accuracy"]);
}
