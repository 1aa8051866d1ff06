//! Plays the episodes of a step together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contract::{Environment, EnvironmentError, Opening, Reply, Step};
use super::player::{Asked, Player};
use crate::policy::PolicyModel;
use crate::prompt::Tokenizer;
use crate::random;
use crate::reward::pool::{Job, Lane, Plan, Pool};
use crate::rollout::{GenerationConfig, GenerationRequest, Question, RolloutEngine};
use crate::types::{RewardOutcome, RolloutBuffer, RolloutGroup};
use crate::{Error, Result};

/// The limits of an episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentLoopConfig {
    /// The most replies. Default 8.
    pub max_turns: usize,
    /// The most tokens after the prompt, observations included. Default: what the policy's positions allow. A single reply is
    /// limited by [`GenerationConfig::max_new_tokens`] as well.
    pub max_tokens: Option<usize>,
    /// The most tokens of one observation's message; what is beyond is cut, and a note says so. Default: no limit.
    pub max_observation_tokens: Option<usize>,
    /// How long one call of the environment may take. Default 30 s.
    pub time_limit: Duration,
    /// The most calls of the environment at the same time. Default 16.
    pub threads: usize,
}

impl Default for AgentLoopConfig {
    fn default() -> Self {
        Self {
            max_turns: 8,
            max_tokens: None,
            max_observation_tokens: None,
            time_limit: Duration::from_secs(30),
            threads: 16,
        }
    }
}

impl AgentLoopConfig {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("max_turns", Some(self.max_turns)),
            ("max_tokens", self.max_tokens),
            ("max_observation_tokens", self.max_observation_tokens),
            ("threads", Some(self.threads)),
        ] {
            if value == Some(0) {
                return Err(Error::config(
                    format!("agent_loop.{field}"),
                    0,
                    "at least 1",
                ));
            }
        }
        if self.time_limit.is_zero() {
            return Err(Error::config("agent_loop.time_limit", "0 s", "more"));
        }
        Ok(())
    }
}

/// An environment and its limits: how problems are answered in several turns.
///
/// Rounds: every episode that goes on is answered by the generator in one batch; then all of them take a step, in parallel.
/// An episode that ends leaves the rounds. The first replies draw their randomness where single completions do, at
/// `[address.., sample]`; later ones at `[address.., sample, turn]`. What a rollout becomes does not depend on its
/// neighbours.
///
/// An episode ends when the environment says so, or at the first limit: a reply that is cut off ([`EpisodeEnd::Length`]), the most turns, or an
/// observation that leaves no room for another reply, which is then dropped ([`EpisodeEnd::ContextFull`]). [`EpisodeEnd`] says which:
/// a truncated episode is not a finished one.
///
/// [`EpisodeEnd`]: super::EpisodeEnd
/// [`EpisodeEnd::Length`]: super::EpisodeEnd::Length
/// [`EpisodeEnd::ContextFull`]: super::EpisodeEnd::ContextFull
#[doc(alias("environment_factory", "rollout_func"))]
#[derive(Clone)]
pub struct AgentLoop {
    environment: Arc<dyn Environment>,
    config: AgentLoopConfig,
    pool: Pool,
}

/// The number of abandoned calls from which on no new one is started.
const MAX_ABANDONED: usize = 64;

impl AgentLoop {
    /// Episodes of `environment` under the default limits.
    pub fn new(environment: impl Environment) -> Self {
        Self {
            environment: Arc::new(environment),
            config: AgentLoopConfig::default(),
            pool: Pool::new(MAX_ABANDONED),
        }
    }

    /// The limits.
    pub(crate) fn config(&self) -> &AgentLoopConfig {
        &self.config
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// If a limit is invalid.
    pub fn with_config(mut self, config: AgentLoopConfig) -> Result<Self> {
        config.validate()?;
        self.config = config;
        Ok(self)
    }

    /// The environment.
    pub fn environment(&self) -> &dyn Environment {
        self.environment.as_ref()
    }

    /// The policy's episodes for every question, as groups of rollouts that are not yet scored.
    ///
    /// The prompt of a question is not read: the environment says what stands before the first reply. A sample whose episode
    /// could not be opened is missing from its group.
    ///
    /// # Errors
    /// If generation fails, a text cannot be encoded or decoded, samples of a problem open differently, or no episode could be opened.
    pub fn run<M: PolicyModel>(
        &self,
        engine: &mut dyn RolloutEngine<M>,
        policy: &M,
        version: u64,
        tokenizer: &dyn Tokenizer,
        questions: &[Question],
        generation: &GenerationConfig,
    ) -> Result<RolloutBuffer> {
        let mut players = self.open(questions, tokenizer)?;
        for player in &mut players {
            player.limit(policy.max_positions(), &self.config, generation);
        }
        let mut session = engine.session(policy, version);
        loop {
            let asked = ask(&players, questions);
            if asked.is_empty() {
                break;
            }
            // One batch for each length limit: most replies have the same.
            let mut limits: Vec<usize> = asked.iter().map(|asked| asked.max_new_tokens).collect();
            limits.sort_unstable();
            limits.dedup();
            for limit in limits {
                let together: Vec<&Asked> = asked
                    .iter()
                    .filter(|asked| asked.max_new_tokens == limit)
                    .collect();
                let requests: Vec<GenerationRequest> =
                    together.iter().map(|asked| asked.request.clone()).collect();
                let config = GenerationConfig {
                    max_new_tokens: limit,
                    ..generation.clone()
                };
                let answers = session(&requests, &config)?;
                crate::rollout::check_answers(&answers, &requests, &config, policy.vocab_size())?;
                for (asked, completions) in together.into_iter().zip(answers) {
                    for &(player, sample) in &asked.players {
                        if let Some(completion) = completions.get(sample) {
                            players[player].hear(completion, tokenizer, version)?;
                        }
                    }
                }
            }
            self.step(&mut players);
            for player in &mut players {
                player.observe(tokenizer, &self.config)?;
            }
        }
        let mut buffer = RolloutBuffer::new();
        let mut players = players.into_iter().peekable();
        for (index, question) in questions.iter().enumerate() {
            let mut group = RolloutGroup::new(question.problem.clone(), Vec::new(), Vec::new());
            while let Some(player) = players.next_if(|player| player.question == index) {
                group.prompt_tokens.clone_from(&player.prompt);
                group.rollouts.push(player.into_rollout());
            }
            buffer.push(group);
        }
        Ok(buffer)
    }

    /// Opens an episode for every sample.
    fn open(&self, questions: &[Question], tokenizer: &dyn Tokenizer) -> Result<Vec<Player>> {
        let samples = |(index, question): (usize, &Question)| {
            (0..question.samples).map(move |sample| (index, sample))
        };
        let places: Vec<(usize, usize)> = questions.iter().enumerate().flat_map(samples).collect();
        let environment = self.environment.clone();
        let seeds: Vec<_> = questions
            .iter()
            .map(|question| (question.problem.clone(), random::seed(&question.address)))
            .collect();
        let opened: Vec<Result<Opening, String>> = {
            let places = places.clone();
            self.parallel(places.len(), move |job| {
                let (problem, seed) = &seeds[places[job].0];
                environment.open(problem, *seed)
            })
        };
        let mut players: Vec<Player> = Vec::new();
        let mut failure = None;
        for ((question, sample), opening) in places.into_iter().zip(opened) {
            match opening {
                Ok(opening) => {
                    let (asked, place) = (&questions[question], (question, sample));
                    let player = Player::new(place, asked, opening, tokenizer)?;
                    let first = players.iter().find(|other| other.question == question);
                    if first.is_some_and(|first| first.prompt != player.prompt) {
                        return Err(Error::config(
                            format!("environment `{}`", self.environment.name()),
                            format!(
                                "samples of one problem open differently: {:?}",
                                asked.problem.prompt
                            ),
                            "the same messages and tools for all of them: their seed is the same",
                        ));
                    }
                    players.push(player);
                }
                Err(reason) => {
                    tracing::warn!(environment = self.environment.name(), %reason, "an episode could not be opened");
                    failure.get_or_insert(reason);
                }
            }
        }
        match failure {
            Some(reason) if players.is_empty() => Err(Error::config(
                format!("environment `{}`", self.environment.name()),
                format!("no episode could be opened; first: {reason}"),
                "an environment that opens",
            )),
            _ => Ok(players),
        }
    }

    /// Every player that was answered takes a step.
    fn step(&self, players: &mut [Player]) {
        let waiting: Vec<usize> = (0..players.len())
            .filter(|&i| players[i].is_waiting())
            .collect();
        let moves: Arc<Vec<Mutex<Option<super::player::Move>>>> = Arc::new(
            waiting
                .iter()
                .map(|&i| Mutex::new(players[i].take_move()))
                .collect(),
        );
        let steps: Vec<Result<_, String>> = self.parallel(waiting.len(), move |job| {
            let mut place = moves[job].lock().unwrap_or_else(PoisonError::into_inner);
            let Some(mut made) = place.take() else {
                return Err("the episode was lost".into());
            };
            let step: Step = made.episode.step(&Reply {
                text: &made.text,
                finish: made.finish,
                turn: made.turn,
            })?;
            match step.reward {
                Some(reward) if !reward.is_finite() => {
                    Err(format!("its reward is {reward}; expected a finite number").into())
                }
                _ => Ok((made.episode, step)),
            }
        });
        for (player, step) in waiting.into_iter().zip(steps) {
            players[player].take_step(step);
        }
    }

    /// The results of `job(0)`, `job(1)` and so on, each under the time limit; a panic or a time-out is an error.
    fn parallel<T: Send + 'static>(
        &self,
        count: usize,
        job: impl Fn(usize) -> Result<T, EnvironmentError> + Send + Sync + 'static,
    ) -> Vec<Result<T, String>> {
        let results: Arc<Vec<Mutex<Option<T>>>> =
            Arc::new((0..count).map(|_| Mutex::new(None)).collect());
        let places = results.clone();
        let job: Job = Arc::new(move |index| match job(index) {
            Ok(result) => {
                let mut place = places[index].lock().unwrap_or_else(PoisonError::into_inner);
                *place = Some(result);
                vec![RewardOutcome::Abstained]
            }
            Err(error) => vec![RewardOutcome::Failed(error.to_string())],
        });
        let plan = Plan {
            limits: vec![self.config.time_limit; count],
            lanes: vec![Lane {
                jobs: (0..count).collect(),
                threads: self.config.threads.min(count),
            }],
        };
        let done = self.pool.run(plan, job);
        let found = done.into_iter().zip(results.iter()).map(|(done, place)| {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            match (done.outcomes.into_iter().next(), place.take()) {
                (Some(RewardOutcome::Abstained), Some(result)) => Ok(result),
                (Some(RewardOutcome::TimedOut(seconds)), _) => {
                    Err(format!("no answer after {seconds} s"))
                }
                (Some(RewardOutcome::Panicked(message)), _) => Err(format!("panicked: {message}")),
                (Some(RewardOutcome::Failed(reason)), _) => Err(reason),
                _ => Err("the result was lost".into()),
            }
        });
        found.collect()
    }
}

/// What is asked of the generator in this round. Before the first reply the samples of a problem share a request.
fn ask(players: &[Player], questions: &[Question]) -> Vec<Asked> {
    let mut asked: Vec<Asked> = Vec::new();
    for (index, player) in players.iter().enumerate() {
        let Some(max_new_tokens) = player.room() else {
            continue;
        };
        let question = &questions[player.question];
        if player.turns() == 0 {
            match asked.last_mut() {
                Some(last) if last.question == player.question => {
                    last.players.push((index, player.sample));
                }
                _ => asked.push(Asked {
                    question: player.question,
                    request: GenerationRequest::new(
                        player.prompt.clone(),
                        question.samples,
                        question.address.clone(),
                    ),
                    max_new_tokens,
                    players: vec![(index, player.sample)],
                }),
            }
        } else {
            let mut address = question.address.clone();
            address.extend([player.sample as u64, player.turns() as u64]);
            asked.push(Asked {
                question: player.question,
                request: GenerationRequest::new(player.read(), 1, address),
                max_new_tokens,
                players: vec![(index, 0)],
            });
        }
    }
    asked
}
