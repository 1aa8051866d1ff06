//! The cases of `policy_loss.jsonl`.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use rlvr::loss::{
    LossInput, LossMetrics, PolicyLoss, PolicyObjective, RatioLevel, RolloutLogProbs,
    StepStatistics, Surrogate,
};
use rlvr::types::PerToken;
use serde_json::Value;

use crate::common::{devices, floats, matrix};
use crate::expect::{DERIVED, LOSS, Tolerance, check_selection, get, number, rows};
use crate::objective::{aggregation, objective};

/// Advantages come per row or per token.
fn advantages(value: &Value, width: usize) -> Vec<Vec<f64>> {
    let entries = value.as_array().unwrap();
    if entries[0].is_array() {
        return rows(value).unwrap();
    }
    entries.iter().map(|a| vec![number(a); width]).collect()
}

/// A matrix whose nulls are NaN.
pub fn rows_with_gaps(value: &Value) -> Option<Vec<Vec<f64>>> {
    let gap = |entry: &Value| {
        if entry.is_null() {
            f64::NAN
        } else {
            number(entry)
        }
    };
    let rows = value.as_array()?.iter();
    Some(
        rows.map(|row| row.as_array().unwrap().iter().map(gap).collect())
            .collect(),
    )
}

pub fn check(case: &Value) -> Result<(), String> {
    let objective = objective(&case["objective"])?;
    for (backend, device) in devices() {
        check_on(case, &objective, &device).map_err(|error| format!("{backend}: {error}"))?;
    }
    Ok(())
}

fn check_on(
    case: &Value,
    objective: &PolicyObjective,
    device: &burn::tensor::Device,
) -> Result<(), String> {
    let (inputs, expected) = (&case["inputs"], &case["expected"]);
    let log_probs = rows(&inputs["log_probs"]).ok_or("no log_probs")?;
    let width = log_probs[0].len();
    let mask = rows(&inputs["mask"]).ok_or("no mask")?;
    let optional = |key: &str| rows_with_gaps(&inputs[key]).map(|rows| matrix(&rows, device));
    let leaf = matrix(&log_probs, device).autodiff().require_grad();
    let entropies = optional("entropies").map(|h| h.autodiff().require_grad());
    let input = LossInput {
        old_log_probs: optional("old_log_probs"),
        ref_log_probs: optional("ref_log_probs"),
        sampler_log_probs: optional("sampler_log_probs"),
        entropies: entropies.clone(),
        ..LossInput::new(
            leaf.clone(),
            matrix(&advantages(&inputs["advantages"], width), device),
            matrix(&mask, device),
        )
    };
    let gathered = objective.statistics(std::slice::from_ref(&input));
    let (step, scale) = statistics(case, gathered.map_err(|error| error.to_string())?)?;
    let loss = objective
        .loss(&input, &step)
        .map_err(|error| error.to_string())?;

    let value = floats(loss.loss.clone())[0] * scale;
    LOSS.check(value, get(expected, "loss")?, "loss")?;
    check_tokens(&loss, expected, &mask)?;
    let metrics = loss.sums.clone().read().unwrap();

    let gradients = loss.loss.backward();
    let compare = |leaf: &Tensor<2>, want: &Value, what: &str| {
        let got = leaf.grad(&gradients).map(floats);
        let got = got.unwrap_or(vec![0.0; mask.len() * width]);
        let got: Vec<f64> = got.iter().map(|g| g * scale).collect();
        DERIVED.check_rows(&got, want, None, what)
    };
    compare(&leaf, &expected["grad_log_probs"], "gradient")?;
    if !expected["grad_entropies"].is_null() {
        let leaf = entropies.as_ref().ok_or("no entropies to differentiate")?;
        compare(leaf, &expected["grad_entropies"], "entropy gradient")?;
    }
    check_metrics(case, objective, &metrics, scale)
}

/// The denominators of the other library, and its overall factor.
fn statistics(case: &Value, gathered: StepStatistics) -> Result<(StepStatistics, f64), String> {
    let case = &case["objective"];
    let policy = aggregation(&case["aggregation"])?.ok_or("no aggregation")?;
    let kl = aggregation(&case["kl_aggregation"])?;
    let entropy = aggregation(&case["entropy_aggregation"])?;
    let all = [Some(&policy), kl.as_ref(), entropy.as_ref()];
    let sum = all
        .into_iter()
        .flatten()
        .find(|one| one.how == rlvr::loss::Aggregation::TokenSum);
    let scale = sum.map_or(policy.scale, |sum| sum.scale);
    let counted = gathered.entropy.tokens;
    let selects = gathered.entropy_threshold.is_some();
    let step = StepStatistics {
        policy: policy.by_at(scale)?,
        kl: kl.as_ref().unwrap_or(&policy).by_at(scale)?,
        entropy: entropy.as_ref().unwrap_or(&policy).by_at(scale)?,
        ..gathered
    };
    // The count for the bonus equals that of the other library.
    if let Some(want) = case["entropy_aggregation"]["token_denominator"].as_f64()
        && case["entropy_aggregation"]["denominators_given"] == false
        && selects
        && want != counted
    {
        return Err(format!("selected tokens: got {counted}, want {want}"));
    }
    Ok((step, scale))
}

fn check_tokens(loss: &PolicyLoss, expected: &Value, mask: &[Vec<f64>]) -> Result<(), String> {
    let tokens = &loss.tokens;
    if !expected["sampler_weights"].is_null() {
        let weights = tokens.weights.clone().ok_or("no sampler weights")?;
        let want = &expected["sampler_weights"];
        DERIVED.check_rows(&floats(weights), want, Some(mask), "sampler weights")?;
    }
    for (name, got) in [
        ("effective_mask", Some(&tokens.mask)),
        ("token_selection", tokens.selected.as_ref()),
        ("off_policy_keep", tokens.kept.as_ref()),
    ] {
        if !expected[name].is_null() {
            let got = got.ok_or(format!("no {name}"))?;
            check_selection(&floats(got.clone()), &expected[name], mask, name)?;
        }
    }
    Ok(())
}

fn check_metrics(
    case: &Value,
    objective: &PolicyObjective,
    metrics: &LossMetrics,
    scale: f64,
) -> Result<(), String> {
    let no_metrics = serde_json::Map::new();
    let wanted = case["expected"]["metrics"]
        .as_object()
        .unwrap_or(&no_metrics);
    let correction = correction_metrics(case, objective)?;
    // With one ratio and one advantage per completion, the other library counts completions.
    let per_row = objective.ratio_level == RatioLevel::Sequence
        && !case["inputs"]["advantages"][0].is_array();
    let share = |name: &str| match per_row {
        true => metrics.row_mean(name),
        false => metrics.mean(name),
    };
    let scalar = |name: &str| metrics.sum(name).map(|value| value * scale);
    let gmpo = matches!(objective.surrogate, Surrogate::Gmpo(_));
    for (name, want) in wanted {
        let got = match name.as_str() {
            "entropy" | "kl" => metrics.mean(name),
            "clip_ratio/low_mean" => share("clip_low"),
            "clip_ratio/high_mean" => share("clip_high"),
            "clip_ratio/region_mean" => share("clip"),
            "clip_ratio/low_min" => metrics.sum("clip_low/min"),
            "clip_ratio/high_max" => metrics.sum("clip_high/max"),
            "cispo_clip_ratio" => share("clip_high"),
            "vespo/phi_seq_mean" => match case["inputs"]["advantages"][0].is_array() {
                true => metrics.mean("phi"),
                false => metrics.row_mean("phi"),
            },
            // Before the bonus, and before TRL's division by accumulation steps.
            "policy_loss" => {
                let beta = objective.kl.map_or(0.0, |kl| kl.coef);
                let whole = scalar("policy_loss").unwrap_or(f64::NAN)
                    + beta * scalar("kl_loss").unwrap_or(0.0);
                let by = &case["objective"]["aggregation"];
                let scaled = by["mode"] == "batch_tokens";
                Some(if scaled {
                    whole
                } else {
                    whole / get(by, "scale")?
                })
            }
            "entropy_coef" => Some(objective.entropy_coef),
            "actor/ppo_kl" => match objective.surrogate {
                Surrogate::KlCov(_) => metrics.mean("log_ratio_abs"),
                _ => metrics.mean("ppo_kl"),
            },
            "actor/pg_clipfrac" if gmpo => metrics.mean("clip_high"),
            "actor/pg_clipfrac_lower" if gmpo => metrics.mean("clip_low"),
            "actor/pg_clipfrac" => Some(metrics.mean("clip").unwrap_or(0.0)),
            "actor/pg_clipfrac_lower" => Some(metrics.mean("bounded").unwrap_or(0.0)),
            "actor/pg_loss" => scalar("policy_loss"),
            "actor/entropy_loss" => scalar("entropy_loss"),
            "kl_loss" => scalar("kl_loss"),
            "kl_coef" => objective.kl.map(|kl| kl.coef),
            other => match other.strip_prefix("rollout_corr/") {
                Some(name) => correction.get(name).copied(),
                None => return Err(format!("unknown metric {other}")),
            },
        };
        let got = got.ok_or(format!("no metric for {name}"))?;
        METRIC.check(got, number(want), name)?;
    }
    Ok(())
}

const METRIC: Tolerance = DERIVED;

/// The diagnostics of a correction by the current policy.
fn correction_metrics(
    case: &Value,
    objective: &PolicyObjective,
) -> Result<BTreeMap<String, f64>, String> {
    if case["inputs"]["sampler_log_probs"].is_null() {
        return Ok(BTreeMap::new());
    }
    let inputs = &case["inputs"];
    let mask = rows(&inputs["mask"]).ok_or("no mask")?;
    let [policy, sampler] = compared(inputs, "log_probs", &mask)?;
    let log_probs = RolloutLogProbs::new(&policy, &sampler).map_err(|error| error.to_string())?;
    let metrics = match &objective.sampler_correction {
        Some(correction) => correction.diagnostics(log_probs),
        None => log_probs.mismatch(),
    };
    Ok(metrics.into_iter().collect())
}

/// The log-probs of the policy called `field` and of the sampler, at the tokens of `mask`.
pub fn compared(inputs: &Value, field: &str, mask: &[Vec<f64>]) -> Result<[PerToken; 2], String> {
    let policy = rows(&inputs[field]).ok_or(format!("no {field}"))?;
    let sampler = rows_with_gaps(&inputs["sampler_log_probs"]).ok_or("no sampler_log_probs")?;
    Ok([policy, sampler].map(|rows| at_tokens(&rows, mask)))
}

/// The numbers where `mask` is not 0.
pub fn at_tokens(rows: &[Vec<f64>], mask: &[Vec<f64>]) -> PerToken {
    let row = |(row, mask): (&Vec<f64>, &Vec<f64>)| {
        let tokens = row.iter().zip(mask).filter(|(_, mask)| **mask != 0.0);
        tokens.map(|(x, _)| *x).collect()
    };
    rows.iter().zip(mask).map(row).collect()
}
