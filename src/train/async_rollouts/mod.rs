//! Asynchronous rollouts: generation runs beside training, with a bound on staleness.

mod config;
mod flights;
mod scoring;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::AsyncConfig;
use serde_json::Value;

use self::flights::{Asked, Flight, Flights, Ready};
use self::scoring::{Scored, Scoring};
use super::collector::{Collected, Collector, PolicyState, greedy_baselines};
use super::dynamic_sampling::fill;
use super::source::RolloutSource;
use crate::advantage::AdvantageEstimator;
use crate::policy::PolicyModel;
use crate::reward::failures::check_failures;
use crate::rollout::{AsyncEngine, CHECK_INTERVAL, InFlight, Waiting, sample_rollouts};
use crate::types::{RolloutBuffer, RolloutGroup};
use crate::{Error, Result};

/// A rollout source whose engine generates while the learner trains: asynchronous training with
/// bounded staleness.
///
/// Between two steps the learner loads its weights into the engine, submits as many problems as the
/// bound allows, and takes the groups that are ready. With
/// [`max_staleness`](AsyncConfig::max_staleness) `S`, the groups of `S` further steps are in flight
/// or ready while it trains. A step then takes about the longer of generation and update, not their
/// sum. With `S = 0` nothing runs ahead, and the steps are those of the default source with the
/// same engine.
///
/// **The bound is checked when rollouts are consumed.** The staleness of a rollout is the number of
/// weight updates between the policy that sampled its first token and the policy that is trained on
/// it. It never exceeds `S`: an older group is dropped, and its problem is submitted again.
///
/// **Objective.** The importance ratio `pi / pi_old` is relative to the policy before the step,
/// whose log-probs the learner computes. A [`SamplerCorrection`](crate::loss::SamplerCorrection)
/// corrects for the difference between `pi_old` and the policies that sampled (decoupled PPO). With
/// `S > 0` the objective must have one; truncation of the token weights at 2 is usual:
/// `SamplerCorrection::token_truncate(2.0)`.
///
/// **Checkpoints** contain every finished group that is not yet consumed. After a resume, problems
/// in flight are submitted again with the same random address.
///
/// | metric | |
/// |---|---|
/// | `async/staleness`, `async/staleness_max` | mean and maximum over the rollouts of the step, in weight updates |
/// | `async/tokens_stale_K` | share of the step's tokens that were sampled `K` weight updates ago |
/// | `async/wait` | seconds that the learner waited for rollouts |
/// | `async/load` | seconds spent loading the weights into the engine |
/// | `async/in_flight`, `async/ready` | groups being generated, and finished groups, when the update begins |
/// | `async/expired` | groups dropped because they were too old |
/// | `async/failed_samples`, `async/failed_groups` | completions and groups that the engine could not generate |
/// | `engine/..` | metrics of the engine |
///
/// ```
/// use rlvr::loss::{PolicyObjective, SamplerCorrection};
/// use rlvr::policy::causal::CausalModel;
/// use rlvr::rollout::LocalWorker;
/// use rlvr::train::{AsyncConfig, AsyncRollouts, TrainerConfig};
///
/// let config = AsyncConfig {
///     max_staleness: 2,
///     ..AsyncConfig::default()
/// };
/// let source: AsyncRollouts<CausalModel> =
///     AsyncRollouts::new(LocalWorker::default(), config)?;
/// let config = TrainerConfig {
///     objective: PolicyObjective::dapo()
///         .with_sampler_correction(Some(SamplerCorrection::token_truncate(2.0))),
///     ..TrainerConfig::default()
/// };
/// // Trainer::builder(policy, tokenizer).config(config).source(source) ...
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// The bound and the decoupled objective are those of AReaL (arXiv 2505.24298). TRL and prime-rl
/// also check the bound when rollouts are consumed.
#[doc(alias = "fully_async_policy")]
pub struct AsyncRollouts<M: PolicyModel> {
    // Dropped first: the engine ends its threads, and then the channel to the scoring thread
    // closes.
    engine: Box<dyn AsyncEngine<M>>,
    config: AsyncConfig,
    flights: Flights,
    scoring: Option<Scoring>,
    /// Finished groups in the order of their arrival.
    ready: VecDeque<Ready>,
    /// Problems to submit before new ones are drawn.
    again: VecDeque<Flight>,
    /// The groups that the current step has taken.
    taken: Vec<Ready>,
    /// The last loaded versions, oldest first.
    loaded: VecDeque<u64>,
    /// The number of groups submitted so far.
    asked: u64,
    /// Consecutive groups dropped since the last usable one.
    dropped_in_a_row: usize,
    counts: Counts,
}

/// Counters of one step.
#[derive(Default)]
struct Counts {
    wait: Duration,
    reward: Duration,
    expired: usize,
    failed_samples: usize,
    failed_groups: usize,
}

impl<M: PolicyModel> AsyncRollouts<M> {
    /// Creates a source of rollouts from `engine`.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid.
    pub fn new(engine: impl AsyncEngine<M> + 'static, config: AsyncConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            engine: Box::new(engine),
            config,
            flights: Flights::default(),
            scoring: None,
            ready: VecDeque::new(),
            again: VecDeque::new(),
            taken: Vec::new(),
            loaded: VecDeque::new(),
            asked: 0,
            dropped_in_a_row: 0,
            counts: Counts::default(),
        })
    }

    /// The number of weight updates since `version`.
    fn staleness(&self, version: u64) -> u64 {
        self.loaded.iter().filter(|&&later| later > version).count() as u64
    }

    fn is_expired(&self, version: u64) -> bool {
        self.staleness(version) > self.config.max_staleness
    }

    /// Loads the weights into the engine if they have changed.
    fn load(&mut self, state: PolicyState<'_, M>) -> Result<()> {
        if self.engine.version() != Some(state.version) {
            self.engine.load(state.policy, state.version)?;
            if self.engine.in_flight() == InFlight::Redo {
                self.flights.begin_again(state.version);
            }
        }
        if self.loaded.back() != Some(&state.version) {
            self.loaded.push_back(state.version);
        }
        // One more than the bound is enough to detect an expired version.
        while self.loaded.len() as u64 > self.config.max_staleness + 2 {
            self.loaded.pop_front();
        }
        Ok(())
    }

    /// Returns `count` scored groups that are fresh enough to train on.
    fn take(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
        count: usize,
    ) -> Result<Vec<RolloutGroup>> {
        let ahead = self.config.max_staleness as usize * collector.config.problems_per_step;
        let mut groups = Vec::with_capacity(count);
        while groups.len() < count {
            self.expire(state.version)?;
            let missing = count - groups.len();
            self.ask(collector, state, missing + ahead)?;
            match self.pop_ready() {
                Some(mut ready) => {
                    self.dropped_in_a_row = 0;
                    if !ready.observed {
                        collector
                            .problems
                            .observe(std::slice::from_ref(&ready.group));
                        ready.observed = true;
                    }
                    groups.push(ready.group.clone());
                    self.taken.push(ready);
                }
                None => self.wait(state)?,
            }
        }
        // Count what has arrived in the meantime as ready, and give the engine work for the time of
        // the update.
        self.receive_all(state)?;
        self.ask(collector, state, ahead)?;
        Ok(groups)
    }

    /// Returns the next group to train on, if it is ready.
    fn pop_ready(&mut self) -> Option<Ready> {
        let oldest = (0..self.ready.len()).min_by_key(|&at| self.ready[at].order)?;
        let order = self.ready[oldest].order;
        let earlier_in_flight = || {
            let in_flight = self.flights.first_order();
            let again = self.again.iter().map(|flight| flight.order).min();
            [in_flight, again]
                .into_iter()
                .flatten()
                .any(|it| it < order)
        };
        match self.config.ordered && earlier_in_flight() {
            true => None,
            false => self.ready.remove(oldest),
        }
    }

    /// Submits problems until `wanted` groups are ready or in flight.
    fn ask(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
        wanted: usize,
    ) -> Result<()> {
        let asked = Arc::new(Asked {
            generation: collector.config.generation.clone(),
            rewards: collector.rewards().clone(),
        });
        while self.ready.len() + self.flights.len() < wanted {
            let mut flight = match self.again.pop_front() {
                Some(flight) => flight,
                None => {
                    let draws = collector.problems.draw(1)?;
                    let draw = draws
                        .into_iter()
                        .next()
                        .ok_or_else(|| Error::shape("problems of the source", 0, "1"))?;
                    self.asked += 1;
                    Flight {
                        order: self.asked,
                        question: collector.question(draw, state.step)?,
                        version: state.version,
                        attempts: 0,
                    }
                }
            };
            flight.version = state.version;
            let scoring = match &mut self.scoring {
                Some(scoring) => scoring,
                empty => {
                    let vocabulary = state.policy.vocab_size();
                    empty.insert(Scoring::start(collector, vocabulary, &self.flights))
                }
            };
            let request = flight.question.request();
            let engine = &mut self.engine;
            let submitted = self.flights.add(&flight, &asked, || {
                engine.submit(request, &asked.generation, &scoring.answers)
            });
            if submitted.is_err() {
                self.again.push_front(flight);
            }
            submitted?;
        }
        Ok(())
    }

    /// Drops the groups that are too old, finished or not, and queues their problems again.
    fn expire(&mut self, version: u64) -> Result<()> {
        let (expired, fresh) = std::mem::take(&mut self.ready)
            .into_iter()
            .partition(|ready| self.is_expired(ready.oldest_version()));
        self.ready = fresh;
        let mut expired: Vec<Flight> = VecDeque::into_iter(expired)
            .map(Ready::into_flight)
            .collect();
        for ticket in self
            .flights
            .tickets(|flight| self.is_expired(flight.version))
        {
            self.engine.cancel(ticket);
            expired.extend(self.flights.remove(ticket));
        }
        for flight in expired {
            self.counts.expired += 1;
            self.dropped_in_a_row += 1;
            self.ask_again(flight);
        }
        if self.dropped_in_a_row > self.config.max_dropped {
            return Err(Error::config(
                "async.max_staleness",
                self.config.max_staleness,
                format!(
                    "more, shorter completions, or a faster engine: {} groups in a row were too old for version {version} when \
                     they were finished, or could not be generated",
                    self.dropped_in_a_row
                ),
            ));
        }
        Ok(())
    }

    /// Queues a problem again unless it has used up its attempts.
    fn ask_again(&mut self, mut flight: Flight) {
        flight.attempts += 1;
        if flight.attempts < self.config.max_attempts {
            let later = |other: &Flight| other.order > flight.order;
            let at = self.again.iter().position(later);
            self.again.insert(at.unwrap_or(self.again.len()), flight);
        } else {
            tracing::warn!(
                problem = flight.question.problem.prompt,
                attempts = flight.attempts,
                "a problem was dropped: no attempt gave a usable group"
            );
        }
    }

    /// Waits for the next group, and checks the engine if none arrives in time.
    fn wait(&mut self, state: PolicyState<'_, M>) -> Result<()> {
        let Some(scoring) = &self.scoring else {
            return Ok(());
        };
        let started = Instant::now();
        let scored = scoring.next(CHECK_INTERVAL)?;
        self.counts.wait += started.elapsed();
        match scored {
            Some(scored) => self.receive(scored, state),
            None => self.engine.check(),
        }
    }

    /// Takes in what has arrived.
    fn receive_all(&mut self, state: PolicyState<'_, M>) -> Result<()> {
        while let Some(scoring) = &self.scoring {
            match scoring.next(Duration::ZERO)? {
                Some(scored) => self.receive(scored, state)?,
                None => break,
            }
        }
        Ok(())
    }

    fn receive(&mut self, scored: Scored, state: PolicyState<'_, M>) -> Result<()> {
        // Cancelled requests have no flight.
        let Some(flight) = self.flights.remove(scored.ticket) else {
            return Ok(());
        };
        self.counts.reward += scored.time;
        self.counts.failed_samples += scored.failures;
        let group = scored.group?;
        let enough = flight.question.samples.min(2);
        if group.rollouts.len() >= enough {
            self.ready.push_back(Ready {
                order: flight.order,
                attempts: flight.attempts,
                address: flight.question.address,
                samples: flight.question.samples,
                group,
                observed: false,
            });
            return Ok(());
        }
        self.counts.failed_groups += 1;
        self.dropped_in_a_row += 1;
        let given_up = flight.attempts + 1 >= self.config.max_attempts;
        self.ask_again(flight);
        match scored.first_error {
            Some(error) if given_up || self.dropped_in_a_row > self.config.max_dropped => {
                Err(error)
            }
            Some(error) => {
                tracing::warn!(step = state.step + 1, %error, "a group could not be generated");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Puts the groups of the current step back into the ready queue.
    fn put_back(&mut self) {
        for ready in self.taken.drain(..).rev() {
            self.ready.push_front(ready);
        }
    }

    fn collect(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
    ) -> Result<Collected> {
        let started = Instant::now();
        self.load(state)?;
        let load = started.elapsed();
        let count = collector.config.problems_per_step;
        let mut metrics = BTreeMap::new();
        let groups = match collector.config.dynamic_sampling.clone() {
            None => self.take(collector, state, count)?,
            Some(dynamic) => {
                let ask = |round| self.take(collector, state, round);
                let (groups, report) = fill(&dynamic, state.step, count, ask)?;
                metrics.extend(report.metrics());
                groups
            }
        };
        let rollouts = RolloutBuffer { groups };
        check_failures(&rollouts, collector.config.max_reward_failures)?;
        let baselines = match collector.config.advantage.needs_baselines() {
            true => Some(self.greedy_rewards(collector, state, &rollouts)?),
            false => None,
        };
        metrics.extend(self.measure(&rollouts, load));
        metrics.extend(self.engine.metrics());
        let generate = started.elapsed().as_secs_f64();
        metrics.insert("time/generate".into(), generate);
        metrics.insert("time/reward".into(), self.counts.reward.as_secs_f64());
        Ok(Collected {
            rollouts,
            baselines,
            metrics,
        })
    }

    /// The rewards of one greedy completion of each problem, as in [`Collector::collect`].
    fn greedy_rewards(
        &mut self,
        collector: &Collector<M>,
        state: PolicyState<'_, M>,
        rollouts: &RolloutBuffer,
    ) -> Result<Vec<Option<f64>>> {
        let (questions, generation) = collector.greedy(rollouts);
        let engine = &mut Waiting(self.engine.as_mut());
        let (policy, version) = (state.policy, state.version);
        let tokenizer = collector.tokenizer();
        let mut greedy =
            sample_rollouts(engine, policy, version, tokenizer, &questions, &generation)?;
        collector.score(&mut greedy);
        Ok(greedy_baselines(&greedy, rollouts))
    }

    /// The metrics of the supplied rollouts.
    fn measure(&self, rollouts: &RolloutBuffer, load: Duration) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        let mut put = |name: String, value: f64| {
            metrics.insert(format!("async/{name}"), value);
        };
        let ages: Vec<u64> = rollouts
            .rollouts()
            .map(|rollout| self.staleness(rollout.policy_version))
            .collect();
        let sum: u64 = ages.iter().sum();
        put(
            "staleness".into(),
            sum as f64 / rollouts.len().max(1) as f64,
        );
        put(
            "staleness_max".into(),
            ages.into_iter().max().unwrap_or(0) as f64,
        );
        let mut by_age = vec![0; self.config.max_staleness as usize + 1];
        let mut count = |version, tokens| {
            let age = self.staleness(version) as usize;
            if let Some(sum) = by_age.get_mut(age) {
                *sum += tokens;
            }
        };
        for rollout in rollouts.rollouts() {
            match rollout.versions.is_empty() {
                true => count(rollout.policy_version, rollout.tokens.len()),
                false => rollout
                    .versions
                    .iter()
                    .for_each(|span| count(span.version, span.tokens)),
            }
        }
        let tokens: usize = by_age.iter().sum();
        for (age, sum) in by_age.into_iter().enumerate() {
            let share = sum as f64 / tokens.max(1) as f64;
            put(format!("tokens_stale_{age}"), share);
        }
        put("wait".into(), self.counts.wait.as_secs_f64());
        put("load".into(), load.as_secs_f64());
        put("in_flight".into(), self.flights.len() as f64);
        put("ready".into(), self.ready.len() as f64);
        put("expired".into(), self.counts.expired as f64);
        put("failed_samples".into(), self.counts.failed_samples as f64);
        put("failed_groups".into(), self.counts.failed_groups as f64);
        metrics
    }
}

impl<M: PolicyModel> RolloutSource<M> for AsyncRollouts<M> {
    fn next(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
    ) -> Result<Collected> {
        self.taken.clear();
        self.counts = Counts::default();
        let collected = self.collect(collector, state);
        if collected.is_err() {
            self.put_back();
        }
        collected
    }

    fn check(&self, collector: &Collector<M>) -> Result<()> {
        if collector.learners.size() > 1 {
            return Err(Error::config(
                "learners",
                collector.learners.size(),
                "1 with asynchronous rollouts: each learner would get other rollouts",
            ));
        }
        if collector.agent_loop.is_some() {
            return Err(Error::config(
                "agent_loop",
                "given",
                "none with asynchronous rollouts, which have a single turn",
            ));
        }
        let config = &collector.config;
        if self.config.max_staleness > 0 && config.objective.sampler_correction.is_none() {
            return Err(Error::config(
                "objective.sampler_correction",
                "none",
                format!(
                    "one with max_staleness = {}, such as SamplerCorrection::token_truncate(2.0): the rollouts are sampled from \
                     older policies",
                    self.config.max_staleness
                ),
            ));
        }
        Ok(())
    }

    fn undo(&mut self, _collector: &mut Collector<M>, _problems: &Value) -> Result<()> {
        self.put_back();
        Ok(())
    }

    fn state(&self) -> Result<Value> {
        self.saved()
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        self.restore_saved(state)
    }
}
