//! What happened in a conversation of several turns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::Message;
use super::rollout::FinishReason;
use crate::fnv::Fnv;

/// The record of an episode: the replies of the policy and what each was answered with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeRecord {
    /// The replies in order; at least one.
    pub turns: Vec<Turn>,
    /// Why the episode ended.
    pub end: EpisodeEnd,
}

/// A reply of the policy, and what followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The number of tokens that the policy sampled.
    pub tokens: usize,
    /// The number of tokens of the observation after it, with everything that the form of the conversation puts around it.
    pub observation_tokens: usize,
    /// The reply as text, without the stop token.
    pub text: String,
    /// Why the reply ended.
    pub finish: FinishReason,
    /// The environment's reward for the reply, if it gave one.
    pub reward: Option<f64>,
    /// Tells the state of the environment after the reply from others, for estimators that compare replies in equal states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<u64>,
    /// How many attempts to call a tool had which status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<String, usize>,
    /// What the environment said.
    pub observation: Vec<Message>,
}

/// Why an episode ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpisodeEnd {
    /// The environment said that it was over.
    #[default]
    Done,
    /// The environment cut it off.
    Truncated,
    /// The most turns were reached.
    MaxTurns,
    /// A reply reached its length limit.
    Length,
    /// There was no room for the observation and another reply.
    ContextFull,
    /// The environment failed, with the reason. Such a rollout is not learned from.
    Failed(String),
}

impl Turn {
    /// The state in which the next reply is given: the environment's, or else a hash of the observation.
    pub fn state_after(&self) -> u64 {
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
    /// The name in metrics.
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

    /// Whether a limit ended the episode before it was over.
    pub fn is_limit(&self) -> bool {
        !matches!(self, Self::Done | Self::Failed(_))
    }
}

impl EpisodeRecord {
    /// The sum of the turns' rewards; `None` if no turn has one.
    pub fn reward(&self) -> Option<f64> {
        let rewards = self.turns.iter().filter_map(|turn| turn.reward);
        rewards.reduce(|sum, reward| sum + reward)
    }
}
