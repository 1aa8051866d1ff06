//! Distillation by policy gradient: the advantage is the difference of the log-probs of teacher and
//! policy.

use std::time::Duration;

use burn::module::Module;
use rlvr::Result;
use rlvr::advantage::{Distillation, GroupMean};
use rlvr::loss::{KlEstimator, KlPenalty, PolicyObjective};
use rlvr::policy::causal::CausalModel;
use rlvr::policy::{PolicyModel, ReferencePolicy, ReferenceSync};
use rlvr::prompt::Tokenizer;
use rlvr::rollout::{RolloutBatch, RolloutBuffer};
use rlvr::train::{
    Alone, Learners, ModelScorer, SuccessfulSibling, TeacherContext, Threads, Trainer,
    TrainerBuilder, TrainerConfig,
};
use rlvr::types::{Problem, RolloutGroup};

use super::teacher;
use crate::common::assert_close;
use crate::common::toy;

type Builder = TrainerBuilder<CausalModel, rlvr::policy::ValueHead<CausalModel>>;

/// One update a step, every token weighs the same.
fn config(distillation: Distillation) -> TrainerConfig {
    TrainerConfig {
        objective: PolicyObjective::dapo(),
        advantage: distillation.into(),
        ..toy::config()
    }
}

fn builder(config: &TrainerConfig) -> Builder {
    toy::builder(config, 0, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems())
}

fn scorer() -> ModelScorer<CausalModel> {
    ModelScorer::new("teacher", &teacher(&toy::device()))
}

/// The log-probs of the tokens under `model`.
fn log_probs(model: &CausalModel, rollouts: &RolloutBuffer) -> Vec<Vec<f64>> {
    let model = model.valid();
    let batch = RolloutBatch::all(rollouts, &model.device()).unwrap();
    let scores = batch.log_probs(&model, &toy::config().log_probs()).unwrap();
    batch.unpad(scores, "log-probs").unwrap().into()
}

/// Minus the mean advantage.
fn loss(policy: &[Vec<f64>], teacher: &[Vec<f64>]) -> f64 {
    let (policy, teacher) = (policy.concat(), teacher.concat());
    let sum: f64 = policy.iter().zip(&teacher).map(|(p, t)| p - t).sum();
    sum / policy.len() as f64
}

#[test]
fn the_advantage_is_the_teachers_log_prob_minus_the_policys() {
    let config = TrainerConfig {
        objective: PolicyObjective::dapo().with_kl(Some(KlPenalty::new(0.5, KlEstimator::K3))),
        ..config(Distillation::default())
    };
    let mut trainer = builder(&config).teacher(scorer()).build().unwrap();
    let before = trainer.policy().clone();
    let record = trainer.step().unwrap();
    let rollouts = trainer.last_rollouts();
    let (policy, taught) = (
        log_probs(&before, rollouts),
        log_probs(&teacher(&toy::device()), rollouts),
    );
    let want = loss(&policy, &taught);
    assert!(want > 0.5, "{want}");
    // The KL term compares with the reference, which the policy still is.
    assert_close(toy::metric(&record, "loss"), want, 1e-4, 1e-5, "loss");
    assert_close(toy::metric(&record, "kl"), 0.0, 0.0, 1e-6, "kl");
    assert_eq!(toy::metric(&record, "teacher/share"), 1.0);
    // Without a teacher, the reference is the teacher.
    let pure = config_without_kl();
    let mut other = builder(&pure).reference(scorer()).build().unwrap();
    let record = other.step().unwrap();
    assert_close(toy::metric(&record, "loss"), want, 1e-4, 1e-5, "reference");
    assert!(record.get("teacher/share").is_none());
}

fn config_without_kl() -> TrainerConfig {
    config(Distillation::default())
}

#[test]
fn the_policy_converges_to_its_teacher() {
    let mut trainer = builder(&config_without_kl())
        .teacher(scorer())
        .build()
        .unwrap();
    // On-policy, minus the mean advantage is an estimate of the reverse KL.
    let losses: Vec<f64> = (0..250)
        .map(|_| toy::metric(&trainer.step().unwrap(), "loss"))
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[240..]));
    assert!(first > 0.5 && last < 0.1 * first, "{first} {last}");
}

fn template(problem: &Problem, solution: &str) -> String {
    format!("{solution}{}", problem.prompt)
}

fn sibling() -> SuccessfulSibling {
    SuccessfulSibling::new(toy::tokenizer(), 1.0).with_template(template)
}

/// Each rollout that has a successful sibling, with the teacher's prompt and the index.
fn in_context(rollouts: &RolloutBuffer) -> (RolloutBuffer, Vec<usize>) {
    let (mut buffer, mut places, mut place) = (RolloutBuffer::new(), Vec::new(), 0);
    for group in &rollouts.groups {
        for (own, rollout) in group.rollouts.iter().enumerate() {
            let mut others = group.rollouts.iter().enumerate();
            let solved = others.find(|(other, sibling)| {
                *other != own && sibling.reward.is_some_and(|reward| reward >= 1.0)
            });
            if let Some((_, solved)) = solved {
                let text = template(&group.problem, &solved.text);
                let prompt = toy::tokenizer().encode(&text).unwrap();
                let alone = vec![rollout.clone()];
                buffer.push(RolloutGroup::new(group.problem.clone(), prompt, alone));
                places.push(place);
            }
            place += 1;
        }
    }
    (buffer, places)
}

#[test]
fn a_policy_that_reads_a_solution_is_its_own_teacher() {
    let config = TrainerConfig {
        reference_sync: ReferenceSync::MovingAverage {
            steps: 1,
            alpha: 0.25,
        },
        ..config(Distillation::default())
    };
    let mut trainer = builder(&config).teacher_context(sibling()).build().unwrap();
    let start = trainer.policy().clone();
    let record = trainer.step().unwrap();
    let rollouts = trainer.last_rollouts().clone();
    // In the first step the moving average equals the policy: only the prompt differs.
    let policy = log_probs(&start, &rollouts);
    let (shown, places) = in_context(&rollouts);
    let mut taught = policy.clone();
    for (place, row) in places.iter().zip(log_probs(&start, &shown)) {
        taught[*place] = row;
    }
    let share = places.len() as f64 / rollouts.len() as f64;
    assert!(share > 0.0 && share < 1.0, "{share}");
    assert_eq!(toy::metric(&record, "teacher/share"), share);
    let want = loss(&policy, &taught);
    assert!(want.abs() > 1e-3, "{want}");
    assert_close(toy::metric(&record, "loss"), want, 1e-4, 1e-6, "first step");

    // Later it lags behind the policy.
    let current = trainer.policy().clone();
    let mut average = ReferencePolicy::new(&start, config.reference_sync).unwrap();
    average.after_step(1, &current);
    let record = trainer.step().unwrap();
    let rollouts = trainer.last_rollouts();
    let policy = log_probs(&current, rollouts);
    let (shown, places) = in_context(rollouts);
    let with = |model: &CausalModel| {
        let mut taught = policy.clone();
        for (place, row) in places.iter().zip(log_probs(model, &shown)) {
            taught[*place] = row;
        }
        loss(&policy, &taught)
    };
    let want = with(average.model());
    assert_close(
        toy::metric(&record, "loss"),
        want,
        1e-4,
        1e-6,
        "second step",
    );
    assert!((want - with(&start)).abs() > 1e-3 && (want - with(&current)).abs() > 1e-3);
}

/// A teacher prompt that contains the answer.
struct Answer;

impl TeacherContext for Answer {
    fn prompt(&self, group: &RolloutGroup, _rollout: usize) -> Result<Option<Vec<u32>>> {
        let text = [&*group.problem.answer, &group.problem.prompt].concat();
        toy::tokenizer().encode(&text).map(Some)
    }

    fn name(&self) -> String {
        "answer".into()
    }
}

#[test]
fn a_teacher_can_read_another_prompt() {
    let config = config_without_kl();
    let builder = builder(&config).teacher(scorer()).teacher_context(Answer);
    let mut trainer = builder.build().unwrap();
    let start = trainer.policy().clone();
    let record = trainer.step().unwrap();
    let rollouts = trainer.last_rollouts();
    let mut shown = rollouts.clone();
    for group in &mut shown.groups {
        group.prompt_tokens = Answer.prompt(group, 0).unwrap().unwrap();
    }
    let (policy, model) = (log_probs(&start, rollouts), teacher(&toy::device()));
    let want = loss(&policy, &log_probs(&model, &shown));
    assert_close(toy::metric(&record, "loss"), want, 1e-4, 1e-5, "loss");
    assert!((want - loss(&policy, &log_probs(&model, rollouts))).abs() > 1e-3);
    assert_eq!(toy::metric(&record, "teacher/share"), 1.0);
}

#[test]
fn a_rollout_too_long_for_the_teacher_gets_no_advantage() {
    let long = |problem: &Problem, solution: &str| {
        format!("{}{solution}{}", "abcd".repeat(4), problem.prompt)
    };
    let context = SuccessfulSibling::new(toy::tokenizer(), 1.0).with_template(long);
    let config = config_without_kl();
    let mut trainer = builder(&config).teacher_context(context).build().unwrap();
    let before = toy::weights(trainer.policy());
    let record = trainer.step().unwrap();
    assert_eq!(toy::metric(&record, "teacher/share"), 0.0);
    assert_eq!(toy::weights(trainer.policy()), before);
    // Mixed with rewards, those rollouts still have an advantage.
    let mixed = Distillation {
        weight: 0.5,
        rewards: Some(Box::new(GroupMean::default().into())),
        ..Distillation::default()
    };
    let context = SuccessfulSibling::new(toy::tokenizer(), 1.0).with_template(long);
    let mut trainer = builder(&self::config(mixed))
        .teacher_context(context)
        .build()
        .unwrap();
    trainer.step().unwrap();
    assert!(toy::distance(&toy::weights(trainer.policy()), &before) > 1e-3);
}

/// A distillation by a moving average that has read a solution, mixed with rewards.
fn self_distillation() -> TrainerConfig {
    TrainerConfig {
        shards: 2,
        micro_batch: 3,
        reference_sync: ReferenceSync::MovingAverage {
            steps: 1,
            alpha: 0.25,
        },
        ..config(Distillation {
            weight: 0.5,
            clip: Some(2.0),
            rewards: Some(Box::new(GroupMean::default().into())),
        })
    }
}

fn weights_after(steps: usize, learner: impl Learners + 'static) -> Result<Vec<f64>> {
    let builder = builder(&self_distillation()).teacher_context(sibling());
    let mut trainer = builder.learners(learner).build()?;
    for _ in 0..steps {
        trainer.step()?;
    }
    Ok(toy::weights(trainer.policy()))
}

#[test]
fn several_learners_and_a_resumed_run_have_the_same_bits() {
    let want = weights_after(4, Alone).unwrap();
    let limit = Duration::from_secs(300);
    for weights in Threads::run(2, limit, |learner| weights_after(4, learner)).unwrap() {
        assert_eq!(weights, want);
    }
    let build = || {
        let builder = builder(&self_distillation()).teacher_context(sibling());
        builder.build().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut trainer: Trainer<CausalModel> = build();
    toy::steps(&mut trainer, 2);
    let path = trainer.save_checkpoint(folder.path(), 1).unwrap();
    let mut resumed = build();
    resumed.load_checkpoint(&path).unwrap();
    toy::steps(&mut resumed, 2);
    assert_eq!(toy::weights(resumed.policy()), want);
    // A checkpoint of another teacher is an error.
    let context = SuccessfulSibling::new(toy::tokenizer(), 0.5);
    let other = builder(&self_distillation()).teacher_context(context);
    let error = other.build().unwrap().load_checkpoint(&path).unwrap_err();
    assert!(error.to_string().contains("teacher"), "{error}");
}

#[test]
fn an_unused_teacher_is_an_error() {
    let refused = |builder: Builder| builder.build().err().expect("an error").to_string();
    let group = toy::config();
    let message = refused(builder(&group).teacher(scorer()));
    assert!(
        message.contains("teacher") && message.contains("`group`"),
        "{message}"
    );
    let message = refused(builder(&group).teacher_context(sibling()));
    assert!(message.contains("teacher"), "{message}");
    let follows = TrainerConfig {
        reference_sync: ReferenceSync::Every { steps: 1 },
        ..config_without_kl()
    };
    let message = refused(builder(&config_without_kl()));
    assert!(message.contains("TrainerBuilder::teacher"), "{message}");
    let message = refused(builder(&follows).teacher(scorer()));
    assert!(message.contains("reference_sync"), "{message}");
    let message = refused(
        builder(&config_without_kl())
            .teacher(scorer())
            .reference(scorer()),
    );
    assert!(message.contains("reference"), "{message}");
}
