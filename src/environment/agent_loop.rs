//! The loop of generation and environment steps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::contract::{Environment, EnvironmentError, Opening, Reply, Step};
use super::player::{Asked, Player};
use crate::policy::PolicyModel;
use crate::prompt::Tokenizer;
use crate::random;
use crate::reward::pool::{Job, Lane, Plan, Pool};
use crate::rollout::{GenerationConfig, GenerationRequest, RolloutEngine, RolloutRequest};
use crate::types::{RewardOutcome, RolloutBuffer, RolloutGroup};
use crate::{Error, Result};

/// The limits of an [`AgentLoop`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentLoopConfig {
    /// The maximum number of replies. Default: 8.
    pub max_turns: usize,
    /// The maximum number of tokens after the prompt, including observations. A single reply is
    /// also limited by [`GenerationConfig::max_new_tokens`]. Default: the policy's positions.
    pub max_tokens: Option<usize>,
    /// The maximum number of tokens of one message of an observation. A longer message is truncated
    /// and ends with a note. Default: no limit.
    pub max_observation_tokens: Option<usize>,
    /// The time limit of one call of the environment. Default: 30 s.
    pub time_limit: Duration,
    /// The maximum number of concurrent calls of the environment. Default: 16.
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
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the field, its value and the expected range.
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
            return Err(Error::config(
                "agent_loop.time_limit",
                "0 s",
                "more than 0 s",
            ));
        }
        Ok(())
    }
}

/// Plays episodes of an environment, within limits.
///
/// In each round, the replies of all running episodes are generated in one batch; then all episodes
/// take a step in parallel. The first replies draw from the random stream of single completions,
/// `[address.., sample]`; later ones from `[address.., sample, turn]`. A rollout does not depend on
/// the others.
///
/// An episode ends when the environment ends it, or at the first limit: a reply that is cut off
/// ([`EpisodeEnd::Length`]), the maximum number of turns ([`EpisodeEnd::MaxTurns`]), or an
/// observation that leaves no room for another reply ([`EpisodeEnd::ContextFull`]); this
/// observation is dropped. [`EpisodeEnd`] distinguishes truncated from completed episodes.
///
/// ```
/// use burn::tensor::Device;
/// use rlvr::environment::tools::{Calculator, ReplyParser, ToolSet};
/// use rlvr::environment::{AgentLoop, AgentLoopConfig, ToolEnvironment};
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
/// use rlvr::rollout::{GenerationConfig, LocalEngine, RolloutRequest};
/// use rlvr::types::Problem;
///
/// # fn main() -> rlvr::Result<()> {
/// # #[cfg(feature = "flex")] {
/// let tools = ToolSet::new().with(Calculator)?;
/// let environment = ToolEnvironment::new(tools, ReplyParser::named("hermes")?);
/// let agent_loop = AgentLoop::new(environment.without_description()).with_config(
///     AgentLoopConfig {
///         max_turns: 4,
///         ..AgentLoopConfig::default()
///     },
/// )?;
/// // A trainer takes it as `Trainer::builder(..).agent_loop(agent_loop)`. By hand:
/// let tokenizer = CharTokenizer::new("0123456789+=", &[])?;
/// let policy = CausalConfig::new(tokenizer.vocab_size())
///     .init(0, &Device::flex().autodiff())?;
/// let question =
///     RolloutRequest::new(Problem::new("1+1=", "2"), &tokenizer, 4, [0, 0])?;
/// let config = GenerationConfig::new(8, tokenizer.stop_tokens());
/// let rollouts = agent_loop.run(
///     &mut LocalEngine,
///     &policy,
///     0,
///     &tokenizer,
///     &[question],
///     &config,
/// )?;
/// assert!(rollouts.rollouts().all(|rollout| rollout.episode.is_some()));
/// # }
/// # Ok(())
/// # }
/// ```
///
/// [`EpisodeEnd`]: crate::types::EpisodeEnd
/// [`EpisodeEnd::Length`]: crate::types::EpisodeEnd::Length
/// [`EpisodeEnd::MaxTurns`]: crate::types::EpisodeEnd::MaxTurns
/// [`EpisodeEnd::ContextFull`]: crate::types::EpisodeEnd::ContextFull
#[doc(alias("environment_factory", "rollout_func"))]
#[derive(Clone)]
pub struct AgentLoop {
    environment: Arc<dyn Environment>,
    config: AgentLoopConfig,
    pool: Pool,
}

/// The number of abandoned calls at which no new call is started.
const MAX_ABANDONED: usize = 64;

impl AgentLoop {
    /// Creates a loop for `environment` with the default limits.
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

    /// Sets the limits.
    ///
    /// # Errors
    /// Returns an error if a limit is invalid; see [`AgentLoopConfig::validate`].
    pub fn with_config(mut self, config: AgentLoopConfig) -> Result<Self> {
        config.validate()?;
        self.config = config;
        Ok(self)
    }

    /// The environment.
    pub(crate) fn environment(&self) -> &dyn Environment {
        self.environment.as_ref()
    }

    /// Plays episodes for every question, and returns groups of rollouts that are not yet scored.
    ///
    /// The encoded prompt of a question is not used: the environment determines the messages before
    /// the first reply. A sample whose episode could not be opened is missing from its group.
    ///
    /// # Errors
    /// Returns an error if generation fails, a text cannot be encoded or decoded, samples of a
    /// problem open differently, or no episode could be opened.
    pub fn run<M: PolicyModel>(
        &self,
        engine: &mut dyn RolloutEngine<M>,
        policy: &M,
        version: u64,
        tokenizer: &dyn Tokenizer,
        questions: &[RolloutRequest],
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
            // One batch per length limit; most replies have the same limit.
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
                            players[player].add_reply(completion, tokenizer, version)?;
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
    fn open(&self, questions: &[RolloutRequest], tokenizer: &dyn Tokenizer) -> Result<Vec<Player>> {
        let samples = |(index, question): (usize, &RolloutRequest)| {
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
                            "the same messages and tools for all of them, since they have the same seed",
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
                format!("no episode could be opened; first error: {reason}"),
                "an environment that opens at least one episode",
            )),
            _ => Ok(players),
        }
    }

    /// Steps every episode that has a new reply.
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

    /// Runs `job(0)` to `job(count - 1)` in parallel, each within the time limit. A panic or a
    /// timeout is an error.
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

/// Returns the requests of this round. For the first reply, the samples of a problem share a
/// request.
fn ask(players: &[Player], questions: &[RolloutRequest]) -> Vec<Asked> {
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
