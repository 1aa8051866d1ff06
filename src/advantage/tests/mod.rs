//! Tests of the estimators: by hand, by law, and what is an error.

mod custom;
mod every_estimator;
mod hand_cases;
mod laws;
mod outcome_cases;
mod refusals;
mod turns;

use super::*;
use crate::types::PerToken;

/// Every number, row by row.
fn flat(numbers: &PerToken) -> Vec<f64> {
    numbers.values().collect()
}
