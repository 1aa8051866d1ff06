//! Dynamic sampling: groups without a signal are replaced by other problems.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::zero_std::zero_std;
use crate::rollout::{Rollout, RolloutGroup};
use crate::{Error, Result};

/// The settings of dynamic sampling, which replaces groups without a signal (DAPO, arXiv
/// 2503.14476, section 3.2).
///
/// A group has a signal if at least two of its completions are scored and the standard deviation of
/// their scores is above 1e-8. Otherwise every advantage within the group is 0, and the group only
/// dilutes the step. Such a group is dropped and the next problems are sampled, until the step has
/// `problems_per_step` groups. The position in the problem order is part of a checkpoint, so a
/// resumed run samples the same problems.
///
/// The remaining groups are a biased sample of the problems: the metric `reward` covers the kept
/// groups only. Additional metrics describe all groups:
///
/// | metric | |
/// |---|---|
/// | `dynamic_sampling/problems` | problems sampled |
/// | `dynamic_sampling/frac_zero_std` | share of them without a signal |
/// | `dynamic_sampling/reward` | mean reward of all of them |
/// | `dynamic_sampling/refills` | rounds of generation after the first |
/// | `dynamic_sampling/unfilled` | groups that were still missing after the last round |
/// | `dynamic_sampling/dropped_tokens` | tokens that were generated but not trained on |
#[doc(alias = "filter_groups")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DynamicSampling {
    /// The name of the reward whose scores must differ. Default: the total. With the name of the
    /// accuracy reward, groups that differ in length or format only are dropped too.
    pub reward: Option<String>,
    /// The largest number of generation rounds in a step. Default 10, as in DAPO's recipe for verl
    /// (`max_num_gen_batches`).
    ///
    /// A round samples as many problems as should fill the step, given the share of groups with a
    /// signal so far, but at most `problems_per_step`. Surplus groups with a signal are dropped.
    pub max_rounds: usize,
    /// What happens if groups are still missing after the last round. Default: a smaller step.
    pub exhausted: Exhausted,
}

/// What happens if groups are missing after [`DynamicSampling::max_rounds`] rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exhausted {
    /// The step uses the groups with a signal and logs a warning. If no group has a signal, it
    /// keeps the groups that were generated first, whose advantages are zero, for their metrics.
    /// The default.
    #[default]
    SmallerStep,
    /// The step is filled with the groups that were dropped first, as without dynamic sampling.
    KeepZeroVariance,
    /// The step fails with [`Error::NoSignal`], which ends the run, as in verl.
    Fail,
}

impl Default for DynamicSampling {
    fn default() -> Self {
        Self {
            reward: None,
            max_rounds: 10,
            exhausted: Exhausted::default(),
        }
    }
}

impl DynamicSampling {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `max_rounds` is 0.
    pub fn validate(&self) -> Result<()> {
        if self.max_rounds == 0 {
            return Err(Error::config(
                "dynamic_sampling.max_rounds",
                0,
                "at least 1 round",
            ));
        }
        Ok(())
    }

    /// Rejects a reward that is not one of `names`.
    pub(super) fn check_reward(&self, names: &[&str]) -> Result<()> {
        match &self.reward {
            Some(name) if !names.contains(&name.as_str()) => Err(Error::config(
                "dynamic_sampling.reward",
                name,
                format!("one of {names:?}, or none for the total"),
            )),
            _ => Ok(()),
        }
    }

    /// Returns whether the scored `group` has a signal.
    ///
    /// # Errors
    /// Returns an error if a score is not finite.
    pub fn has_signal(&self, group: &RolloutGroup) -> Result<bool> {
        let score = |rollout: &Rollout| match &self.reward {
            // A rollout without a total is excluded from training, whatever this score is.
            Some(name) => rollout.reward.and(rollout.score(name)),
            None => rollout.total_reward(),
        };
        let scores: Vec<Option<f64>> = group.rollouts.iter().map(score).collect();
        if scores.iter().flatten().count() < 2 {
            return Ok(false);
        }
        Ok(!zero_std(&scores, &vec![0; scores.len()])?[0])
    }
}

/// The counters of dynamic sampling in a step.
#[derive(Clone, Debug, Default)]
pub(super) struct SamplingReport {
    pub problems: usize,
    pub flat: usize,
    pub rounds: usize,
    pub unfilled: usize,
    pub dropped_tokens: usize,
    pub rewards: Vec<f64>,
}

impl SamplingReport {
    /// Returns the number of problems of the next round, if `missing` of `count` groups are
    /// missing.
    pub fn next_round(&self, missing: usize, count: usize) -> usize {
        let with_signal = self.problems - self.flat;
        if with_signal == 0 {
            return count;
        }
        let likely = (missing * self.problems).div_ceil(with_signal);
        likely.clamp(missing, count)
    }

    /// Counts a sampled group.
    pub fn add(&mut self, group: &RolloutGroup, signal: bool) {
        self.problems += 1;
        self.flat += usize::from(!signal);
        let rewards = group.rollouts.iter().filter_map(|rollout| rollout.reward);
        self.rewards.extend(rewards);
    }

    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: f64| {
            metrics.insert(format!("dynamic_sampling/{name}"), value);
        };
        put("problems", self.problems as f64);
        put(
            "frac_zero_std",
            self.flat as f64 / self.problems.max(1) as f64,
        );
        put("refills", self.rounds.saturating_sub(1) as f64);
        put("unfilled", self.unfilled as f64);
        put("dropped_tokens", self.dropped_tokens as f64);
        if !self.rewards.is_empty() {
            let sum: f64 = self.rewards.iter().sum();
            put("reward", sum / self.rewards.len() as f64);
        }
        metrics
    }
}

/// Calls `ask` for rounds of groups until `count` groups have a signal; then applies
/// [`DynamicSampling::exhausted`] if groups are missing.
pub(super) fn fill(
    dynamic: &DynamicSampling,
    step: u64,
    count: usize,
    mut ask: impl FnMut(usize) -> Result<Vec<RolloutGroup>>,
) -> Result<(Vec<RolloutGroup>, SamplingReport)> {
    let mut report = SamplingReport::default();
    let (mut kept, mut flat) = (Vec::with_capacity(count), Vec::new());
    while kept.len() < count && report.rounds < dynamic.max_rounds {
        let groups = ask(report.next_round(count - kept.len(), count))?;
        report.rounds += 1;
        for group in groups {
            let signal = dynamic.has_signal(&group)?;
            report.add(&group, signal);
            match signal {
                true => kept.push(group),
                false => flat.push(group),
            }
        }
    }
    let surplus = kept.split_off(kept.len().min(count));
    report.unfilled = count - kept.len();
    if report.unfilled > 0 {
        if dynamic.exhausted == Exhausted::Fail {
            return Err(Error::NoSignal {
                step,
                kept: kept.len(),
                wanted: count,
                asked: report.problems,
                advice: "use problems that the policy sometimes solves, larger groups, or another \
                         dynamic_sampling.exhausted"
                    .into(),
            });
        }
        tracing::warn!(
            step = step + 1,
            groups = kept.len(),
            wanted = count,
            problems = report.problems,
            "dynamic sampling found too few groups whose rewards differ"
        );
        // A step without a signal still needs groups to measure.
        if dynamic.exhausted == Exhausted::KeepZeroVariance || kept.is_empty() {
            kept.extend(flat.drain(..report.unfilled.min(flat.len())));
        }
    }
    let dropped = surplus.iter().chain(&flat);
    report.dropped_tokens = dropped.map(RolloutGroup::trained_tokens).sum();
    Ok((kept, report))
}
