//! The whole product of parts: each combination is refused with a reason that names both, or is the formula of its parts, value and
//! gradient.

use std::collections::BTreeSet;

use burn::tensor::Device;

use crate::batch::{Outcome, Row, input, small_batch, statistics};
use crate::common::{assert_close, devices, floats};
use crate::formula::Formula;
use crate::parts::{Parts, Places};

/// Compares value, gradients and trace with the formula.
pub fn assert_formula(parts: &Parts, places: Places, rows: &[Row], device: &Device) {
    let objective = parts.objective(places);
    let names = parts.names(places).join(" ");
    let input = input(rows, device);
    let step = statistics(&objective, rows, std::slice::from_ref(&input));
    let loss = objective.loss(&input, &step).unwrap();
    let formula = Formula::new(&objective, rows);
    let gradients = loss.loss.backward();
    let zeros = vec![0.0; input.mask.dims().iter().product()];
    let log_probs = input.log_probs.grad(&gradients).map_or(zeros.clone(), floats);
    let entropies = input.entropies.unwrap().grad(&gradients).map_or(zeros, floats);
    let width = input.mask.dims()[1];
    let mask = floats(loss.tokens.mask);
    assert_close(floats(loss.loss)[0], formula.loss(rows), 1e-5, 1e-5, &names);
    for (b, row) in rows.iter().enumerate() {
        for (t, cell) in row.cells.iter().enumerate() {
            let at = b * width + t;
            if !cell.mask {
                assert_eq!((log_probs[at], entropies[at]), (0.0, 0.0), "{names}");
                continue;
            }
            assert_eq!(mask[at], f64::from(formula.mask[b][t]), "mask of {names}");
            let want = formula.slope(b, t, |cell, by| cell.log_prob += by);
            assert_close(log_probs[at], want, 1e-4, 1e-5, &names);
            let want = formula.slope(b, t, |cell, by| cell.entropy += by);
            assert_close(entropies[at], want, 1e-4, 1e-5, &names);
        }
    }
}

/// Where [`Places`] has the sampler correction.
const CORRECTION: usize = 4;

/// The parts that contradict each other: how the refusal calls them.
fn contradictions(names: [&'static str; 9]) -> Vec<(&'static str, &'static str)> {
    let [surrogate, level, _, kl, correction, _, selection, _, clamp] = names;
    let name = match surrogate {
        "ppo" | "ppo_high" | "ppo_delta" | "ppo_dual" => "ppo_clip",
        "cispo_cap" | "cispo_band" => "cispo",
        "dppo_tv" | "dppo_kl" => "dppo",
        other => other,
    };
    let levels: &[&str] = match name {
        "reinforce" | "dro" | "dppo" | "clip_cov" | "kl_cov" => &["token"],
        "gmpo" => &["sequence"],
        "vespo" => &["token", "sequence"],
        _ => &["token", "sequence", "sequence_sum", "sequence_token"],
    };
    let has_no_ratio = ["reinforce", "dro"].contains(&name);
    let reads_no_level = has_no_ratio || ["gmpo", "vespo"].contains(&name);
    let mut found = Vec::new();
    if !levels.contains(&level) {
        found.push(("`ratio_level`", name));
    }
    if kl == "corrected_straight_through" {
        found.push(("`kl.straight_through`", "kl.importance_corrected"));
    }
    if clamp == "clamp" && reads_no_level && kl != "corrected" {
        found.push(("`log_ratio_clamp`", name));
    }
    if selection == "top_entropy" && name == "gmpo" {
        found.push(("`top_entropy`", name));
    }
    if correction == "max_k1" {
        found.push(("`sampler_correction.rejection.scope`", "k1"));
    }
    if correction == "current_weights" && !has_no_ratio {
        found.push(("`sampler_correction.numerator`", name));
    }
    let whole = ["sequence_truncate", "sequence_mask", "sequence_normalized"];
    if name == "vespo" && whole.contains(&correction) {
        found.push(("`sampler_correction.weights.level`", name));
    }
    found
}

#[test]
fn a_combination_is_refused_exactly_if_two_of_its_parts_contradict_each_other() {
    let parts = Parts::all();
    let mut reasons = BTreeSet::new();
    let mut refused = 0;
    for index in 0..parts.count() {
        let places = parts.places(index);
        let names = parts.names(places);
        let expected = contradictions(names);
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

/// Combinations in which every valid pair, or triple, of choices occurs.
struct Covering {
    sizes: Places,
    groups: Vec<Vec<usize>>,
    /// For each group of parts, which of their choices have met.
    met: Vec<Vec<bool>>,
}

impl Covering {
    fn new(sizes: Places, size: usize) -> Self {
        let parts = 0..sizes.len() as u32;
        let members = |set: u32| parts.clone().filter(move |part| set >> part & 1 == 1);
        let groups: Vec<Vec<usize>> = (0u32..1 << sizes.len())
            .filter(|set| set.count_ones() as usize == size)
            .map(|set| members(set).map(|part| part as usize).collect())
            .collect();
        let choices = |group: &Vec<usize>| group.iter().map(|&part| sizes[part]).product();
        Self {
            sizes,
            met: groups.iter().map(|group| vec![false; choices(group)]).collect(),
            groups,
        }
    }

    /// Marks what meets in `places`, unless that would be news for fewer than `least` groups.
    fn adds(&mut self, places: Places, least: usize) -> bool {
        let at = |group: &[usize]| {
            group.iter().fold(0, |at, &part| at * self.sizes[part] + places[part])
        };
        let at: Vec<usize> = self.groups.iter().map(|group| at(group)).collect();
        let new = at.iter().zip(&self.met).filter(|(at, met)| !met[**at]).count();
        if new < least {
            return false;
        }
        at.iter().zip(&mut self.met).for_each(|(at, met)| met[*at] = true);
        true
    }

    fn of(parts: &Parts, size: usize) -> Vec<Places> {
        let mut covering = Self::new(parts.sizes(), size);
        let mut chosen = Vec::new();
        for least in [covering.groups.len() / 4, 1] {
            for index in 0..parts.count() {
                // Coprime to the number of combinations: each comes once, neighbours far apart.
                let places = parts.places(index * 1_000_003 % parts.count());
                if contradictions(parts.names(places)).is_empty() && covering.adds(places, least) {
                    chosen.push(places);
                }
            }
        }
        chosen
    }
}

#[test]
fn every_valid_combination_of_parts_is_the_formula_value_and_gradient() {
    let (parts, rows) = (Parts::all(), small_batch());
    // Any three choices together on the first backend, any two on the others.
    for ((backend, device), size) in devices().into_iter().zip([3, 2]) {
        let chosen = Covering::of(&parts, size);
        println!("{backend}: {} combinations hold every valid {size} choices", chosen.len());
        for places in chosen {
            assert_formula(&parts, places, &rows, &device);
        }
    }
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
            .filter(|&places| contradictions(parts.names(places)).is_empty())
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
