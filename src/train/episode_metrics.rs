//! The metrics of the episodes of a step.

use std::collections::BTreeMap;

use crate::types::{EpisodeRecord, Rollout};

/// Computes the metrics of episodes; none if the rollouts have no episodes.
///
/// | metric | |
/// |---|---|
/// | `episode/turns` | replies per episode |
/// | `episode/end/NAME` | share of the episodes with this end |
/// | `episode/observation_tokens` | observation tokens per episode |
/// | `episode/calls`, `episode/calls/STATUS` | attempted tool calls per episode, and those with this status |
/// | `episode/reward` | mean sum of the turns' rewards, over the episodes that have one |
pub(super) fn episode_metrics(rollouts: &[&Rollout]) -> BTreeMap<String, f64> {
    let episodes: Vec<&EpisodeRecord> = rollouts
        .iter()
        .filter_map(|rollout| rollout.episode.as_ref())
        .collect();
    let mut metrics = BTreeMap::new();
    if episodes.is_empty() {
        return metrics;
    }
    let share = 1.0 / episodes.len() as f64;
    let mut add = |name: String, value: f64| {
        *metrics.entry(format!("episode/{name}")).or_insert(0.0) += value;
    };
    let mut rewards = Vec::new();
    for episode in episodes {
        add("turns".into(), share * episode.turns.len() as f64);
        add(format!("end/{}", episode.end.name()), share);
        rewards.extend(episode.reward());
        for turn in &episode.turns {
            add(
                "observation_tokens".into(),
                share * turn.observation_tokens as f64,
            );
            for (status, &count) in &turn.calls {
                add("calls".into(), share * count as f64);
                add(format!("calls/{status}"), share * count as f64);
            }
        }
    }
    if !rewards.is_empty() {
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        metrics.insert("episode/reward".into(), mean);
    }
    metrics
}
