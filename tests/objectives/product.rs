//! The whole product of parts: each combination is refused with a reason that names both, or is the formula of its parts, value and
//! gradient.

use std::collections::BTreeSet;

use burn::tensor::Device;

use crate::batch::{Outcome, Row, input, small_batch};
use crate::common::{assert_close, devices, floats};
use crate::covering::covering;
use crate::formula::Formula;
use crate::parts::{Parts, Places};

/// Compares value, gradients and trace with the formula.
pub fn assert_formula(parts: &Parts, places: Places, rows: &[Row], device: &Device) {
    let objective = parts.objective(places);
    let names = parts.names(places).join(" ");
    let input = input(rows, device);
    let step = objective.statistics(std::slice::from_ref(&input)).unwrap();
    let loss = objective.loss(&input, &step).unwrap();
    let formula = Formula::new(&objective, rows);
    let gradients = loss.loss.backward();
    let zeros = vec![0.0; input.mask.dims().iter().product()];
    let log_probs = input
        .log_probs
        .grad(&gradients)
        .map_or(zeros.clone(), floats);
    let entropies = input
        .entropies
        .unwrap()
        .grad(&gradients)
        .map_or(zeros, floats);
    let width = input.mask.dims()[1];
    let trace = [
        Some(loss.tokens.mask),
        loss.tokens.kept,
        loss.tokens.selected,
    ];
    let [mask, kept, selected] = trace.map(|tensor| tensor.map(floats));
    let weights = loss.tokens.weights.map(floats);
    assert_close(floats(loss.loss)[0], formula.loss(rows), 1e-5, 1e-5, &names);
    for (b, row) in rows.iter().enumerate() {
        for (t, cell) in row.cells.iter().enumerate() {
            let at = b * width + t;
            if !cell.mask {
                assert_eq!((log_probs[at], entropies[at]), (0.0, 0.0), "{names}");
                continue;
            }
            let is_left = formula.mask[b][t];
            let marks = [
                (&mask, is_left),
                (&kept, formula.kept[b][t]),
                (&selected, formula.selected[b][t]),
            ];
            for (got, want) in marks {
                // What happens to a rejected token does not matter.
                if let Some(got) = got.as_ref().filter(|_| is_left || !want) {
                    assert_eq!(got[at], f64::from(want), "trace of {names}");
                }
            }
            if let Some(weights) = &weights {
                let want = formula.weights.as_ref().unwrap()[b][t];
                assert_close(weights[at], want, 1e-6, 0.0, &names);
            }
            let want = formula.slope(b, t, |cell, by| cell.log_prob += by);
            assert_close(log_probs[at], want, 1e-4, 1e-5, &names);
            let want = formula.slope(b, t, |cell, by| cell.entropy += by);
            assert_close(entropies[at], want, 1e-4, 1e-5, &names);
        }
    }
}

/// Where [`Places`] has the sampler correction.
const CORRECTION: usize = 4;

#[test]
fn a_combination_is_refused_exactly_if_two_of_its_parts_contradict_each_other() {
    let parts = Parts::all();
    let mut reasons = BTreeSet::new();
    let mut refused = 0;
    for index in 0..parts.count() {
        let places = parts.places(index);
        let names = parts.names(places);
        let expected = parts.contradictions(places);
        match parts.objective(places).validate() {
            Ok(()) => assert!(expected.is_empty(), "{names:?} passes: {expected:?}"),
            Err(error) => {
                refused += 1;
                let message = error.to_string();
                let says = |(field, other): &&(&str, &str)| {
                    message.contains(field) && message.contains(other)
                };
                let Some(reason) = expected.iter().find(says) else {
                    panic!("{names:?}: {message}, not one of {expected:?}");
                };
                reasons.insert(*reason);
            }
        }
    }
    let valid = parts.count() - refused;
    println!("{valid} combinations are valid, {refused} refused:");
    for (field, other) in &reasons {
        println!("  {field} and {other}");
    }
    assert_eq!((valid, refused), (936_072, 1_051_128));
    assert_eq!(reasons.len(), 7 + 1 + 4 + 1 + 1 + 8 + 1);
}

#[test]
fn every_valid_combination_of_parts_is_the_formula_value_and_gradient() {
    let (parts, rows) = (Parts::all(), small_batch());
    // Any three choices together on the first backend, any two on the others.
    for ((backend, device), size) in devices().into_iter().zip([3, 2]) {
        let chosen = covering(&parts, size);
        println!(
            "{backend}: {} combinations hold every valid {size} choices",
            chosen.len()
        );
        for places in chosen {
            assert_formula(&parts, places, &rows, &device);
        }
    }
}

#[test]
fn every_valid_combination_of_the_kinds_of_parts_runs_forward_and_backward() {
    let (parts, rows) = (Parts::kinds(), small_batch());
    let (_, device) = devices().remove(0);
    let (mut ran, mut moved) = (0, 0);
    for index in 0..parts.count() {
        let places = parts.places(index);
        let objective = parts.objective(places);
        if objective.validate().is_err() {
            continue;
        }
        let outcome = Outcome::whole(&objective, &rows, &device);
        let gradients = outcome.log_probs.iter().chain(&outcome.entropies).flatten();
        let finite = gradients.fold(outcome.loss.is_finite(), |all, g| all && g.is_finite());
        assert!(finite, "{:?}", parts.names(places));
        ran += 1;
        // The product of a whole completion's ratios may be clipped in every row.
        moved += usize::from(outcome.log_probs.iter().flatten().any(|&g| g != 0.0));
    }
    println!(
        "{ran} of {} combinations ran, {moved} moved the policy",
        parts.count()
    );
    assert_eq!((ran, moved), (30_240, 29_232));
}

#[test]
fn every_part_makes_a_difference_on_this_batch() {
    // A part that is ignored would pass for its absence.
    let (parts, rows) = (Parts::all(), small_batch());
    let (_, device) = devices().remove(0);
    let outcome = |places| {
        let got = Outcome::whole(&parts.objective(places), &rows, &device);
        (got.loss, got.log_probs, got.entropies)
    };
    // With a KL and a bonus, for the choices that act on them alone.
    let base: Places = [0, 0, 0, 3, 0, 0, 0, 1, 0];
    for (part, size) in parts.sizes().into_iter().enumerate() {
        let with = |choice| {
            let mut places = base;
            places[part] = choice;
            places
        };
        let valid: Vec<Places> = (0..size)
            .map(with)
            .filter(|&places| parts.contradictions(places).is_empty())
            .collect();
        let outcomes: Vec<_> = valid.iter().map(|&places| outcome(places)).collect();
        for at in 1..valid.len() {
            // Two rules may well reject the same tokens of so few.
            let others = if part == CORRECTION { 1 } else { at };
            for other in 0..others {
                let names = [at, other].map(|at| parts.names(valid[at])[part]);
                assert_ne!(outcomes[at], outcomes[other], "{names:?} are one");
            }
        }
    }
}
