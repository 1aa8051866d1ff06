//! Mean and standard deviation of rewards, and the checks that the estimators share.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Mean, standard deviation and count of some numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    /// The count, at least 1.
    pub count: usize,
    /// The mean.
    pub mean: f64,
    /// The unbiased standard deviation (divisor `count - 1`); 0 for a single number.
    pub std: f64,
    /// Whether all numbers are equal, without a tolerance.
    pub flat: bool,
}

impl Moments {
    /// Returns the moments of `values`, or `None` if it is empty. `what` names them in the error
    /// for a variance that overflows.
    ///
    /// Two passes: `E[x^2] - mean^2` cancels and leaves noise where the true variance is 0.
    pub fn of(values: &[f64], what: impl FnOnce() -> String) -> Result<Option<Self>> {
        if values.is_empty() {
            return Ok(None);
        }
        let count = values.len();
        let n = count as f64;
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low == high {
            // sum / n of equal numbers need not be exactly that number.
            let (mean, std, flat) = (low, 0.0, true);
            return Ok(Some(Self {
                count,
                mean,
                std,
                flat,
            }));
        }
        let first = values.iter().sum::<f64>() / n;
        let mean = first + values.iter().map(|x| x - first).sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        let std = (squares / (n - 1.0)).sqrt();
        if !std.is_finite() {
            return Err(Error::config(
                what(),
                format!("between {low:e} and {high:e}"),
                "a spread whose square is a finite f64",
            ));
        }
        Ok(Some(Self {
            count,
            mean,
            std,
            flat: false,
        }))
    }

    /// `x - mean`, exactly 0 where all numbers are equal.
    pub fn centered(&self, x: f64) -> f64 {
        if self.flat { 0.0 } else { x - self.mean }
    }
}

/// The rollouts of each group, by group id; within a group in the order of the slice.
pub(super) fn members(groups: &[usize]) -> BTreeMap<usize, Vec<usize>> {
    let mut members = BTreeMap::<usize, Vec<usize>>::new();
    for (rollout, group) in groups.iter().enumerate() {
        members.entry(*group).or_default().push(rollout);
    }
    members
}

/// The scored rollouts of one group.
pub(super) struct ScoredGroup {
    /// Their indices and rewards, at least one.
    pub rollouts: Vec<(usize, f64)>,
    /// The moments of their rewards.
    pub moments: Moments,
}

/// The groups with a scored rollout, by group id.
pub(super) fn scored_groups(rewards: &[Option<f64>], groups: &[usize]) -> Result<Vec<ScoredGroup>> {
    check_rewards(rewards, groups)?;
    let mut all = Vec::new();
    for (group, rollouts) in members(groups) {
        let scored = rollouts.into_iter().filter_map(|i| Some((i, rewards[i]?)));
        let rollouts: Vec<(usize, f64)> = scored.collect();
        let values: Vec<f64> = rollouts.iter().map(|(_, reward)| *reward).collect();
        if let Some(moments) = Moments::of(&values, || format!("rewards of group {group}"))? {
            all.push(ScoredGroup { rollouts, moments });
        }
    }
    Ok(all)
}

/// Returns one advantage per rollout: `advantage(moments of its group, its reward)`, 0 without a
/// reward.
pub(super) fn per_group(
    rewards: &[Option<f64>],
    groups: &[usize],
    advantage: impl Fn(&Moments, f64) -> f64,
) -> Result<Vec<f64>> {
    let mut advantages = vec![0.0; rewards.len()];
    for group in scored_groups(rewards, groups)? {
        for (rollout, reward) in group.rollouts {
            advantages[rollout] = advantage(&group.moments, reward);
        }
    }
    Ok(advantages)
}

/// Rejects slices of different lengths and rewards that are not finite.
pub(super) fn check_rewards(rewards: &[Option<f64>], groups: &[usize]) -> Result<()> {
    check_len("groups", groups.len(), rewards.len())?;
    check_numbers("rewards", rewards)
}

/// Rejects numbers that are not finite; `None` passes.
pub(super) fn check_numbers(what: &str, numbers: &[Option<f64>]) -> Result<()> {
    let broken = |number: &Option<f64>| number.is_some_and(|number| !number.is_finite());
    match numbers.iter().position(broken) {
        None => Ok(()),
        Some(i) => Err(Error::config(
            format!("{what}[{i}]"),
            numbers[i].unwrap_or(f64::NAN),
            "a finite number, or `None` for a reward that could not be given",
        )),
    }
}

/// Rejects a slice that does not have one entry per rollout.
pub(super) fn check_len(what: &str, got: usize, rollouts: usize) -> Result<()> {
    if got == rollouts {
        return Ok(());
    }
    Err(Error::shape(
        format!("length of `{what}`"),
        got,
        format!("{rollouts}, one entry per rollout in `rewards`"),
    ))
}

/// Rejects an epsilon that is negative or not finite.
pub(super) fn check_epsilon(field: &str, epsilon: f64) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(Error::config(field, epsilon, "a finite number, 0 or more"))
}

/// Rejects a floor that is not above 0; the floor bounds the advantages of an almost flat group.
pub(super) fn check_floor(field: &str, floor: f64) -> Result<()> {
    if floor.is_finite() && floor > 0.0 {
        return Ok(());
    }
    Err(Error::config(field, floor, "a finite number above 0"))
}

/// Rejects a discount outside `[0, 1]`.
pub(super) fn check_unit(field: &str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, value, "a number in [0, 1]"))
}
