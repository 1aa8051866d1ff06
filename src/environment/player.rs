//! A running episode and its tokens.

use super::agent_loop::AgentLoopConfig;
use super::contract::{Episode, Opening, Step, StepEnd};
use crate::Result;
use crate::prompt::Tokenizer;
use crate::rollout::{Completion, GenerationConfig, GenerationRequest, RolloutRequest};
use crate::types::{EpisodeEnd, EpisodeRecord, FinishReason, Message, Rollout, Turn};

/// A request to the generator, and the players that its completions belong to.
pub(super) struct Asked {
    pub question: usize,
    pub request: GenerationRequest,
    pub max_new_tokens: usize,
    /// The index of each player, and the sample of the request that is its reply.
    pub players: Vec<(usize, usize)>,
}

/// An episode with its next reply.
pub(super) struct Move {
    pub episode: Box<dyn Episode>,
    pub text: String,
    pub finish: FinishReason,
    pub turn: usize,
}

/// One sample of a problem.
pub(super) struct Player {
    pub question: usize,
    pub sample: usize,
    /// The tokens before the first reply.
    pub prompt: Vec<u32>,
    episode: Option<Box<dyn Episode>>,
    tools: Option<String>,
    conversation: Vec<Message>,
    /// The tokens after the prompt.
    tokens: Vec<u32>,
    mask: Vec<bool>,
    log_probs: Vec<f32>,
    entropy: Option<f64>,
    oldest_version: Option<u64>,
    turns: Vec<Turn>,
    /// The step after the last reply, until its observation is read.
    step: Option<Step>,
    waiting: bool,
    end: Option<EpisodeEnd>,
    /// The maximum number of tokens after the prompt.
    max_tokens: usize,
    max_reply: usize,
}

impl Player {
    pub fn new(
        (question, sample): (usize, usize),
        asked: &RolloutRequest,
        opening: Opening,
        tokenizer: &dyn Tokenizer,
    ) -> Result<Self> {
        let text = &asked.problem.prompt;
        let (conversation, prompt) = match opening.messages.is_empty() {
            true if opening.tools.is_none() => {
                (vec![Message::user(text)], tokenizer.encode_prompt(text)?)
            }
            empty => {
                let messages = match empty {
                    true => vec![Message::user(text)],
                    false => opening.messages,
                };
                let ids = tokenizer.encode_conversation(&messages, opening.tools.as_deref())?;
                (messages, ids)
            }
        };
        Ok(Self {
            question,
            sample,
            prompt,
            episode: Some(opening.episode),
            tools: opening.tools,
            conversation,
            tokens: Vec::new(),
            mask: Vec::new(),
            log_probs: Vec::new(),
            entropy: Some(0.0),
            oldest_version: None,
            turns: Vec::new(),
            step: None,
            waiting: false,
            end: None,
            max_tokens: 0,
            max_reply: 0,
        })
    }

    /// Sets the length limits.
    pub fn limit(
        &mut self,
        positions: usize,
        config: &AgentLoopConfig,
        generation: &GenerationConfig,
    ) {
        // The last token is never fed back.
        let room = (positions + 1).saturating_sub(self.prompt.len());
        self.max_tokens = config.max_tokens.unwrap_or(usize::MAX).min(room);
        self.max_reply = generation.max_new_tokens;
    }

    /// The maximum length of the next reply; `None` if the episode has ended.
    pub fn room(&self) -> Option<usize> {
        match self.end {
            Some(_) => None,
            // The generator returns an error for a prompt that is too long.
            None if self.turns.is_empty() => Some(self.max_reply.min(self.max_tokens.max(1))),
            None => Some(self.max_reply.min(self.max_tokens - self.tokens.len())),
        }
    }

    /// The number of replies so far.
    pub fn turns(&self) -> usize {
        self.turns.len()
    }

    /// The tokens that the policy reads before its next reply.
    pub fn read(&self) -> Vec<u32> {
        [self.prompt.as_slice(), &self.tokens].concat()
    }

    /// Adds a reply.
    pub fn add_reply(
        &mut self,
        reply: &Completion,
        tokenizer: &dyn Tokenizer,
        version: u64,
    ) -> Result<()> {
        self.turns.push(Turn {
            tokens: reply.tokens.len(),
            observation_tokens: 0,
            text: reply.text(tokenizer)?,
            finish: reply.finish,
            reward: None,
            state: None,
            calls: Default::default(),
            observation: Vec::new(),
        });
        self.tokens.extend_from_slice(&reply.tokens);
        self.mask.resize(self.tokens.len(), true);
        self.log_probs.extend_from_slice(&reply.log_probs);
        self.entropy = self
            .entropy
            .zip(reply.entropy)
            .map(|(sum, more)| sum + more);
        let version = reply.oldest_version().unwrap_or(version);
        self.oldest_version = Some(self.oldest_version.map_or(version, |old| old.min(version)));
        self.waiting = true;
        Ok(())
    }

    /// Whether the last reply waits for the environment.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Takes the episode with the last reply, for a step on another thread.
    pub fn take_move(&mut self) -> Option<Move> {
        self.waiting = false;
        let last = self.turns.last()?;
        Some(Move {
            episode: self.episode.take()?,
            text: last.text.clone(),
            finish: last.finish,
            turn: self.turns.len() - 1,
        })
    }

    /// Returns the episode with its response.
    pub fn take_step(&mut self, step: Result<(Box<dyn Episode>, Step), String>) {
        match step {
            Ok((episode, step)) => {
                self.episode = Some(episode);
                self.step = Some(step);
            }
            Err(reason) => self.end = Some(EpisodeEnd::Failed(reason)),
        }
    }

    /// Encodes the observation of the last step, or ends the episode.
    pub fn observe(&mut self, tokenizer: &dyn Tokenizer, config: &AgentLoopConfig) -> Result<()> {
        let (Some(step), Some(turn)) = (self.step.take(), self.turns.last_mut()) else {
            return Ok(());
        };
        turn.reward = step.reward;
        turn.state = step.state;
        turn.calls = step.calls;
        let reply = step
            .message
            .unwrap_or_else(|| Message::assistant(&turn.text));
        self.conversation.push(reply);
        let finish = turn.finish;
        let mut observation = step.observation;
        if let Some(most) = config.max_observation_tokens {
            for message in &mut observation {
                cut(&mut message.content, most, tokenizer)?;
            }
        }
        let end = match step.end {
            Some(StepEnd::Done) => Some(EpisodeEnd::Done),
            Some(StepEnd::Truncated) => Some(EpisodeEnd::Truncated),
            None if finish == FinishReason::Length => Some(EpisodeEnd::Length),
            None if self.turns.len() >= config.max_turns => Some(EpisodeEnd::MaxTurns),
            None if observation.is_empty() => Some(EpisodeEnd::Failed(
                "a step has no observation and does not end the episode".into(),
            )),
            None => None,
        };
        if end.is_some() {
            self.finish(end, observation);
            return Ok(());
        }
        let tools = self.tools.as_deref();
        let ids = match tokenizer.encode_observations(&self.conversation, tools, &observation) {
            Ok(ids) => ids,
            Err(error) => {
                let reason = format!("the observation cannot be encoded: {error}");
                self.finish(Some(EpisodeEnd::Failed(reason)), observation);
                return Ok(());
            }
        };
        if self.tokens.len() + ids.len() >= self.max_tokens {
            self.finish(Some(EpisodeEnd::ContextFull), Vec::new());
            return Ok(());
        }
        if let Some(turn) = self.turns.last_mut() {
            turn.observation_tokens = ids.len();
            turn.observation.clone_from(&observation);
        }
        self.conversation.extend(observation);
        self.tokens.extend(ids);
        self.mask.resize(self.tokens.len(), false);
        self.log_probs.resize(self.tokens.len(), 0.0);
        Ok(())
    }

    fn finish(&mut self, end: Option<EpisodeEnd>, observation: Vec<Message>) {
        self.end = end;
        self.episode = None;
        if let Some(turn) = self.turns.last_mut() {
            turn.observation = observation;
        }
    }

    /// Converts the episode to a rollout.
    pub fn into_rollout(self) -> Rollout {
        let last = self.turns.last();
        let text = last.map(|turn| turn.text.clone()).unwrap_or_default();
        let finish = last.map_or(FinishReason::Length, |turn| turn.finish);
        Rollout {
            // A single reply needs no mask: all of its tokens were sampled.
            mask: match self.turns.len() {
                1 => Vec::new(),
                _ => self.mask,
            },
            entropy: self.entropy,
            finish,
            policy_version: self.oldest_version.unwrap_or_default(),
            sample: self.sample,
            episode: Some(EpisodeRecord {
                turns: self.turns,
                end: self.end.unwrap_or_default(),
            }),
            ..Rollout::new(self.tokens, self.log_probs, text)
        }
    }
}

/// Truncates `text` to its first `most` tokens and appends a note.
fn cut(text: &mut String, most: usize, tokenizer: &dyn Tokenizer) -> Result<()> {
    let ids = tokenizer.encode(text)?;
    if ids.len() > most {
        let kept = tokenizer.decode(&ids[..most])?;
        *text = format!("{kept}\n[cut: {most} of {} tokens]", ids.len());
    }
    Ok(())
}
