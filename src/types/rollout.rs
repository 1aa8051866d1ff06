//! One completion with everything that is known about it.

use serde::{Deserialize, Deserializer, Serialize};

use super::episode::EpisodeRecord;
use super::reward::RewardRecord;

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The policy sampled a stop token; the stop token is the last token of the completion.
    Stop,
    /// The completion reached the length limit and was cut off.
    Length,
}

/// Consecutive tokens that one version of the policy sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionSpan {
    /// The version: the number of optimizer updates before it.
    pub version: u64,
    /// How many tokens.
    pub tokens: usize,
}

/// One sampled completion, as it was when it was sampled.
///
/// The tokens are those that were sampled, never a re-tokenised text. Everything that is "per token" elsewhere is per *trained*
/// token: a token that [`mask`](Self::mask) leaves out, such as the reply of a tool, is read as context and has no log-prob,
/// advantage or loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// All tokens after the prompt, the stop token included.
    pub tokens: Vec<u32>,
    /// Which tokens the policy sampled, and so which are trained on; as long as `tokens`, or empty if it sampled all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<bool>,
    /// Natural logarithm of each token's probability under the distribution that it was sampled from, temperature and
    /// truncation included; as long as `tokens`. NaN where the engine could not tell; not read where `mask` is false.
    #[serde(deserialize_with = "null_is_nan")]
    pub log_probs: Vec<f32>,
    /// Sum over the sampled tokens of the policy's entropy when each was drawn, in nats; `None` if the engine does not tell.
    pub entropy: Option<f64>,
    /// The completion as text, without the stop token.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// The version of the policy that generated it: the number of optimizer updates before it. If several did, the oldest.
    pub policy_version: u64,
    /// Which version sampled which of `tokens`, in order, if more than one did; empty if all are of `policy_version`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionSpan>,
    /// Its index within the group; part of the address of its randomness.
    pub sample: usize,
    /// Every reward by name; empty until scored.
    pub rewards: Vec<RewardRecord>,
    /// The weighted total; `None` if no reward could be given. Such a rollout is excluded from training.
    pub reward: Option<f64>,
    /// Rewards of the single trained tokens on top of `reward`, one for each; empty if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_rewards: Vec<f64>,
    /// The turns of a conversation with an environment; `None` for a single completion. `text` is then that of the last reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<EpisodeRecord>,
}

impl Rollout {
    /// A completion that was sampled whole and has not been scored, with its text.
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

    /// Whether token `index` is trained on.
    pub fn is_trained(&self, index: usize) -> bool {
        match self.mask.is_empty() {
            true => index < self.tokens.len(),
            false => self.mask.get(index).copied().unwrap_or(false),
        }
    }

    /// The number of tokens that are trained on.
    pub fn trained_tokens(&self) -> usize {
        match self.mask.is_empty() {
            true => self.tokens.len(),
            false => self.mask.iter().filter(|&&sampled| sampled).count(),
        }
    }

    /// Of one value for every token, those of the trained tokens.
    pub fn trained<'a, T>(&'a self, values: &'a [T]) -> impl Iterator<Item = &'a T> {
        let all = values.iter().enumerate();
        all.filter(|(index, _)| self.is_trained(*index))
            .map(|(_, value)| value)
    }

    /// The total and the rewards of the tokens together; `None` if no reward could be given.
    pub fn total_reward(&self) -> Option<f64> {
        self.reward
            .map(|reward| reward + self.token_rewards.iter().sum::<f64>())
    }

    /// The unweighted score of the reward called `name`, if it gave one.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.rewards
            .iter()
            .find(|record| record.name == name)
            .and_then(|record| record.outcome.score())
    }

    /// The oldest version of the policy that sampled a token of it.
    pub fn oldest_version(&self) -> u64 {
        let spans = self.versions.iter().map(|span| span.version);
        spans.min().unwrap_or(self.policy_version)
    }

    /// Whether a limit cut the completion or the episode off.
    pub fn is_truncated(&self) -> bool {
        match &self.episode {
            Some(episode) => episode.end.is_limit(),
            None => self.finish == FinishReason::Length,
        }
    }
}

/// Reads log-probs; JSON has no NaN and writes it as `null`.
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
    fn the_mask_says_what_is_trained() {
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
