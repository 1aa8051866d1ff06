//! All combinations of parts: each is an error that names both contradicting parts, or has the
//! value and the gradient of the formula.

use std::collections::BTreeSet;

use burn::tensor::Device;

use super::batch::{Outcome, Row, input, small_batch};
use super::covering::covering;
use super::formula::Formula;
use super::parts::{Parts, Places};
use crate::common::{assert_close, devices, floats};

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
                // The ratio of a rejected token does not matter.
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
fn a_combination_is_invalid_exactly_if_two_of_its_parts_contradict_each_other() {
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
    assert!(
        valid > 900_000 && refused > 900_000,
        "{valid} valid, {refused} invalid"
    );
    assert!(reasons.len() >= 23, "{reasons:?}");
}

#[test]
fn any_three_choices_of_parts_match_the_formula() {
    let (parts, rows) = (Parts::all(), small_batch());
    // Any three choices together on the first backend, any two on the others.
    for ((backend, device), size) in devices().into_iter().zip([3, 2]) {
        let chosen = covering(&parts, size);
        assert!(!chosen.is_empty(), "{backend}");
        for places in chosen {
            assert_formula(&parts, places, &rows, &device);
        }
    }
}

#[test]
fn any_four_kinds_of_parts_have_a_finite_loss_and_gradient() {
    let (parts, rows) = (Parts::kinds(), small_batch());
    let (_, device) = devices().remove(0);
    let (mut ran, mut moved) = (0, 0);
    for places in covering(&parts, 4) {
        let outcome = Outcome::whole(&parts.objective(places), &rows, &device);
        let gradients = outcome.log_probs.iter().chain(&outcome.entropies).flatten();
        let finite = gradients.fold(outcome.loss.is_finite(), |all, g| all && g.is_finite());
        assert!(finite, "{:?}", parts.names(places));
        ran += 1;
        // The product of a whole completion's ratios may be clipped in every row.
        moved += usize::from(outcome.log_probs.iter().flatten().any(|&g| g != 0.0));
    }
    assert!(
        ran > 1000 && moved > ran / 10 * 9,
        "{ran} ran, {moved} moved"
    );
}

#[test]
fn every_part_makes_a_difference_on_this_batch() {
    // An ignored part would look like its absence.
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
            // Two rules can reject the same tokens in a small batch.
            let others = if part == CORRECTION { 1 } else { at };
            for other in 0..others {
                let names = [at, other].map(|at| parts.names(valid[at])[part]);
                assert_ne!(outcomes[at], outcomes[other], "{names:?} are one");
            }
        }
    }
}
