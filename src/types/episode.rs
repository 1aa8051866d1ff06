//! The record of a conversation of several turns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::Message;
use super::rollout::FinishReason;
use crate::fnv::Fnv;

/// The record of an episode: the replies of the policy and the observations that followed them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeRecord {
    /// The turns in order; at least one.
    pub turns: Vec<Turn>,
    /// The reason why the episode ended.
    pub end: EpisodeEnd,
}

/// A reply of the policy and the environment's response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The number of sampled tokens.
    pub tokens: usize,
    /// The number of tokens of the observation, including those that the chat format adds around
    /// it.
    pub observation_tokens: usize,
    /// The text of the reply, without the stop token.
    pub text: String,
    /// The reason why the reply ended.
    pub finish: FinishReason,
    /// The environment's reward for the reply, if it gave one.
    pub reward: Option<f64>,
    /// An identifier of the environment's state after the reply, for estimators that compare
    /// replies in equal states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<u64>,
    /// The number of attempts to call a tool, by status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<String, usize>,
    /// The messages of the environment.
    pub observation: Vec<Message>,
}

/// The reason why an episode ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpisodeEnd {
    /// The environment ended it.
    #[default]
    Done,
    /// The environment truncated it.
    Truncated,
    /// The limit of turns was reached.
    MaxTurns,
    /// A reply reached its length limit.
    Length,
    /// There was no room for the observation and another reply.
    ContextFull,
    /// The environment failed, for this reason. The rollout is excluded from training.
    Failed(String),
}

impl Turn {
    /// The state before the next reply: the environment's, or else a hash of the observation.
    pub(crate) fn state_after(&self) -> u64 {
        if let Some(state) = self.state {
            return state;
        }
        let mut hash = Fnv::default();
        for message in &self.observation {
            hash.text_and_end(&message.role);
            hash.text_and_end(&message.content);
        }
        hash.finish()
    }
}

impl EpisodeEnd {
    /// Returns the name that metrics use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Truncated => "truncated",
            Self::MaxTurns => "max_turns",
            Self::Length => "length",
            Self::ContextFull => "context_full",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns true if a limit cut the episode short.
    pub fn is_limit(&self) -> bool {
        !matches!(self, Self::Done | Self::Failed(_))
    }
}

impl EpisodeRecord {
    /// Returns the sum of the turns' rewards, or `None` if no turn has one.
    pub fn reward(&self) -> Option<f64> {
        let rewards = self.turns.iter().filter_map(|turn| turn.reward);
        rewards.reduce(|sum, reward| sum + reward)
    }
}
