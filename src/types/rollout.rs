//! One sampled completion with its log-probs and rewards.

use serde::{Deserialize, Deserializer, Serialize};

use super::episode::EpisodeRecord;
use super::reward::RewardRecord;

/// The reason why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The policy sampled a stop token, which is the last token of the completion.
    Stop,
    /// The completion reached the length limit and was cut off.
    Length,
}

/// A run of consecutive tokens that one version of the policy sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionSpan {
    /// The version: the number of optimizer updates before it.
    pub version: u64,
    /// The number of tokens.
    pub tokens: usize,
}

/// One sampled completion.
///
/// `tokens` are the sampled ids, never a re-tokenized text. Quantities "per token" elsewhere in the
/// crate are per *trained* token: a token that [`mask`](Self::mask) excludes, such as the output of
/// a tool, is context only and has no log-prob, advantage or loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// All tokens after the prompt, including the stop token.
    pub tokens: Vec<u32>,
    /// True for each token that the policy sampled and that is trained on; as long as `tokens`, or
    /// empty if the policy sampled all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<bool>,
    /// The natural logarithm of each token's probability under the distribution that it was sampled
    /// from, including temperature and truncation; as long as `tokens`. NaN where the engine did
    /// not report it; ignored where `mask` is false.
    #[serde(deserialize_with = "null_is_nan")]
    pub log_probs: Vec<f32>,
    /// The sum of the policy's entropies at the sampled tokens, in nats; `None` if the engine does
    /// not report it.
    pub entropy: Option<f64>,
    /// The text of the completion, without the stop token. For an episode, that of the last reply.
    pub text: String,
    /// The reason why it ended.
    pub finish: FinishReason,
    /// The policy version that generated it: the number of optimizer updates before it. If there
    /// were several, the oldest.
    pub policy_version: u64,
    /// The policy versions that generated `tokens`, in order, if there were several; empty if all
    /// tokens are of `policy_version`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionSpan>,
    /// Its index within the group; part of the address of its randomness.
    pub sample: usize,
    /// The record of every reward; empty until scored.
    pub rewards: Vec<RewardRecord>,
    /// The weighted total of the rewards; `None` if there is none. Such a rollout is excluded from
    /// training.
    pub reward: Option<f64>,
    /// A reward for each trained token, in addition to `reward`; empty if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_rewards: Vec<f64>,
    /// The record of a conversation with an environment; `None` for a single completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<EpisodeRecord>,
}

impl Rollout {
    /// Creates a completion that ended with a stop token, has no mask and is not scored.
    pub fn new(tokens: Vec<u32>, log_probs: Vec<f32>, text: impl Into<String>) -> Self {
        Self {
            tokens,
            mask: Vec::new(),
            log_probs,
            entropy: None,
            text: text.into(),
            finish: FinishReason::Stop,
            policy_version: 0,
            versions: Vec::new(),
            sample: 0,
            rewards: Vec::new(),
            reward: None,
            token_rewards: Vec::new(),
            episode: None,
        }
    }

    /// Returns true if the token at `index` exists and is trained on.
    pub fn is_trained(&self, index: usize) -> bool {
        match self.mask.is_empty() {
            true => index < self.tokens.len(),
            false => self.mask.get(index).copied().unwrap_or(false),
        }
    }

    /// Returns the number of tokens that are trained on.
    pub fn trained_tokens(&self) -> usize {
        match self.mask.is_empty() {
            true => self.tokens.len(),
            false => self.mask.iter().filter(|&&sampled| sampled).count(),
        }
    }

    /// Filters `values`, one for each token, to those of the trained tokens.
    pub(crate) fn trained<'a, T>(&'a self, values: &'a [T]) -> impl Iterator<Item = &'a T> {
        let all = values.iter().enumerate();
        all.filter(|(index, _)| self.is_trained(*index))
            .map(|(_, value)| value)
    }

    /// Returns [`reward`](Self::reward) plus the sum of
    /// [`token_rewards`](Self::token_rewards), or `None` if there is no reward.
    pub fn total_reward(&self) -> Option<f64> {
        self.reward
            .map(|reward| reward + self.token_rewards.iter().sum::<f64>())
    }

    /// Returns the unweighted score of the reward called `name`, if it has one.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.rewards
            .iter()
            .find(|record| record.name == name)
            .and_then(|record| record.outcome.score())
    }

    /// The oldest policy version that generated one of the tokens.
    pub(crate) fn oldest_version(&self) -> u64 {
        let spans = self.versions.iter().map(|span| span.version);
        spans.min().unwrap_or(self.policy_version)
    }

    /// Returns true if a limit cut the completion or the episode short.
    pub fn is_truncated(&self) -> bool {
        match &self.episode {
            Some(episode) => episode.end.is_limit(),
            None => self.finish == FinishReason::Length,
        }
    }
}

/// Reads log-probs, with `null` as NaN: JSON has no NaN.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let values = Vec::<Option<f32>>::deserialize(deserializer)?;
    let known = |value: Option<f32>| value.unwrap_or(f32::NAN);
    Ok(values.into_iter().map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_log_prob_survives_json() {
        let rollout = Rollout::new(vec![3, 4], vec![f32::NAN, -0.1], "x");
        let text = serde_json::to_string(&rollout).unwrap();
        let read: Rollout = serde_json::from_str(&text).unwrap();
        assert!(read.log_probs[0].is_nan());
        assert_eq!(read.log_probs[1].to_bits(), (-0.1f32).to_bits());
    }

    #[test]
    fn masked_tokens_are_not_trained() {
        let mut rollout = Rollout::new(vec![3, 4, 5], vec![-0.1, 0.0, -0.2], "x");
        assert_eq!(rollout.trained_tokens(), 3);
        assert!(rollout.is_trained(2) && !rollout.is_trained(3));
        rollout.mask = vec![true, false, true];
        assert_eq!(rollout.trained_tokens(), 2);
        assert!(!rollout.is_trained(1));
        let trained: Vec<f32> = rollout.trained(&rollout.log_probs).copied().collect();
        assert_eq!(trained, [-0.1, -0.2]);
    }
}
