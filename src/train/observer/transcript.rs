//! Completions as text, to be watched while a run goes on.

use std::io::Write;

use super::{Observer, StepRecord};
use crate::types::{Rollout, RolloutBuffer};
use crate::{Error, Result};

/// Writes some completions of a step with their rewards, for instance to standard output.
///
/// Reading completions is the quickest way to see what a policy has learned, and whether a reward
/// pays for the right thing.
///
/// ```no_run
/// use rlvr::train::observer::Transcript;
///
/// // Of the first step and of every tenth: the best and the worst completions of one
/// // problem.
/// let observer = Transcript::new(std::io::stdout(), 10);
/// ```
///
/// ```text
/// step 10, 2 of 8 completions of "37+48="
///   1.00 "<think>7+8=15</think><answer>85</answer>"
///   0.00 "<think></think><answer>75</answer>"
/// ```
#[derive(Debug)]
pub struct Transcript<W> {
    to: W,
    every: u64,
    completions: usize,
}

impl<W: Write + Send> Transcript<W> {
    /// Writes two completions of the first problem of the first step and of every `every`-th.
    pub fn new(to: W, every: u64) -> Self {
        Self {
            to,
            every: every.max(1),
            completions: 2,
        }
    }

    /// The number of completions: those of the highest and of the lowest rewards.
    #[must_use]
    pub fn with_completions(self, completions: usize) -> Self {
        Self {
            completions,
            ..self
        }
    }

    fn write(&mut self, step: u64, rollouts: &RolloutBuffer) -> std::io::Result<()> {
        let Some(group) = rollouts.groups.first() else {
            return Ok(());
        };
        let mut sorted: Vec<&Rollout> = group.rollouts.iter().collect();
        let reward = |rollout: &Rollout| rollout.reward.unwrap_or(f64::NEG_INFINITY);
        sorted.sort_by(|a, b| reward(b).total_cmp(&reward(a)));
        let shown = self.completions.min(sorted.len());
        let lowest = sorted.split_off(shown.div_ceil(2));
        sorted.extend(&lowest[lowest.len() - shown / 2..]);
        let (all, prompt) = (group.rollouts.len(), &group.problem.prompt);
        writeln!(
            self.to,
            "step {step}, {shown} of {all} completions of {prompt:?}"
        )?;
        for rollout in sorted {
            match rollout.reward {
                Some(reward) => writeln!(self.to, "  {reward:.2} {:?}", rollout.text)?,
                None => writeln!(self.to, "  unscored {:?}", rollout.text)?,
            }
        }
        self.to.flush()
    }
}

impl<W: Write + Send> Observer for Transcript<W> {
    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> Result<()> {
        if step != 1 && !step.is_multiple_of(self.every) {
            return Ok(());
        }
        self.write(step, rollouts)
            .map_err(|reason| Error::io("transcript", reason))
    }

    fn on_step(&mut self, _record: &StepRecord) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Problem, RolloutGroup};

    #[test]
    fn the_best_and_the_worst_completions_are_written() {
        let rollout = |(text, reward): (&str, Option<f64>)| Rollout {
            reward,
            ..Rollout::new(vec![1], vec![-1.0], text.to_string())
        };
        let all = [
            ("b", Some(0.5)),
            ("c", None),
            ("a", Some(1.0)),
            ("d", Some(0.0)),
        ]
        .map(rollout);
        let mut buffer = RolloutBuffer::new();
        buffer.push(RolloutGroup::new(
            Problem::new("p", ""),
            vec![1],
            all.to_vec(),
        ));
        let mut written = Vec::new();
        let mut transcript = Transcript::new(&mut written, 5).with_completions(3);
        for step in 1..=9 {
            transcript.on_rollouts(step, &buffer).unwrap();
        }
        let lines = "  1.00 \"a\"\n  0.50 \"b\"\n  unscored \"c\"\n";
        let head = |step| format!("step {step}, 3 of 4 completions of \"p\"\n{lines}");
        assert_eq!(String::from_utf8(written).unwrap(), head(1) + &head(5));
    }
}
