//! Compares the crate with every recorded number of TRL and verl: losses, gradients, weights,
//! masks, metrics and advantages.
//!
//! Reads each `*.jsonl` of the folder named by `RLVR_GOLDEN_DIR` (default `tests/golden`), on both
//! CPU backends. A case that cannot be mapped to the public API fails. `tests/golden/README.md`
//! describes the source of the numbers.
//!
//! A binary of its own, because others run it on their own cases by this name.

mod advantages;
#[path = "../common/mod.rs"]
mod common;
mod expect;
mod kl;
mod log_probs;
mod objective;
mod policy_loss;
mod sampler_correction;
mod tables;
mod value_loss;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The subject of a case: its file, and its kind within.
type Kind = (&'static str, String);

fn folder() -> PathBuf {
    match std::env::var_os("RLVR_GOLDEN_DIR") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

fn cases(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (line, text) in text
            .lines()
            .enumerate()
            .filter(|(_, text)| !text.trim().is_empty())
        {
            let case = serde_json::from_str(text);
            cases.push(
                case.unwrap_or_else(|error| panic!("{}:{}: {error}", file.display(), line + 1)),
            );
        }
    }
    cases
}

/// The kind of a case, by its fields.
fn kind(case: &Value) -> Option<Kind> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_string();
    Some(if case.get("objective").is_some() {
        ("policy_loss", text(&case["objective"]["surrogate"]))
    } else if case.get("estimator").is_some() {
        ("advantages", text(&case["estimator"]))
    } else if case["kind"] == "kl_penalty" || case["kind"] == "kl_controller" {
        ("kl", text(&case["kind"]))
    } else if case["kind"] == "correction" || case["kind"] == "off_policy_mask" {
        ("sampler_correction", text(&case["kind"]))
    } else if case["params"].get("cliprange_value").is_some() {
        ("value_loss", "value_loss".into())
    } else if case["inputs"].get("logits").is_some() {
        ("log_probs", "log_probs".into())
    } else {
        return None;
    })
}

fn check(case: &Value) -> Result<Kind, String> {
    let kind = kind(case).ok_or("a case of no known kind")?;
    let outcome = catch_unwind(|| match kind.0 {
        "policy_loss" => policy_loss::check(case),
        "advantages" => advantages::check(case),
        "kl" => kl::check(case),
        "sampler_correction" => sampler_correction::check(case),
        "value_loss" => value_loss::check(case),
        _ => log_probs::check(case),
    });
    match outcome {
        Ok(outcome) => outcome.map(|()| kind),
        Err(panic) => Err(match panic.downcast_ref::<String>() {
            Some(message) => message.clone(),
            None => "the check panicked".into(),
        }),
    }
}

#[test]
fn every_golden_case_agrees() {
    let folder = folder();
    let cases = cases(&folder);
    let mut passed: BTreeMap<Kind, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in &cases {
        match check(case) {
            Ok(kind) => *passed.entry(kind).or_default() += 1,
            Err(error) => failures.push(format!("{}: {error}", case["name"])),
        }
    }
    common::report(&format!("{} cases from {}", cases.len(), folder.display()));
    for ((file, kind), count) in &passed {
        common::report(&format!("  {file:<20} {kind:<30} {count:>4} passed"));
    }
    for failure in &failures {
        common::report(&format!("FAILED {failure}"));
    }
    common::report(&format!(
        "{} passed, {} failed",
        cases.len() - failures.len(),
        failures.len()
    ));
    assert!(
        failures.is_empty(),
        "{} of {} cases failed",
        failures.len(),
        cases.len()
    );
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    if std::env::var_os("RLVR_GOLDEN_DIR").is_none() {
        assert_eq!(cases.len(), 824, "the shared set is complete");
        tables::hold(&passed);
    }
}
