//! The cases of `sampler_correction.jsonl`.

use std::collections::BTreeMap;

use rlvr::loss::{OffPolicyMask, RolloutLogProbs};
use rlvr::types::PerToken;
use serde_json::Value;

use crate::common::{devices, floats, matrix};
use crate::expect::{DERIVED, check_selection, get, number, rows, text};
use crate::objective::correction;
use crate::policy_loss::{compared, rows_with_gaps};

pub fn check(case: &Value) -> Result<(), String> {
    match text(case, "kind")? {
        "off_policy_mask" => off_policy_mask(case),
        _ => weights_and_rejection(case),
    }
}

fn weights_and_rejection(case: &Value) -> Result<(), String> {
    let (inputs, expected) = (&case["inputs"], &case["expected"]);
    let mask = rows(&inputs["mask"]).ok_or("no mask")?;
    let correction = correction(&case["params"]["sampler_correction"])?;
    let [policy, sampler] = compared(inputs, "old_log_probs", &mask)?;
    let log_probs = RolloutLogProbs::new(&policy, &sampler).map_err(|error| error.to_string())?;
    if let Some(correction) = &correction {
        correction.validate().map_err(|error| error.to_string())?;
        let corrected = correction.correct(log_probs, None);
        if !expected["weights"].is_null() {
            let got = spread(&corrected.weights.ok_or("no weights")?, &mask);
            DERIVED.check_rows(&got, &expected["weights"], Some(&mask), "weights")?;
        }
        if !expected["mask"].is_null() {
            let left = spread(&corrected.kept, &mask);
            check_selection(&left, &expected["mask"], &mask, "mask")?;
        }
    }
    let mut metrics: BTreeMap<String, f64> = match &correction {
        Some(correction) => correction.diagnostics(log_probs),
        None => log_probs.mismatch(),
    }
    .into_iter()
    .map(|(name, value)| (format!("rollout_corr/{name}"), value))
    .collect();
    let weights = correction
        .as_ref()
        .and_then(|correction| correction.weights);
    let sampling = log_probs.sampling_difference(weights.as_ref());
    metrics.extend(
        sampling
            .into_iter()
            .map(|(name, value)| (format!("sampling/{name}"), value)),
    );
    for (name, want) in expected["metrics"].as_object().ok_or("no metrics")? {
        let got = metrics.get(name).ok_or(format!("unknown metric {name}"))?;
        DERIVED.check(*got, number(want), name)?;
    }
    Ok(())
}

/// The numbers of the tokens at their places, 0 elsewhere.
fn spread(numbers: &PerToken, mask: &[Vec<f64>]) -> Vec<f64> {
    let mut numbers = numbers.values();
    let place = |mask: &f64| {
        if *mask == 0.0 {
            0.0
        } else {
            numbers.next().unwrap()
        }
    };
    mask.iter().flatten().map(place).collect()
}

fn off_policy_mask(case: &Value) -> Result<(), String> {
    let inputs = &case["inputs"];
    let off_policy = OffPolicyMask {
        threshold: get(&case["params"], "off_policy_mask_threshold")?,
    };
    off_policy.validate().map_err(|error| error.to_string())?;
    let mask = rows(&inputs["mask"]).ok_or("no mask")?;
    let width = mask[0].len();
    let advantages = inputs["advantages"].as_array().ok_or("no advantages")?;
    let advantages: Vec<Vec<f64>> = match advantages[0].is_array() {
        true => rows(&inputs["advantages"]).unwrap(),
        false => advantages.iter().map(|a| vec![number(a); width]).collect(),
    };
    for (backend, device) in devices() {
        let sampler = rows_with_gaps(&inputs["sampler_log_probs"]).ok_or("no sampler_log_probs")?;
        let keep = off_policy.keep(
            &matrix(&rows(&inputs["log_probs"]).ok_or("no log_probs")?, &device),
            &matrix(&sampler, &device),
            &matrix(&advantages, &device),
            &matrix(&mask, &device),
        );
        let got = floats(keep.float());
        check_selection(
            &got,
            &case["expected"]["keep"],
            &mask,
            &format!("{backend} keep"),
        )?;
    }
    Ok(())
}
