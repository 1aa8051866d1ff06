//! Advantages against numbers that TRL and verl gave for the same rewards.

#[path = "conformance/advantages.rs"]
mod advantages;

use std::collections::BTreeMap;

use serde_json::{Value, json};

fn cases() -> Vec<Value> {
    let lines = include_str!("golden/advantages.jsonl").lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn advantages_match_the_peers() {
    let mut ran = BTreeMap::<String, usize>::new();
    let mut failures = Vec::new();
    for case in cases() {
        if let Err(reason) = advantages::check(&case) {
            failures.push(format!("{}: {reason}", case["name"]));
        }
        let kind = format!("{} {}", case["peer"], case["estimator"]).replace('"', "");
        *ran.entry(kind).or_default() += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let ran: Vec<(&str, usize)> = ran.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(
        ran,
        [
            ("trl trl_group", 33),
            ("verl gae", 19),
            ("verl gdpo", 9),
            ("verl gpg", 4),
            ("verl grpo", 10),
            ("verl grpo_passk", 6),
            ("verl grpo_vectorized", 7),
            ("verl opo", 7),
            ("verl optimal_token_baseline", 7),
            ("verl reinforce_plus_plus", 8),
            ("verl reinforce_plus_plus_baseline", 4),
            ("verl remax", 8),
            ("verl rloo", 5),
            ("verl rloo_vectorized", 5),
            ("verl tir_optimal_token_baseline", 5),
        ]
    );
}

/// A check that passes whatever it is given proves nothing.
#[test]
fn a_wrong_or_unknown_case_is_an_error() {
    let all = cases();
    let of = |estimator: &str| {
        all.iter()
            .find(|case| case["estimator"] == estimator)
            .unwrap()
    };
    for case in &all {
        let last = |case: &Value, what: &str| {
            let rows = case["expected"][what].as_array().map_or(0, Vec::len);
            format!("/expected/{what}/{}", rows.saturating_sub(1))
        };
        // In every row some number at a valid token is wrong.
        for what in ["advantages", "returns"] {
            let mut wrong = case.clone();
            let place = last(case, what);
            let Some(row) = wrong.pointer_mut(&place) else {
                continue;
            };
            let shift = |x: &mut Value| *x = json!(x.as_f64().unwrap() + 0.01);
            match row.as_array_mut() {
                Some(row) => row.iter_mut().for_each(shift),
                None => shift(row),
            }
            let valid = case.pointer(&place.replace(&format!("expected/{what}"), "inputs/mask"));
            if valid.is_none_or(|mask| mask.as_array().unwrap().contains(&json!(1))) {
                assert!(
                    advantages::check(&wrong).is_err(),
                    "{} of {}",
                    what,
                    case["name"]
                );
            }
        }
    }
    let changed = |estimator: &str, place: &str, field: &str, value: Value| {
        let mut case = of(estimator).clone();
        case.pointer_mut(place).unwrap()[field] = value;
        advantages::check(&case).unwrap_err()
    };
    assert!(changed("grpo", "", "estimator", json!("grpo2")).contains("grpo2"));
    assert!(changed("grpo", "", "peer", json!("other")).contains("other"));
    assert!(changed("grpo", "", "colour", json!(1)).contains("colour"));
    assert!(changed("grpo", "", "precision", json!("float16")).contains("float16"));
    assert!(changed("rloo", "/params", "gamma", json!(0.9)).contains("gamma"));
    assert!(changed("gae", "/params", "lam", json!(null)).contains("lam"));
    assert!(changed("grpo", "/inputs", "values", json!([[1.0]])).contains("values"));
    assert!(changed("trl_group", "/expected/metrics", "frac", json!(0.5)).contains("frac"));
    let flags = json!(vec![
        0.5;
        of("trl_group")["inputs"]["group_ids"]
            .as_array()
            .unwrap()
            .len()
    ]);
    assert!(
        changed("trl_group", "/expected/metrics", "is_std_zero", flags).contains("is_std_zero")
    );
}
