//! Tests of the report page.

use super::*;
use crate::types::{Problem, RewardRecord, RolloutGroup};

/// Returns the JSON of a page.
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
fn texts_of_rollouts_are_escaped() {
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
fn no_external_resources_are_loaded() {
    let html = render_report(&[run()]).unwrap();
    for from in ["src=", "href=", "@import", "url(", "fetch(", "https://"] {
        assert!(!html.contains(from), "{from}");
    }
    // The only URL is the SVG namespace.
    assert_eq!(html.matches("http://").count(), 1);
}

#[test]
fn the_page_contains_the_numbers_of_the_records() {
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
fn current_and_earlier_findings_are_shown() {
    let mut run = run();
    for record in &mut run.records {
        record.metrics.insert(
            "findings/clipping".into(),
            if record.step == 3 { 2.0 } else { 1.0 },
        );
    }
    run.records[0].metrics.remove("findings/clipping");
    run.records
        .extend((5..=9).map(|step| StepRecord::new(step).with("completions/clipped_ratio", 0.9)));
    let run = &data(&render_report(&[run]).unwrap())["runs"][0];
    assert_eq!(run["verdict"], "failing");
    assert_eq!(run["findings"][0]["name"], "truncation");
    let expected = json!([{
        "name": "clipping", "severity": "failing", "first_step": 2, "last_step": 4, "steps": 3
    }]);
    assert_eq!(run["earlier"], expected);
}

#[test]
fn whole_groups_are_sampled_and_long_texts_are_shortened() {
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
        text.contains("\n[4000 characters omitted]\n"),
        "{}",
        text.len()
    );
}
