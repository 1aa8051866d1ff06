//! Diagnoses a run from its metrics: findings with evidence and advice.
//!
//! [`Diagnosis::of`] reads the records of a run, as in `metrics.jsonl`. It compares two windows, at
//! the beginning and the end of the run, each a third of its steps (at least 5, at most 20). A
//! finding therefore describes the last steps, and disappears with its cause. A trend counts from
//! three standard errors on.
//!
//! | finding | measured | warning | failing |
//! |---|---|---|---|
//! | `no_signal/too_hard`, `/too_easy`, `no_signal` | groups whose rewards are all equal; at most 25 % of the answers right, at least 75 %, or neither | 60 % | 95 %, unless too easy |
//! | `entropy_collapse` | entropy, if less than 90 % of the answers are right | below 0.02 nats and a fifth of the first | below 0.002 nats |
//! | `length_explosion` | length, growing without more reward | x 2 | x 4 |
//! | `truncation` | completions cut off at the limit | 25 % | 80 % |
//! | `kl_runaway` | KL to the reference | above 1 nat with a penalty on it, or tripled to above 0.5 | above 10, or above 1 while the reward falls |
//! | `reward_hacking` | reward up, held-out accuracy down from its best | by 0.05 twice | by 0.15, or to half of it twice |
//! | `reward_hacking/<reward>` | that reward up, the reward `accuracy` down by 0.05 | yes | by 0.15 |
//! | `held_out_falls` | accuracy down as above, reward not up | as above | as above |
//! | `repetition`, `copied_prompt` | completions that end in a repetition loop, or contain the prompt | 20 %, 50 % | 60 %, - |
//! | `advantage_outliers` | largest advantage divided by the root mean square | 10 | |
//! | `clipping` | tokens outside the clip range or bounded | 40 % | 80 % |
//! | `no_effect` | KL to the first policy does not grow; reward, entropy and length do not change | after 30 steps | if the KL is 0 |
//! | `sampler_mismatch` | KL between sampler and policy (k3), per token | 0.01 | 0.1 |
//! | `reward_fails/<reward>`, `reward_times_out/<reward>` | completions on which the reward failed | 1 % | 25 % |
//! | `unscored` | completions without a total reward | 25 % | 75 % |
//! | `domain_dominates/<domain>` | share of the tokens, with two or more domains | 80 % | |
//! | `updates_skipped` | updates with a loss or gradient that is not finite | one | half of the steps |
//!
//! `repetition` and `copied_prompt` need the completions: see [`Diagnosis::with_rollouts`].
//!
//! A [`Watchdog`] diagnoses during a run and reports to the other observers. After a run:
//!
//! ```
//! use rlvr::train::diagnosis::{Diagnosis, Verdict};
//! use rlvr::train::observer::StepRecord;
//!
//! let cut_off = |step| StepRecord::new(step).with("completions/clipped_ratio", 0.9);
//! let records: Vec<StepRecord> = (1..=10).map(cut_off).collect();
//! let diagnosis = Diagnosis::of(&records);
//! assert_eq!(diagnosis.verdict(), Verdict::Failing);
//! assert_eq!(diagnosis.findings()[0].name, "truncation");
//! println!("{diagnosis}");
//! ```

mod learning;
mod rewards;
mod texts;
mod watchdog;
mod window;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use watchdog::Watchdog;

use super::observer::StepRecord;
use crate::types::RolloutBuffer;
use window::Windows;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The run may still learn, but should be inspected.
    Warning,
    /// The run does not learn, or learns the wrong behaviour.
    Failing,
}

/// The verdict on a run: the highest severity of its findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There are no findings.
    Healthy,
    /// There are warnings only.
    Warning,
    /// There is a [`Severity::Failing`] finding.
    Failing,
}

/// A problem of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The name, such as `entropy_collapse` or `reward_fails/accuracy`; see the [table](self).
    pub name: String,
    /// The severity.
    pub severity: Severity,
    /// The first step of the window.
    pub first_step: u64,
    /// The last step of the window.
    pub last_step: u64,
    /// The evidence, as text.
    pub evidence: String,
    /// The numbers of the evidence, by metric.
    pub numbers: BTreeMap<String, f64>,
    /// Suggested remedies, as text.
    pub advice: String,
}

/// The findings about the last steps of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    step: u64,
    findings: Vec<Finding>,
}

impl Diagnosis {
    /// Diagnoses a run from `records`, in the order of steps.
    pub fn of(records: &[StepRecord]) -> Self {
        let mut diagnosis = Self::default();
        if let Some(windows) = Windows::new(records) {
            diagnosis.step = windows.span().1;
            diagnosis.findings.extend(learning::findings(&windows));
            diagnosis.findings.extend(rewards::findings(&windows));
            diagnosis.sort();
        }
        diagnosis
    }

    /// Adds the findings of the completions of `step`: repetition loops and copied prompts.
    #[must_use]
    pub fn with_rollouts(mut self, step: u64, rollouts: &RolloutBuffer) -> Self {
        self.step = self.step.max(step);
        self.findings.extend(texts::findings(step, rollouts));
        self.sort();
        self
    }

    fn sort(&mut self) {
        self.findings
            .sort_by(|a, b| (b.severity, &a.name).cmp(&(a.severity, &b.name)));
    }

    /// Returns the findings, most severe first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns the last diagnosed step; 0 if there is none.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Returns the verdict.
    pub fn verdict(&self) -> Verdict {
        match self.findings.iter().map(|finding| finding.severity).max() {
            None => Verdict::Healthy,
            Some(Severity::Warning) => Verdict::Warning,
            Some(Severity::Failing) => Verdict::Failing,
        }
    }
}

impl Severity {
    /// Returns the value of the metric `findings/<name>`: 1 for a warning, 2 for failing.
    pub(crate) fn as_metric(self) -> f64 {
        match self {
            Self::Warning => 1.0,
            Self::Failing => 2.0,
        }
    }

    /// Returns the severity that such a metric stands for.
    pub(crate) fn of_metric(value: f64) -> Self {
        match value >= Self::Failing.as_metric() {
            true => Self::Failing,
            false => Self::Warning,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Failing => "failing",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Warning => "warning",
            Self::Failing => "failing",
        })
    }
}

/// `warning: truncation (steps 81-100): 31.0% of the completions ... Raise ...`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            severity,
            first_step,
            last_step,
            evidence,
            advice,
            ..
        } = self;
        match first_step == last_step {
            true => write!(f, "{severity}: {name} (step {last_step})")?,
            false => write!(f, "{severity}: {name} (steps {first_step}-{last_step})")?,
        }
        write!(f, ": {evidence}. {advice}.")
    }
}

/// Writes the verdict, then one line per finding.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verdict: {}", self.verdict())?;
        if self.findings.is_empty() && self.step < window::FEWEST as u64 {
            let (step, fewest) = (self.step, window::FEWEST);
            write!(f, " so far: {step} steps, most findings need {fewest}")?;
        }
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}

/// Creates a finding about the last window.
fn found(
    windows: &Windows,
    name: impl Into<String>,
    severity: Severity,
    numbers: &[(&str, f64)],
    evidence: String,
    advice: &str,
) -> Finding {
    let (first_step, last_step) = windows.span();
    Finding {
        name: name.into(),
        severity,
        first_step,
        last_step,
        evidence,
        numbers: numbers
            .iter()
            .map(|&(name, value)| (name.to_string(), value))
            .collect(),
        advice: advice.into(),
    }
}

/// Returns the severity of a value: none below `warning`, failing from `failing` on.
fn severity(value: f64, warning: f64, failing: f64) -> Option<Severity> {
    match value {
        v if v >= failing => Some(Severity::Failing),
        v if v >= warning => Some(Severity::Warning),
        _ => None,
    }
}

/// Formats a number of any size with about three digits.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size < 1e-3 => format!("{value:.1e}"),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// Formats a share as a percentage.
fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

#[cfg(test)]
mod tests;
