//! The record of a reward on one rollout.

use serde::{Deserialize, Serialize};

/// The outcome of one reward on one rollout.
///
/// A reward without a score is never counted as zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardOutcome {
    /// A finite number, before its weight.
    Score(f64),
    /// The reward does not apply to this rollout.
    Abstained,
    /// The reward returned an error, or NaN or an infinite number.
    Failed(String),
    /// The reward panicked with this message.
    Panicked(String),
    /// The reward exceeded this time limit, in seconds.
    TimedOut(f64),
    /// The reward was not run because its gate was closed. It contributes this number to the total,
    /// before its weight.
    Gated(f64),
}

impl RewardOutcome {
    /// Returns the score, if there is one. The value of a closed gate is not a score.
    pub fn score(&self) -> Option<f64> {
        match self {
            Self::Score(score) => Some(*score),
            _ => None,
        }
    }

    /// Returns true for an error, a panic or a timeout. Abstaining is not a failure, and neither is
    /// a closed gate.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Failed(_) | Self::Panicked(_) | Self::TimedOut(_) => true,
            Self::Score(_) | Self::Abstained | Self::Gated(_) => false,
        }
    }

    /// Returns the reason for a failure, or `None` if the reward did not fail.
    pub fn failure(&self) -> Option<String> {
        match self {
            Self::Failed(reason) => Some(reason.clone()),
            Self::Panicked(message) => Some(format!("panicked: {message}")),
            Self::TimedOut(limit) => Some(format!("took longer than its time limit of {limit} s")),
            Self::Score(_) | Self::Abstained | Self::Gated(_) => None,
        }
    }
}

/// One named reward of one rollout.
///
/// `==` ignores [`seconds`](Self::seconds), so that the records of two equal runs are equal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRecord {
    /// The reward's name, unique in its set.
    pub name: String,
    /// Its weight in the total.
    pub weight: f64,
    /// Its outcome.
    pub outcome: RewardOutcome,
    /// The time that the reward took for this rollout, in wall-clock seconds. The time of a call
    /// for several rollouts is divided evenly; 0 if the reward was not run.
    pub seconds: f64,
}

impl PartialEq for RewardRecord {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.weight == other.weight && self.outcome == other.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_ignores_seconds_and_serde_keeps_them() {
        let record = |seconds| RewardRecord {
            name: "format".into(),
            weight: 1.0,
            outcome: RewardOutcome::Gated(-0.5),
            seconds,
        };
        assert_eq!(record(0.25), record(7.0));
        let other = RewardRecord {
            outcome: RewardOutcome::Abstained,
            ..record(0.25)
        };
        assert_ne!(record(0.25), other);
        let text = serde_json::to_string(&record(0.25)).unwrap();
        assert_eq!(
            text,
            r#"{"name":"format","weight":1.0,"outcome":{"gated":-0.5},"seconds":0.25}"#
        );
        let read: RewardRecord = serde_json::from_str(&text).unwrap();
        assert_eq!((read.seconds, read), (0.25, record(0.25)));
    }

    #[test]
    fn only_errors_panics_and_timeouts_are_failures() {
        for (outcome, failure, score) in [
            (RewardOutcome::Score(0.5), false, Some(0.5)),
            (RewardOutcome::Abstained, false, None),
            (RewardOutcome::Gated(1.0), false, None),
            (RewardOutcome::Failed(String::new()), true, None),
            (RewardOutcome::Panicked(String::new()), true, None),
            (RewardOutcome::TimedOut(1.0), true, None),
        ] {
            assert_eq!((outcome.is_failure(), outcome.score()), (failure, score));
            assert_eq!(outcome.failure().is_some(), failure);
        }
    }
}
