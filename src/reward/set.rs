//! Several rewards over a batch of completions, and what they come to.

mod builder;
mod entry;
mod options;
mod schedule;
mod total;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use builder::RewardSetBuilder;
pub use options::{Gate, Missing, RewardOptions};

use self::entry::Entry;
use self::schedule::{Batch, Outcomes};
use self::total::Total;
use super::RewardInput;
use super::pool::Pool;
use crate::rollout::{RewardOutcome, RewardRecord, RolloutBuffer};

/// The default of [`RewardSetBuilder::time_limit`].
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The most abandoned threads with which a new job is still started: enough for a bad batch, few for an operating system.
const MAX_ABANDONED: usize = 64;

/// Weighted rewards that are run together.
///
/// [`score`](Self::score) runs every reward on every input. Each of these pairs is one job on a worker thread, and whatever it
/// does becomes one [`RewardOutcome`]: a number, an abstention, an error, a panic, or a
/// time-out. No reward can end the run, delay the others by more than the time limit, or have its failure taken for a 0.
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
/// The sum of weight times score over the rewards that gave a number. What counts where one gave none is said by its
/// [`RewardOptions`]. By default
/// - a reward that abstains is left out ([`Missing::LeaveOut`]), as a NaN is in TRL's `nansum`,
/// - a rollout on which any reward fails, panics or times out has no total ([`Missing::DropRollout`]): the sum without it would
///   compare this rollout with others on another scale, so it leaves the statistics instead of being punished, or spared,
///   for a broken reward.
///
/// The order is: a reward behind a shut [`Gate`] counts as the gate says; where the gate of the total is shut, the total is
/// what that gate says, and otherwise the sum; the clamp is last. There is no total either if no reward gave a number, or
/// if the sum is too large for an `f64`.
///
/// A weight of 0 records a reward without paying for it. It still counts as above when it breaks.
///
/// # The order of work
///
/// A reward runs at once, unless it has a gate or is a [`GroupReward`](super::GroupReward) that reads scores: then it runs when
/// all rewards that somebody waits for have been run. Rewards share the set's threads; one with a
/// [`concurrency`](RewardOptions::concurrency) has workers of its own, so that a slow service and quick arithmetic do not
/// wait for each other. Results are in the order of the inputs whatever ran first.
///
/// # The time limit
///
/// It is wall-clock time of one call, counted from the moment it starts to run. A call that passes it is recorded as
/// [`RewardOutcome::TimedOut`], and what it returns later is dropped. Safe Rust cannot kill its thread: the thread is
/// *abandoned*, a fresh one takes its place, and it ends when the job returns, if ever. Up to 64 such threads are put up
/// with (a few more if jobs that already run pass the limit as well). With more, jobs are not started but recorded as
/// [`RewardOutcome::Failed`], until some of the threads come back.
///
/// A time-out therefore costs memory, and a core if the job spins, and near the limit it depends on the machine's load. Rewards
/// that bound their own work, see [`Reward`](super::Reward), never meet it. Nothing here helps against a reward that overflows
/// its stack, exhausts the memory or exits the process, nor against panics in a program built with `panic = "abort"`.
#[derive(Clone)]
pub struct RewardSet {
    rewards: Arc<[Entry]>,
    total: Arc<Total>,
    pool: Pool,
    /// The workers of the rewards that have none of their own.
    threads: usize,
}

/// What a [`RewardSet`] says about one input.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// One record for each reward, in the order of the set.
    pub records: Vec<RewardRecord>,
    /// What they come to, or `None`; see [`RewardSet`].
    pub total: Option<f64>,
}

impl RewardSet {
    /// A set to be filled: at least one [`add`](RewardSetBuilder::add), then [`build`](RewardSetBuilder::build).
    pub fn builder() -> RewardSetBuilder {
        RewardSetBuilder::new()
    }

    /// Scores every input with every reward; the results are in the order of the inputs.
    ///
    /// To a [`GroupReward`](super::GroupReward) the inputs are one group: completions of one problem. For several problems
    /// there is [`score_groups`](Self::score_groups).
    ///
    /// For pure rewards that stay within the time limit the result does not depend on the threads or their timing. The call
    /// blocks until every job has an outcome: with `n` hanging jobs on `t` threads about `n / t` time limits. It may be called
    /// from several threads at once; each call has its own workers, and all share the count of abandoned ones.
    ///
    /// Failures are logged as one `tracing` warning for each reward that had any. The default panic hook, which writes
    /// to the standard error, is left as it is.
    pub fn score(&self, inputs: Vec<RewardInput>) -> Vec<Scored> {
        let group = 0..inputs.len();
        self.run(Batch {
            inputs: Arc::new(inputs),
            groups: vec![group],
        })
    }

    /// Scores several groups in one go, as [`score`](Self::score) does one.
    pub fn score_groups(&self, groups: Vec<Vec<RewardInput>>) -> Vec<Vec<Scored>> {
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        let inputs = groups.into_iter().flatten().collect();
        let mut scored = self.run(Batch::new(inputs, &sizes)).into_iter();
        let take = |size| scored.by_ref().take(size).collect();
        sizes.into_iter().map(take).collect()
    }

    /// Scores every rollout of a buffer and writes records and total into it.
    pub fn score_rollouts(&self, rollouts: &mut RolloutBuffer) {
        let mut inputs = Vec::with_capacity(rollouts.len());
        for group in &rollouts.groups {
            inputs.extend(group.rollouts.iter().map(|rollout| RewardInput {
                prompt: group.problem.prompt.clone(),
                answer: group.problem.answer.clone(),
                completion: rollout.text.clone(),
                tokens: rollout.trained_tokens(),
                token_ids: rollout.tokens.clone(),
                finish: rollout.finish,
                metadata: group.problem.metadata.clone(),
            }));
        }
        let sizes = rollouts.groups.iter().map(|group| group.rollouts.len());
        let batch = Batch::new(inputs, &sizes.collect::<Vec<_>>());
        for (rollout, scored) in rollouts.rollouts_mut().zip(self.run(batch)) {
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

    fn run(&self, batch: Batch) -> Vec<Scored> {
        let outcomes = Outcomes::find(&self.rewards, &self.pool, self.threads, &batch);
        let scored = |input| {
            let found = outcomes.of(input);
            let of = self
                .total
                .of(&self.rewards, found.iter().map(|(outcome, _)| outcome));
            let record = |(entry, (outcome, seconds)): (&Entry, &(_, f64))| RewardRecord {
                name: entry.name.clone(),
                weight: entry.weight,
                outcome: RewardOutcome::clone(outcome),
                seconds: *seconds,
            };
            Scored {
                records: self.rewards.iter().zip(found).map(record).collect(),
                total: of,
            }
        };
        let scored: Vec<Scored> = (0..batch.inputs.len()).map(scored).collect();
        self.report(&scored);
        scored
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
                    "a reward broke"
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
