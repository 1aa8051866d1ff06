//! The cases of `log_probs.jsonl`.

use rlvr::policy::logits_log_probs;
use serde_json::Value;

use crate::common::{devices, floats, ids, matrix};
use crate::expect::{LOSS, get, rows};

pub fn check(case: &Value) -> Result<(), String> {
    let (inputs, expected) = (&case["inputs"], &case["expected"]);
    let batches = inputs["logits"].as_array().ok_or("no logits")?;
    let logits: Vec<Vec<f64>> = batches.iter().flat_map(|row| rows(row).unwrap()).collect();
    let targets = rows(&inputs["targets"]).ok_or("no targets")?.concat();
    let targets: Vec<i32> = targets.iter().map(|&t| t as i32).collect();
    let entropies = match &expected["entropies_finite_vocab"] {
        Value::Null => &expected["entropies"],
        finite => finite,
    };
    for (backend, device) in devices() {
        let scores = logits_log_probs(
            matrix(&logits, &device),
            ids(std::slice::from_ref(&targets), &device).squeeze_dim(0),
            get(&case["params"], "temperature")?,
        );
        for (what, got, want) in [
            ("log-probs", scores.log_probs, &expected["log_probs"]),
            ("entropies", scores.entropies, entropies),
        ] {
            LOSS.check_rows(&floats(got), want, None, &format!("{backend} {what}"))?;
        }
    }
    Ok(())
}
