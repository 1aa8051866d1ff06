//! The HTML page of a report: the runs as JSON, and a script that draws them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::run::{MOST_STEPS, ReportedRun, evenly};
use crate::train::diagnosis::{Diagnosis, Finding, Severity};
use crate::train::observer::StepRecord;
use crate::types::{RewardOutcome, Rollout, RolloutBuffer};
use crate::{Error, Result};

/// The largest number of points of a curve; more records are averaged.
const MOST_POINTS: usize = 1000;
/// The largest number of rollouts of a step, and of characters of a text.
const MOST_ROLLOUTS: usize = 48;
const MOST_CHARACTERS: usize = 6000;

/// The data of a run for the script.
#[derive(Serialize)]
struct Page<'a> {
    name: &'a str,
    verdict: String,
    findings: &'a [Finding],
    earlier: Vec<Earlier>,
    /// The number of records.
    count: usize,
    steps: Vec<u64>,
    metrics: BTreeMap<&'a str, Vec<Option<f64>>>,
    /// Sums over all steps, for durations and costs.
    totals: BTreeMap<&'a str, f64>,
    configuration: Vec<(String, String)>,
    samples: Samples<'a>,
}

/// A finding that a watchdog recorded in the metrics.
#[derive(Serialize)]
struct Earlier {
    name: String,
    severity: Severity,
    first_step: u64,
    last_step: u64,
    /// The number of steps with the finding.
    steps: u64,
}

#[derive(Serialize)]
struct Samples<'a> {
    /// The number of rollouts in the shown steps.
    kept: usize,
    /// Prompt and answer.
    prompts: Vec<(String, String)>,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    step: u64,
    problem: usize,
    sample: usize,
    text: String,
    reward: Option<f64>,
    rewards: Vec<(&'a str, Value)>,
    tokens: usize,
    finish: crate::types::FinishReason,
    /// Mean per trained token, in nats.
    entropy: Option<f64>,
}

/// Renders an HTML document of `runs`: curves, findings, configuration, sample rollouts. Several
/// runs share charts and tables.
///
/// The document is self-contained: it loads no other resources, and texts of rollouts are never
/// interpreted as markup. Runs of more than 1000 steps are averaged over at most 1000 intervals.
/// For each step with rollouts, whole groups of up to 48 rollouts in total are shown.
///
/// # Errors
/// Returns [`Error::Config`] if `runs` is empty.
pub fn render_report(runs: &[ReportedRun]) -> Result<String> {
    if runs.is_empty() {
        return Err(Error::config("runs", 0, "at least one run"));
    }
    let diagnoses: Vec<Diagnosis> = runs.iter().map(diagnose).collect();
    let runs: Vec<Page> = runs.iter().zip(&diagnoses).map(page).collect();
    let data = serde_json::to_string(&json!({ "runs": runs }))
        .map_err(|error| Error::config("runs", error, "serializable values"))?;
    // Without `<` the text cannot close the script element.
    let data = data.replace('<', "\\u003c");
    let (style, charts) = (include_str!("page.css"), include_str!("charts.js"));
    let (samples, page) = (include_str!("samples.js"), include_str!("page.js"));
    Ok(format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>run</title>
<style>
{style}</style>
</head>
<body>
<main><noscript>This page needs JavaScript, which is disabled.</noscript></main>
<script type="application/json" id="data">{data}</script>
<script>
"use strict";
{charts}{samples}{page}</script>
</body>
</html>
"#
    ))
}

/// Diagnoses the records and, if the last rollouts are of the last step, the completions.
fn diagnose(run: &ReportedRun) -> Diagnosis {
    let diagnosis = Diagnosis::of(&run.records);
    match run.rollouts.last() {
        Some((step, rollouts)) if *step == diagnosis.step() => {
            diagnosis.with_rollouts(*step, rollouts)
        }
        _ => diagnosis,
    }
}

fn page<'a>((run, diagnosis): (&'a ReportedRun, &'a Diagnosis)) -> Page<'a> {
    let records = &run.records;
    let buckets: Vec<&[StepRecord]> = match records.len() > MOST_POINTS {
        true => records
            .chunks(records.len().div_ceil(MOST_POINTS))
            .collect(),
        false => records.chunks(1).collect(),
    };
    let mut metrics: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
    let names = records.iter().flat_map(|record| record.metrics.keys());
    for name in names {
        metrics.entry(name).or_default();
    }
    for (name, values) in &mut metrics {
        let finite = |record: &StepRecord| record.finite(name);
        let mean = |bucket: &&[StepRecord]| {
            let values: Vec<f64> = bucket.iter().filter_map(finite).collect();
            let sum: f64 = values.iter().sum();
            (!values.is_empty()).then(|| rounded(sum / values.len() as f64))
        };
        *values = buckets.iter().map(mean).collect();
        if name.starts_with("time/") || name.starts_with("cost") {
            totals.insert(name, records.iter().filter_map(finite).sum());
        }
    }
    let last = |bucket: &&[StepRecord]| bucket.last().map(|record| record.step);
    Page {
        name: &run.name,
        verdict: diagnosis.verdict().to_string(),
        findings: diagnosis.findings(),
        earlier: earlier(records),
        count: records.iter().filter(|record| record.step > 0).count(),
        steps: buckets.iter().filter_map(last).collect(),
        metrics,
        totals,
        configuration: {
            let mut rows = Vec::new();
            flatten("", &run.configuration, &mut rows);
            rows
        },
        samples: samples(&run.rollouts),
    }
}

/// Rounds to six digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

fn earlier(records: &[StepRecord]) -> Vec<Earlier> {
    let mut found: BTreeMap<&str, Earlier> = BTreeMap::new();
    for record in records {
        for (name, &value) in &record.metrics {
            let Some(name) = name.strip_prefix("findings/") else {
                continue;
            };
            let severity = Severity::of_metric(value);
            let one = found.entry(name).or_insert_with(|| Earlier {
                name: name.into(),
                severity,
                first_step: record.step,
                last_step: record.step,
                steps: 0,
            });
            one.severity = one.severity.max(severity);
            one.last_step = record.step;
            one.steps += 1;
        }
    }
    let mut found: Vec<Earlier> = found.into_values().collect();
    found.sort_by_key(|one| one.first_step);
    found
}

/// Adds every leaf of `value` with its path.
fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let below = |name: &str| match path.is_empty() {
        true => name.to_string(),
        false => format!("{path}.{name}"),
    };
    match value {
        Value::Null if path.is_empty() => {}
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                flatten(&below(name), value, rows);
            }
        }
        Value::String(text) => rows.push((path.into(), text.clone())),
        other => rows.push((path.into(), other.to_string())),
    }
}

fn samples(rollouts: &[(u64, RolloutBuffer)]) -> Samples<'_> {
    let mut prompts = Vec::new();
    let mut rows = Vec::new();
    let mut kept = 0;
    for index in evenly(rollouts.len(), MOST_STEPS) {
        let (step, buffer) = &rollouts[index];
        kept += buffer.len();
        let largest = buffer.groups.iter().map(|group| group.rollouts.len()).max();
        let groups = (MOST_ROLLOUTS / largest.unwrap_or(1).max(1)).max(1);
        for index in evenly(buffer.groups.len(), groups) {
            let group = &buffer.groups[index];
            let problem = &group.problem;
            for index in evenly(group.rollouts.len(), MOST_ROLLOUTS) {
                rows.push(row(*step, prompts.len(), &group.rollouts[index]));
            }
            prompts.push((shortened(&problem.prompt), shortened(&problem.answer)));
        }
    }
    Samples {
        kept,
        prompts,
        rows,
    }
}

fn row(step: u64, problem: usize, rollout: &Rollout) -> Row<'_> {
    let tokens = rollout.trained_tokens();
    let outcome = |outcome: &RewardOutcome| match outcome {
        RewardOutcome::Score(score) => json!(rounded(*score)),
        RewardOutcome::Abstained => json!("abstained"),
        RewardOutcome::Gated(value) => json!(format!("gated, {value}")),
        failed => json!(shortened(&failed.failure().unwrap_or_default())),
    };
    Row {
        step,
        problem,
        sample: rollout.sample,
        text: shortened(&rollout.text),
        reward: rollout.total_reward().map(rounded),
        rewards: rollout
            .rewards
            .iter()
            .map(|record| (record.name.as_str(), outcome(&record.outcome)))
            .collect(),
        tokens,
        finish: rollout.finish,
        entropy: rollout
            .entropy
            .map(|entropy| rounded(entropy / tokens.max(1) as f64)),
    }
}

/// Removes the middle of a long text.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= MOST_CHARACTERS {
        return text.into();
    }
    let half = MOST_CHARACTERS / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(length - half).collect();
    format!(
        "{head}\n[{} characters omitted]\n{tail}",
        length - MOST_CHARACTERS
    )
}

#[cfg(test)]
mod tests;
