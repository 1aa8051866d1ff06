//! A custom observer, which prints completions.

use rlvr::Result;
use rlvr::train::observer::{Observer, StepRecord};
use rlvr::types::RolloutBuffer;

/// Prints the completions of one problem every so many steps.
pub struct Completions {
    pub every: u64,
}

impl Observer for Completions {
    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> Result<()> {
        if (step == 1 || step.is_multiple_of(self.every))
            && let Some(group) = rollouts.groups.first()
        {
            let shown = group.rollouts.iter().map(|rollout| match rollout.reward {
                Some(reward) => format!("{:?} {reward}", rollout.text),
                None => format!("{:?} without a reward", rollout.text),
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            println!("step {step:>3}: {:?} -> {shown}", group.problem.prompt);
        }
        Ok(())
    }

    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        if let (true, Some(reward)) = (record.step.is_multiple_of(self.every), record.get("reward"))
        {
            println!("step {:>3}: reward {reward:.2}", record.step);
        }
        Ok(())
    }
}
