//! The page: what is known of the runs as JSON, within a document whose script draws it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::run::{MOST_STEPS, ReportedRun, evenly};
use crate::train::diagnosis::{Diagnosis, Finding, Severity};
use crate::train::observer::StepRecord;
use crate::types::{RewardOutcome, Rollout, RolloutBuffer};
use crate::{Error, Result};

/// The most points of a curve; more records are averaged.
const MOST_POINTS: usize = 1000;
/// The most rollouts of a step, and the most characters of a text.
const MOST_ROLLOUTS: usize = 48;
const MOST_CHARACTERS: usize = 6000;

/// What the script knows of a run.
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
    /// Sums over all steps of what can be added up.
    totals: BTreeMap<&'a str, f64>,
    configuration: Vec<(String, String)>,
    samples: Samples<'a>,
}

/// A finding that a watchdog recorded among the metrics.
#[derive(Serialize)]
struct Earlier {
    name: String,
    severity: Severity,
    first_step: u64,
    last_step: u64,
    /// At how many steps.
    steps: u64,
}

#[derive(Serialize)]
struct Samples<'a> {
    /// How many rollouts there were in the steps that are shown.
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
    /// Per trained token.
    entropy: Option<f64>,
}

/// One HTML document that shows `runs`: curves, findings, configuration, sample rollouts. Several runs are drawn into the same
/// charts and tables.
///
/// The document is complete in itself: it loads nothing, and nothing of the texts in it is taken for markup. Runs of more
/// than 1000 steps are drawn as averages of as many intervals. Of each step with rollouts, whole groups of
/// up to 48 rollouts are shown.
///
/// # Errors
/// [`Error::Config`] without any run.
pub fn render_report(runs: &[ReportedRun]) -> Result<String> {
    if runs.is_empty() {
        return Err(Error::config("runs", 0, "at least one run"));
    }
    let diagnoses: Vec<Diagnosis> = runs.iter().map(diagnose).collect();
    let runs: Vec<Page> = runs.iter().zip(&diagnoses).map(page).collect();
    let data = serde_json::to_string(&json!({ "runs": runs }))
        .map_err(|error| Error::config("runs", error, "what JSON can hold"))?;
    // Within a script nothing but `<` can end it.
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
<main><noscript>This page draws its content with the script in it, which is switched off.</noscript></main>
<script type="application/json" id="data">{data}</script>
<script>
"use strict";
{charts}{samples}{page}</script>
</body>
</html>
"#
    ))
}

/// By the records and, if some are of the last steps, the completions.
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

/// Six digits, which is more than a screen shows.
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
            let severity = match value >= Severity::Failing.as_metric() {
                true => Severity::Failing,
                false => Severity::Warning,
            };
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

/// Every leaf by its path.
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

/// A long text without its middle.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= MOST_CHARACTERS {
        return text.into();
    }
    let half = MOST_CHARACTERS / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(length - half).collect();
    format!(
        "{head}\n[{} characters left out]\n{tail}",
        length - MOST_CHARACTERS
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Problem, RewardRecord, RolloutGroup};

    /// The JSON in a page.
    fn data(html: &str) -> Value {
        let begin = "<script type=\"application/json\" id=\"data\">";
        let (_, rest) = html.split_once(begin).unwrap();
        let (data, _) = rest.split_once("</script>").unwrap();
        serde_json::from_str(data).unwrap()
    }

    fn run() -> ReportedRun {
        let record = |step: u64| {
            StepRecord::new(step)
                .with("reward", step as f64 / 3.0)
                .with("grad_norm", f64::NAN)
                .with("time/step", 2.0)
        };
        ReportedRun {
            name: "one".into(),
            records: (1..=4).map(record).collect(),
            ..ReportedRun::default()
        }
    }

    #[test]
    fn what_a_policy_writes_is_text() {
        let evil = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)>";
        let mut rollout = Rollout::new(vec![1, 2], vec![0.0, 0.0], evil);
        rollout.reward = Some(0.5);
        rollout.rewards = vec![RewardRecord {
            name: evil.into(),
            weight: 1.0,
            outcome: RewardOutcome::Failed(evil.into()),
            seconds: 0.0,
        }];
        let group = RolloutGroup::new(Problem::new(evil, evil), vec![1], vec![rollout]);
        let groups = vec![group];
        let run = ReportedRun {
            name: evil.into(),
            configuration: json!({ "system": { evil: evil } }),
            rollouts: vec![(4, RolloutBuffer { groups })],
            ..run()
        };
        let html = render_report(&[run]).unwrap();
        assert_eq!(html.matches("</script").count(), 2);
        assert_eq!(html.matches("<script").count(), 2);
        assert!(!html.contains("<img") && !html.contains("<!--"));
        let run = &data(&html)["runs"][0];
        assert_eq!(run["name"], evil);
        assert_eq!(
            run["configuration"][0],
            json!([format!("system.{evil}"), evil])
        );
        let samples = &run["samples"];
        assert_eq!(samples["rows"][0]["text"], evil);
        assert_eq!(samples["rows"][0]["rewards"][0], json!([evil, evil]));
        assert_eq!(samples["prompts"][0], json!([evil, evil]));
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let html = render_report(&[run()]).unwrap();
        for from in ["src=", "href=", "@import", "url(", "fetch(", "https://"] {
            assert!(!html.contains(from), "{from}");
        }
        // The one address is the name of SVG's vocabulary.
        assert_eq!(html.matches("http://").count(), 1);
    }

    #[test]
    fn numbers_are_those_of_the_records() {
        let run = &data(&render_report(&[run()]).unwrap())["runs"][0];
        assert_eq!(run["steps"], json!([1, 2, 3, 4]));
        assert_eq!(run["metrics"]["reward"][0], 0.333333);
        assert_eq!(run["metrics"]["grad_norm"], json!([null, null, null, null]));
        assert_eq!(
            (&run["totals"]["time/step"], &run["verdict"]),
            (&json!(8.0), &json!("healthy"))
        );
        let error = render_report(&[]).unwrap_err().to_string();
        assert!(error.contains("at least one run"), "{error}");
        render_report(&[ReportedRun::default()]).unwrap();
    }

    #[test]
    fn a_long_run_is_averaged() {
        let record = |step: u64| {
            let record = StepRecord::new(step).with("reward", step as f64);
            match step.is_multiple_of(10) {
                true => record.with("eval/accuracy", 0.5),
                false => record,
            }
        };
        let run = ReportedRun {
            records: (1..=2500).map(record).collect(),
            ..ReportedRun::default()
        };
        let run = &data(&render_report(&[run]).unwrap())["runs"][0];
        assert_eq!(run["steps"].as_array().unwrap().len(), 834);
        assert_eq!(
            (&run["steps"][0], &run["steps"][833]),
            (&json!(3), &json!(2500))
        );
        assert_eq!(
            (&run["metrics"]["reward"][0], &run["count"]),
            (&json!(2.0), &json!(2500))
        );
        assert_eq!(run["metrics"]["eval/accuracy"][3], 0.5);
        assert!(run["metrics"]["eval/accuracy"][0].is_null());
    }

    #[test]
    fn findings_are_shown_and_remembered() {
        let mut run = run();
        for record in &mut run.records {
            record.metrics.insert(
                "findings/clipping".into(),
                if record.step == 3 { 2.0 } else { 1.0 },
            );
        }
        run.records[0].metrics.remove("findings/clipping");
        run.records.extend(
            (5..=9).map(|step| StepRecord::new(step).with("completions/clipped_ratio", 0.9)),
        );
        let run = &data(&render_report(&[run]).unwrap())["runs"][0];
        assert_eq!(run["verdict"], "failing");
        assert_eq!(run["findings"][0]["name"], "truncation");
        let expected = json!([{
            "name": "clipping", "severity": "failing", "first_step": 2, "last_step": 4, "steps": 3
        }]);
        assert_eq!(run["earlier"], expected);
    }

    #[test]
    fn whole_groups_are_chosen_and_long_texts_lose_their_middle() {
        let long = format!("a{}z", "é".repeat(9998));
        let rollout = |index: usize| {
            let text = if index == 0 {
                long.clone()
            } else {
                String::new()
            };
            Rollout {
                sample: index,
                ..Rollout::new(vec![1], vec![0.0], text)
            }
        };
        let group = |_| {
            let rollouts = (0..20).map(rollout).collect();
            RolloutGroup::new(Problem::new("p", "a"), vec![1], rollouts)
        };
        let buffer = RolloutBuffer {
            groups: (0..10).map(group).collect(),
        };
        let rollouts = vec![(1, buffer)];
        let found = samples(&rollouts);
        assert_eq!(
            (found.kept, found.rows.len(), found.prompts.len()),
            (200, 40, 2)
        );
        let text = &found.rows[0].text;
        assert!(text.starts_with('a') && text.ends_with('z'));
        assert!(
            text.contains("\n[4000 characters left out]\n"),
            "{}",
            text.len()
        );
    }
}
