//! Common errors of data-parallel training: averages instead of sums, local denominators, local
//! norms, learning rates divided by the number of learners.
//!
//! Adam hides the size of gradients. So gradient norms are compared, and a large epsilon makes
//! updates proportional to gradients.

use rlvr::loss::{Aggregation, PolicyObjective};
use rlvr::train::TrainerConfig;

use super::cases::Case;
use super::{Outcome, run};
use crate::common::{self, toy};

/// One update a step whose size is that of the gradient.
fn proportional(max_grad_norm: Option<f64>, objective: PolicyObjective) -> Case {
    let mut case = Case::grpo();
    case.config = TrainerConfig {
        objective,
        shards: 1,
        micro_batch: 4,
        ..toy::config()
    };
    case.config.optimizer.epsilon = 1e3;
    case.config.optimizer.schedule = rlvr::train::Schedule::constant(100.0);
    case.config.optimizer.max_grad_norm = max_grad_norm;
    case
}

fn metric(outcome: &Outcome, step: usize, name: &str) -> f64 {
    f64::from_bits(outcome.metrics[step][name])
}

fn weights(outcome: &Outcome) -> Vec<f64> {
    outcome.weights.iter().map(|&x| f64::from_bits(x)).collect()
}

/// Compares several learners with one that does not split its step.
fn compare(case: &Case) {
    let start = toy::weights(&toy::policy(case.policy_seed, &toy::device()));
    let alone = run(1, case, 2);
    let lengths = ["completions/min_length", "completions/max_length"];
    let [shortest, longest] = lengths.map(|name| metric(&alone, 0, name));
    assert!(shortest < longest, "all completions have the same length");
    let moved = toy::distance(&weights(&alone), &start);
    for size in [2, 4] {
        let mut case = case.clone();
        case.config.shards = 4;
        let several = run(size, &case, 2);
        for step in 0..2 {
            for name in ["loss", "grad_norm", "learning_rate"] {
                let (got, want) = (metric(&several, step, name), metric(&alone, step, name));
                common::assert_close(got, want, 1e-4, 1e-7, name);
            }
        }
        let difference = toy::distance(&weights(&several), &weights(&alone));
        assert!(difference < 1e-3 * moved, "{difference} of {moved}");
    }
}

fn objectives() -> [PolicyObjective; 3] {
    let mean_of_means = PolicyObjective {
        aggregation: Aggregation::SequenceMeanTokenMean,
        ..PolicyObjective::dapo()
    };
    [
        PolicyObjective::dapo(),
        mean_of_means,
        PolicyObjective::dr_grpo(4),
    ]
}

#[test]
fn gradients_are_sums_over_global_denominators() {
    for objective in objectives() {
        compare(&proportional(None, objective));
    }
}

#[test]
fn gradients_are_clipped_by_the_norm_of_their_sum() {
    let case = proportional(Some(1e-3), PolicyObjective::dapo());
    // The norm is clipped.
    assert!(metric(&run(1, &case, 1), 0, "grad_norm") > 1e-2);
    compare(&case);
}
