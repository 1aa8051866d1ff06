//! Tests of the estimators: hand-computed cases, properties and errors.

mod custom;
mod errors;
mod every_estimator;
mod hand_cases;
mod laws;
mod outcome_cases;
mod turns;

use super::gae::gae;
use super::group::group_normalized;
use super::group_mean::group_centered;
use super::leave_one_out::leave_one_out;
use super::*;
use crate::types::PerToken;

/// All numbers, row by row.
fn flat(numbers: &PerToken) -> Vec<f64> {
    numbers.values().collect()
}
