//! Several rewards over a batch of completions, and what they come to.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::pool::Pool;
use super::{Reward, RewardInput};
use crate::rollout::{RewardOutcome, RewardRecord, RolloutBuffer};
use crate::{Error, Result};

/// The default of [`RewardSetBuilder::time_limit`].
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The most abandoned threads with which a new job is still started: enough for a bad batch, few for an operating system.
const MAX_ABANDONED: usize = 64;

/// Weighted rewards that are run together.
///
/// [`score`](Self::score) runs every reward on every input. Each of these pairs is one job on a worker thread, and whatever it
/// does becomes one [`RewardOutcome`]: a number, an abstention, an error, a panic, or a time-out. No reward can end the
/// run, delay the others by more than the time limit, or have its failure taken for a 0.
///
/// ```
/// use rlvr::reward::{AccuracyReward, FnReward, RewardInput, RewardSet};
/// use rlvr::rollout::RewardOutcome;
///
/// let rewards = RewardSet::builder()
///     .add(1.0, AccuracyReward::new())
///     .add(0.1, FnReward::new("polite", |input| match input.completion.as_str() {
///         "" => Ok(None),
///         text => Ok(Some(if text.contains("please") { 1.0 } else { 0.0 })),
///     }))
///     .add(0.0, FnReward::new("fussy", |input| match input.completion.contains('!') {
///         true => panic!("no shouting"),
///         false => Ok(Some(1.0)),
///     }))
///     .build()?;
///
/// let answer = |text| RewardInput::new("2+2=", "4", text);
/// let scored = rewards.score(vec![
///     answer("please, <answer>4</answer>"),
///     answer(""),
///     answer("<answer>4</answer>!"),
/// ]);
///
/// assert_eq!(scored[0].total, Some(1.1));
/// assert_eq!(scored[1].total, Some(0.0)); // "polite" abstained, the others decide
/// assert_eq!(scored[2].total, None); // "fussy" broke: nothing is learned from this one
/// assert_eq!(scored[2].records[2].outcome, RewardOutcome::Panicked("no shouting".into()));
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # The total
///
/// The sum of weight times score over the rewards that gave a number. A reward that abstains is left out, as a NaN is in TRL's
/// `nansum`. The total is `None`
/// - if all rewards abstain,
/// - if any reward fails, panics or times out: the sum without it would compare this rollout with others on another scale, so
///   it leaves the statistics instead of being punished, or spared, for a broken reward,
/// - if the sum is too large for an `f64`.
///
/// A weight of 0 records a reward without paying for it. It still counts as above when it breaks.
///
/// # The time limit
///
/// It is wall-clock time, counted from the moment the job starts to run. A job that passes it is recorded as
/// [`RewardOutcome::TimedOut`], and what it returns later is dropped. Safe Rust cannot kill its thread: the thread is
/// *abandoned*, a fresh one takes its place, and it ends when the job returns, if ever. Up to 64 such threads are put up
/// with (a few more if jobs that already run pass the limit as well). With more, jobs are not started but recorded as
/// [`RewardOutcome::Failed`], until some of the threads come back.
///
/// A time-out therefore costs memory, and a core if the job spins, and near the limit it depends on the machine's load. Rewards
/// that bound their own work, see [`Reward`], never meet it. Nothing here helps against a reward that overflows its
/// stack, exhausts the memory or exits the process, nor against panics in a program built with `panic = "abort"`.
#[derive(Clone)]
pub struct RewardSet {
    rewards: Arc<[Entry]>,
    pool: Pool,
}

struct Entry {
    name: String,
    weight: f64,
    reward: Box<dyn Reward>,
}

/// What a [`RewardSet`] says about one input.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// One record for each reward, in the order of the set.
    pub records: Vec<RewardRecord>,
    /// The weighted sum, or `None`; see [`RewardSet`].
    pub total: Option<f64>,
}

impl RewardSet {
    /// A set to be filled: at least one [`add`](RewardSetBuilder::add), then [`build`](RewardSetBuilder::build).
    pub fn builder() -> RewardSetBuilder {
        RewardSetBuilder {
            rewards: Vec::new(),
            time_limit: TIME_LIMIT,
            threads: None,
        }
    }

    /// Scores every input with every reward; the results are in the order of the inputs.
    ///
    /// For pure rewards that stay within the time limit the result does not depend on the threads or their timing. The call
    /// blocks until every job has an outcome: with `n` hanging jobs on `t` threads about `n / t` time limits. It may be called
    /// from several threads at once; each call has its own workers, and all share the count of abandoned ones.
    ///
    /// Failures are logged as one `tracing` warning for each reward that had any. The default panic hook, which writes
    /// to the standard error, is left as it is.
    pub fn score(&self, inputs: Vec<RewardInput>) -> Vec<Scored> {
        let width = self.rewards.len();
        let jobs = inputs.len() * width;
        let rewards = Arc::clone(&self.rewards);
        let job = move |i: usize| outcome(&*rewards[i % width].reward, &inputs[i / width]);
        let mut outcomes = self.pool.run(jobs, Arc::new(job)).into_iter();
        let scored: Vec<Scored> = (0..jobs / width)
            .map(|_| self.record(outcomes.by_ref().take(width)))
            .collect();
        self.report(&scored);
        scored
    }

    /// Scores every rollout of a buffer and writes records and total into it.
    pub fn score_rollouts(&self, rollouts: &mut RolloutBuffer) {
        let mut inputs = Vec::with_capacity(rollouts.len());
        for group in &rollouts.groups {
            inputs.extend(group.rollouts.iter().map(|rollout| RewardInput {
                prompt: group.problem.prompt.clone(),
                answer: group.problem.answer.clone(),
                completion: rollout.text.clone(),
                tokens: rollout.tokens.len(),
                finish: rollout.finish,
                metadata: group.problem.metadata.clone(),
            }));
        }
        for (rollout, scored) in rollouts.rollouts_mut().zip(self.score(inputs)) {
            rollout.rewards = scored.records;
            rollout.reward = scored.total;
        }
    }

    /// The names of the rewards, in the order in which they were added.
    pub fn names(&self) -> Vec<&str> {
        self.rewards.iter().map(|entry| &*entry.name).collect()
    }

    /// The weights of the rewards, in the order in which they were added.
    pub fn weights(&self) -> Vec<f64> {
        self.rewards.iter().map(|entry| entry.weight).collect()
    }

    /// How many threads are still busy with a job that has passed the time limit, of this set and its clones.
    pub fn abandoned_threads(&self) -> usize {
        self.pool.abandoned()
    }

    fn record(&self, outcomes: impl Iterator<Item = RewardOutcome>) -> Scored {
        let records: Vec<RewardRecord> = self
            .rewards
            .iter()
            .zip(outcomes)
            .map(|(entry, outcome)| RewardRecord {
                name: entry.name.clone(),
                weight: entry.weight,
                outcome,
            })
            .collect();
        let total = total(&records);
        Scored { records, total }
    }

    fn report(&self, scored: &[Scored]) {
        for (i, entry) in self.rewards.iter().enumerate() {
            let outcomes = scored.iter().map(|one| &one.records[i].outcome);
            let mut failures = outcomes.filter(|outcome| outcome.is_failure());
            if let Some(first) = failures.next() {
                tracing::warn!(
                    reward = entry.name,
                    failures = 1 + failures.count(),
                    rollouts = scored.len(),
                    abandoned_threads = self.abandoned_threads(),
                    ?first,
                    "a reward broke; its rollouts have no total"
                );
            }
        }
    }
}

impl fmt::Debug for RewardSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewardSet")
            .field("names", &self.names())
            .field("weights", &self.weights())
            .field("time_limit", &self.pool.limit)
            .field("threads", &self.pool.threads)
            .finish_non_exhaustive()
    }
}

fn outcome(reward: &dyn Reward, input: &RewardInput) -> RewardOutcome {
    match reward.score(input) {
        Ok(Some(score)) if score.is_finite() => RewardOutcome::Score(score),
        Ok(Some(score)) => {
            RewardOutcome::Failed(format!("the score is {score}; expected a finite number"))
        }
        Ok(None) => RewardOutcome::Abstained,
        Err(error) => RewardOutcome::Failed(error.to_string()),
    }
}

fn total(records: &[RewardRecord]) -> Option<f64> {
    if records.iter().any(|record| record.outcome.is_failure()) {
        return None;
    }
    let terms = records.iter().filter_map(|record| {
        let score = record.outcome.score()?;
        Some(record.weight * score)
    });
    terms
        .reduce(|sum, term| sum + term)
        .filter(|total| total.is_finite())
}

/// Collects the rewards and the settings of a [`RewardSet`].
#[must_use]
pub struct RewardSetBuilder {
    rewards: Vec<(f64, Box<dyn Reward>)>,
    time_limit: Duration,
    threads: Option<usize>,
}

impl RewardSetBuilder {
    /// One more reward and its weight in the total, any finite number. `Arc<dyn Reward>` and `Box<dyn Reward>` are rewards too.
    pub fn add(mut self, weight: f64, reward: impl Reward) -> Self {
        self.rewards.push((weight, Box::new(reward)));
        self
    }

    /// How long one reward may take for one input, more than zero. Default: 5 seconds.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// How many jobs of one batch run at once, at least 1. Default: [`std::thread::available_parallelism`].
    ///
    /// Rewards that wait - for a subprocess, for a service - may want more.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The set.
    ///
    /// # Errors
    /// [`Error::Config`], naming the field: no reward at all, an empty name or one that occurs twice, a weight that is not
    /// finite, a time limit of zero, no threads.
    pub fn build(self) -> Result<RewardSet> {
        if self.rewards.is_empty() {
            return Err(Error::config("rewards", "none", "at least one reward"));
        }
        if self.time_limit.is_zero() {
            return Err(Error::config("time_limit", "0 s", "more than zero"));
        }
        let threads = match self.threads {
            Some(0) => return Err(Error::config("threads", 0, "1 or more")),
            Some(threads) => threads,
            None => thread::available_parallelism().map_or(1, usize::from),
        };
        let mut names = HashSet::new();
        let mut rewards = Vec::new();
        for (i, (weight, reward)) in self.rewards.into_iter().enumerate() {
            // Asked once, so that no later answer can make records disagree.
            let name = reward.name().to_string();
            if name.is_empty() || !names.insert(name.clone()) {
                let expected = "a name that no other reward of the set has, not empty";
                return Err(Error::config(
                    format!("rewards[{i}].name"),
                    format!("{name:?}"),
                    expected,
                ));
            }
            if !weight.is_finite() {
                let field = format!("rewards[{i}].weight");
                return Err(Error::config(
                    field,
                    weight,
                    format!("a finite weight for `{name}`"),
                ));
            }
            rewards.push(Entry {
                name,
                weight,
                reward,
            });
        }
        Ok(RewardSet {
            rewards: rewards.into(),
            pool: Pool::new(self.time_limit, threads, MAX_ABANDONED),
        })
    }
}

impl fmt::Debug for RewardSetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rewards: Vec<_> = self
            .rewards
            .iter()
            .map(|(weight, reward)| (reward.name(), weight))
            .collect();
        f.debug_struct("RewardSetBuilder")
            .field("rewards", &rewards)
            .field("time_limit", &self.time_limit)
            .field("threads", &self.threads)
            .finish()
    }
}

#[cfg(test)]
mod tests;
