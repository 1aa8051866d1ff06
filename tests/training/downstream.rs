//! Extensions in other crates: a replay buffer, and distillation from a teacher.

use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Advantages, Estimator, GroupStatistics};
use rlvr::loss::{PolicyObjective, SamplerCorrection};
use rlvr::policy::PolicyModel;
use rlvr::train::{
    Collected, Collector, ModelScorer, PolicyState, RolloutSource, TrainerConfig, latest_checkpoint,
};
use rlvr::types::RolloutGroup;
use rlvr::{Error, Result};
use serde_json::Value;

use crate::common::toy;

// ---- a replay buffer --------------------------------------------------------------------------

/// Adds to each step a group of an earlier one whose rewards differed, the oldest first.
#[derive(Default)]
struct Replay {
    groups: Vec<RolloutGroup>,
}

impl<M: PolicyModel> RolloutSource<M> for Replay {
    fn next(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
    ) -> Result<Collected> {
        let mut collected = collector.collect(state)?;
        let fresh = collected.rollouts.groups.clone();
        if !self.groups.is_empty() {
            collected.rollouts.push(self.groups.remove(0));
        }
        let rewards = |group: &RolloutGroup| -> Vec<_> {
            group
                .rollouts
                .iter()
                .map(|rollout| rollout.reward)
                .collect()
        };
        let differ = |group: &RolloutGroup| rewards(group).windows(2).any(|two| two[0] != two[1]);
        self.groups.extend(fresh.into_iter().filter(differ));
        self.groups.truncate(8);
        Ok(collected)
    }

    fn state(&self) -> Result<Value> {
        let broken = |reason| Error::config("replay buffer", reason, "groups without NaN");
        serde_json::to_value(&self.groups).map_err(broken)
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let broken = |reason| Error::config("replay buffer", reason, "a list of groups");
        self.groups = serde_json::from_value(state.clone()).map_err(broken)?;
        Ok(())
    }
}

/// Rollouts of an older policy: the ratio is taken to the sampler's weights.
fn off_policy() -> TrainerConfig {
    TrainerConfig {
        objective: PolicyObjective::dapo()
            .with_sampler_correction(Some(SamplerCorrection::token_truncate(2.0))),
        ..toy::config()
    }
}

fn with_replay() -> toy::Rl {
    let builder = toy::builder(&off_policy(), 1, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems());
    builder.source(Replay::default()).build().unwrap()
}

#[test]
fn groups_of_earlier_steps_are_replayed_and_survive_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = with_replay();
    toy::steps(&mut trainer, 3);
    let groups = &trainer.last_rollouts().groups;
    assert_eq!(groups.len(), 5);
    let version = |group: &RolloutGroup| group.rollouts[0].policy_version;
    assert_eq!((version(&groups[0]), version(&groups[4])), (2, 0));

    trainer.save_checkpoint(folder.path(), 1).unwrap();
    let straight = trainer.step().unwrap();
    let mut resumed = with_replay();
    let latest = latest_checkpoint(folder.path()).unwrap().unwrap();
    resumed.load_checkpoint(&latest).unwrap();
    let record = resumed.step().unwrap();
    assert_eq!(record.get("loss"), straight.get("loss"));
    assert_eq!(resumed.last_rollouts(), trainer.last_rollouts());
    assert_eq!(
        toy::weights(resumed.policy()),
        toy::weights(trainer.policy())
    );
    // A trainer without the buffer would not continue the same run.
    let mut plain = toy::trainer(&off_policy(), 1, &toy::device());
    assert!(plain.load_checkpoint(&latest).is_err());
    assert_eq!(plain.steps_done(), 0);
}

// ---- on-policy distillation ---------------------------------------------------------------------

/// The advantage of a token is the teacher's log-prob minus the policy's.
#[derive(Clone, Debug)]
struct TeacherMinusPolicy;

impl AdvantageEstimator for TeacherMinusPolicy {
    fn name(&self) -> &'static str {
        "teacher_minus_policy"
    }

    fn needs_groups(&self) -> bool {
        false
    }

    fn needs_ref_log_probs(&self) -> bool {
        true
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        let (Some(policy), Some(teacher)) = (input.policy_log_probs, input.ref_log_probs) else {
            return Err(Error::config("reference", "none", "a teacher"));
        };
        Ok(Advantages {
            per_token: teacher.zip_with(policy, |teacher, policy| teacher - policy)?,
            returns: None,
            statistics: GroupStatistics::of(&input.scores()?, input.groups)?,
        })
    }
}

#[test]
fn a_policy_approaches_its_teacher() {
    let config = TrainerConfig {
        group_size: 16,
        objective: PolicyObjective::reinforce(),
        advantage: Estimator::custom(TeacherMinusPolicy),
        ..toy::config()
    };
    // A teacher that has learned the task.
    let mut taught = toy::trainer(&toy::config(), 5, &toy::device());
    taught.train(25).unwrap();
    let builder = toy::builder(&config, 6, &toy::device())
        .rewards(toy::rewards())
        .problems(toy::problems());
    let builder = builder.reference(ModelScorer::new("teacher", taught.policy()));
    let mut student = builder.build().unwrap();
    let first = student.step().unwrap();
    student.train(40).unwrap();
    let last = student.step().unwrap();
    let kl = |record| toy::metric(record, "kl");
    assert!(kl(&last) < kl(&first) / 4.0, "{} {}", kl(&first), kl(&last));
    // The accuracy rises too, without a reward.
    let reward = |record| toy::metric(record, "rewards/accuracy/mean");
    assert!(reward(&last) > reward(&first) + 0.2);
}
