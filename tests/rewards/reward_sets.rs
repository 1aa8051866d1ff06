//! Sets of rewards: totals, groups, batches, time limits and order.

mod batches;
mod groups;
mod laws;
mod totals;

use std::thread;

use rlvr::prompt::Problem;
use rlvr::reward::{
    FnReward, GroupInput, GroupReward, Reward, RewardError, RewardInput, RewardSet,
    RewardSetBuilder,
};
use rlvr::rollout::{Rollout, RolloutBuffer, RolloutGroup};

/// A reward that follows the word at `place` in the completion: `1.5 abstain error`.
pub fn word(name: &str, place: usize) -> impl Reward {
    FnReward::new(name, move |input: &RewardInput| {
        match input.completion().split_whitespace().nth(place) {
            Some("abstain") | None => Ok(None),
            Some("error") => Err("told to".into()),
            Some("panic") => panic!("told to panic"),
            Some("hang") => loop {
                thread::park();
            },
            Some(number) => Ok(Some(number.parse()?)),
        }
    })
}

pub fn inputs(texts: &[&str]) -> Vec<RewardInput> {
    let input = |text: &&str| RewardInput::new("", "", *text);
    texts.iter().map(input).collect()
}

pub fn totals(set: RewardSetBuilder, texts: &[&str]) -> Vec<Option<f64>> {
    let scored = set.build().unwrap().score(inputs(texts));
    scored.into_iter().map(|one| one.reward).collect()
}

/// The rollouts of each group, scored.
pub fn score_groups(set: &RewardSet, groups: Vec<Vec<RewardInput>>) -> Vec<Vec<Rollout>> {
    let mut buffer = RolloutBuffer::new();
    for group in groups {
        let rollouts = group.into_iter().map(|input| (*input.rollout).clone());
        let problem = Problem::new("", "");
        buffer.push(RolloutGroup::new(problem, vec![1], rollouts.collect()));
    }
    set.score_rollouts(&mut buffer);
    buffer
        .groups
        .into_iter()
        .map(|group| group.rollouts)
        .collect()
}

pub fn message(set: RewardSetBuilder) -> String {
    set.build().unwrap_err().to_string()
}

/// A group reward from a closure.
pub struct OfGroup<F> {
    pub name: &'static str,
    pub reads: Vec<&'static str>,
    pub score: F,
}

impl<F> GroupReward for OfGroup<F>
where
    F: Fn(&GroupInput) -> Result<Vec<Option<f64>>, RewardError> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.name
    }

    fn reads(&self) -> Vec<&str> {
        self.reads.clone()
    }

    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
        (self.score)(group)
    }
}
