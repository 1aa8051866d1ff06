//! Sets of rewards that score a batch of completions and give each a weighted total.

mod builder;
mod entry;
mod options;
mod schedule;
mod total;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use builder::RewardSetBuilder;
pub use options::{Gate, Missing, RewardOptions};

use self::entry::Entry;
use self::schedule::{Batch, Schedule};
use self::total::Total;
use super::RewardInput;
use super::pool::Pool;
use crate::types::{EpisodeEnd, RewardRecord, Rollout, RolloutBuffer};

/// The default of [`RewardSetBuilder::time_limit`].
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The maximum number of abandoned threads with which a new job is still started: enough for a bad
/// batch, and few for an operating system.
const MAX_ABANDONED: usize = 64;

/// Weighted rewards that run together.
///
/// [`score`](Self::score) runs every reward on every input. Each pair is one job on a worker
/// thread, and its result becomes one [`RewardOutcome`](crate::rollout::RewardOutcome): a number,
/// an abstention, an error, a panic, or a time-out. No reward can end the run, delay the others by
/// more than the time limit, or have its failure counted as a 0.
///
/// ```
/// use rlvr::reward::{AccuracyReward, FnReward, RewardInput, RewardSet};
/// use rlvr::rollout::RewardOutcome;
///
/// let rewards = RewardSet::builder()
///     .add(1.0, AccuracyReward::new())
///     .add(0.1, FnReward::new("polite", |input| match input.completion() {
///         "" => Ok(None),
///         text => Ok(Some(if text.contains("please") { 1.0 } else { 0.0 })),
///     }))
///     .add(0.0, FnReward::new("fussy", |input| match input.completion().contains('!') {
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
/// assert_eq!(scored[0].reward, Some(1.1));
/// // "polite" abstained: the total is that of the others.
/// assert_eq!(scored[1].reward, Some(0.0));
/// // "fussy" failed: this completion is excluded from training.
/// assert_eq!(scored[2].reward, None);
/// assert_eq!(scored[2].rewards[2].outcome, RewardOutcome::Panicked("no shouting".into()));
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # The total
///
/// The total is the sum of weight times score over the rewards that gave a number. For each reward,
/// [`RewardOptions`] set what replaces a missing number. By default
/// - a reward that abstains is left out ([`Missing::LeaveOut`]), as a NaN is in TRL's `nansum`,
/// - a rollout on which any reward fails, panics or times out has no total
///   ([`Missing::DropRollout`]) and is excluded from training: a sum without that reward would be
///   on another scale than those of the other rollouts.
///
/// The order is as follows. A reward behind a closed [`Gate`] counts as the value of the gate. If
/// the gate of the total is closed, the total is the value of that gate, and otherwise the sum.
/// Clamping comes last. There is also no total if no reward gave a number, or if the sum is not
/// finite.
///
/// A reward with weight 0 is recorded but adds nothing to the total. Its failures count as above.
///
/// # Order of execution
///
/// A reward runs immediately unless it has a gate or is a [`GroupReward`](super::GroupReward) that
/// reads scores; then it runs after the rewards that it depends on. Rewards share the threads of
/// the set. A reward with a [`concurrency`](RewardOptions::with_concurrency) has its own workers,
/// so that slow services and quick arithmetic do not wait for each other. Results are in the order
/// of the inputs.
///
/// # Time limits
///
/// A time limit is the wall-clock time of one call, from the moment it starts to run. A call that
/// exceeds it is recorded as [`TimedOut`](crate::rollout::RewardOutcome::TimedOut), and its late
/// result is dropped. Safe Rust cannot kill its thread: the thread is *abandoned*, a new one takes
/// its place, and it ends when the job returns, if ever. At most 64 abandoned threads are allowed
/// (slightly more if jobs that already run exceed the limit as well). Beyond that, jobs are not
/// started but recorded as [`Failed`](crate::rollout::RewardOutcome::Failed) until some of the
/// threads have ended.
///
/// A time-out therefore costs memory, and a core if the job spins; near the limit it depends on the
/// load of the machine. Rewards that bound their own work, as [`Reward`](super::Reward) requires,
/// never reach it. The set does not protect against a reward that overflows its stack, exhausts the
/// memory or exits the process, nor against panics in a program built with `panic = "abort"`.
#[doc(alias("reward_funcs", "reward_weights", "reward_manager"))]
#[derive(Clone)]
pub struct RewardSet {
    rewards: Arc<[Entry]>,
    /// The weight of each reward.
    weights: Arc<[f64]>,
    /// Whether each reward runs: `true` unless a schedule leaves it out.
    runs: Arc<[bool]>,
    total: Arc<Total>,
    pool: Pool,
    /// The number of workers that rewards without a concurrency share.
    threads: usize,
}

impl RewardSet {
    /// Returns an empty builder, to which at least one reward must be
    /// [added](RewardSetBuilder::add).
    pub fn builder() -> RewardSetBuilder {
        RewardSetBuilder::new()
    }

    /// Scores every input with every reward. Returns the rollout of each input, in order, with its
    /// records in [`rewards`](Rollout::rewards) and its total in [`reward`](Rollout::reward).
    ///
    /// The inputs are one group, that is completions of one problem; this matters only to a
    /// [`GroupReward`](super::GroupReward). [`score_rollouts`](Self::score_rollouts) scores several
    /// groups.
    ///
    /// For pure rewards that stay within the time limit, the result does not depend on the number
    /// of threads or their timing. The call blocks until every job has an outcome: with `n` hanging
    /// jobs on `t` threads, about `n / t` time limits. It may be called from several threads at
    /// once; each call has its own workers, and all calls share the count of abandoned threads.
    ///
    /// Failures are logged as one `tracing` warning per reward. The default panic hook, which
    /// writes to standard error, is not changed.
    pub fn score(&self, inputs: Vec<RewardInput>) -> Vec<Rollout> {
        let size = inputs.len();
        self.run(Batch::new(inputs, &[size]))
    }

    /// Scores every rollout of a buffer and writes the records and the total into it. A rollout
    /// whose environment failed has no total, regardless of its rewards.
    pub fn score_rollouts(&self, rollouts: &mut RolloutBuffer) {
        let mut inputs = Vec::with_capacity(rollouts.len());
        let mut sizes = Vec::with_capacity(rollouts.groups.len());
        for group in &mut rollouts.groups {
            // The rewards share the rollouts while they run; nothing is copied.
            let unscored = std::mem::take(&mut group.rollouts);
            sizes.push(unscored.len());
            inputs.extend(unscored.into_iter().map(|rollout| RewardInput {
                problem: Arc::clone(&group.problem),
                rollout: Arc::new(rollout),
            }));
        }
        let mut scored = self.run(Batch::new(inputs, &sizes)).into_iter();
        for (group, size) in rollouts.groups.iter_mut().zip(sizes) {
            group.rollouts = scored.by_ref().take(size).collect();
            // After a failure of the environment the score is meaningless, and not 0.
            for rollout in &mut group.rollouts {
                let end = rollout.episode.as_ref().map(|episode| &episode.end);
                if let Some(EpisodeEnd::Failed(_)) = end {
                    rollout.reward = None;
                }
            }
        }
    }

    /// Returns the names of the rewards, in the order in which they were added.
    pub fn names(&self) -> Vec<&str> {
        self.rewards.iter().map(|entry| &*entry.name).collect()
    }

    /// Returns the weights of the rewards, in the order in which they were added.
    pub fn weights(&self) -> Vec<f64> {
        self.weights.to_vec()
    }

    /// Returns the set with some of the `weights` changed, by name. A reward whose weight is given
    /// as 0 does not run and has no record, unless a gate or another reward reads its score.
    pub(crate) fn reweighted(&self, weights: &BTreeMap<String, f64>) -> Self {
        let given = |place: usize| weights.get(&self.rewards[place].name).copied();
        let gate = self.total.gate.map(|gate| gate.reward);
        let is_read = |place: usize| {
            let mut entries = self.rewards.iter();
            gate == Some(place) || entries.any(|entry| entry.after().any(|read| read == place))
        };
        let places = 0..self.rewards.len();
        let weight = |place: usize| given(place).unwrap_or(self.weights[place]);
        let runs = |place: usize| given(place) != Some(0.0) || is_read(place);
        Self {
            weights: places.clone().map(weight).collect(),
            runs: places.map(runs).collect(),
            ..self.clone()
        }
    }

    /// Returns the number of threads that still run a job past its time limit, over this set and
    /// its clones.
    pub fn abandoned_threads(&self) -> usize {
        self.pool.abandoned()
    }

    fn run(&self, batch: Batch) -> Vec<Rollout> {
        let schedule = Schedule {
            entries: &self.rewards,
            weights: &self.weights,
            runs: &self.runs,
            pool: &self.pool,
            threads: self.threads,
            batch: &batch,
        };
        let records = schedule.run();
        self.report(&records);
        // Only an abandoned thread can still hold an input; only then is a rollout copied.
        let inputs = Arc::unwrap_or_clone(batch.inputs).into_iter();
        let scored = inputs.zip(records).map(|(input, rewards)| {
            let mut rollout = Arc::unwrap_or_clone(input.rollout);
            rollout.reward = self.total.of(&self.rewards, &self.runs, &rewards);
            let ran = rewards.into_iter().zip(self.runs.iter());
            rollout.rewards = ran.filter_map(|(one, &ran)| ran.then_some(one)).collect();
            rollout
        });
        scored.collect()
    }

    fn report(&self, records: &[Vec<RewardRecord>]) {
        for (i, entry) in self.rewards.iter().enumerate() {
            let outcomes = records.iter().map(|records| &records[i].outcome);
            let mut failures = outcomes.filter(|outcome| outcome.is_failure());
            if let Some(first) = failures.next() {
                tracing::warn!(
                    reward = entry.name,
                    failures = 1 + failures.count(),
                    rollouts = records.len(),
                    abandoned_threads = self.abandoned_threads(),
                    ?first,
                    "the reward failed"
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
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
