//! A custom reward, for problems from a file.

use rlvr::reward::{Reward, RewardError, RewardInput};

/// 1 for a completion that the problem's `accepted` lists, a half if it only begins with one.
pub struct Accepted;

impl Reward for Accepted {
    fn name(&self) -> &str {
        "accepted"
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        // A missing field, or one of another type, is an error of the data.
        let accepted: Vec<String> = serde_json::from_value(input.metadata("accepted")?.clone())?;
        // Every completion gets a score, whatever the policy wrote.
        let written = input.completion();
        Ok(Some(match accepted.iter().any(|right| right == written) {
            true => 1.0,
            false if accepted.iter().any(|right| written.starts_with(right)) => 0.5,
            false => 0.0,
        }))
    }
}
