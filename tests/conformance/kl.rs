//! The cases of `kl.jsonl`.

use rlvr::loss::{AdaptiveKl, KlPenalty};
use serde_json::Value;

use crate::common::{devices, floats, matrix};
use crate::expect::{DERIVED, HOST, get, number, rows, text};
use crate::objective::estimator;

pub fn check(case: &Value) -> Result<(), String> {
    match text(case, "kind")? {
        "kl_controller" => controller(case),
        _ => penalty(case),
    }
}

fn controller(case: &Value) -> Result<(), String> {
    let (params, inputs) = (&case["params"], &case["inputs"]);
    let list =
        |value: &Value| -> Vec<f64> { value.as_array().unwrap().iter().map(number).collect() };
    let mut coef = get(params, "init_kl_coef")?;
    let mut controller = match text(params, "type")? {
        "fixed" => None,
        "adaptive" => Some(AdaptiveKl {
            coef,
            target: get(params, "target_kl")?,
            horizon: get(params, "horizon")?,
        }),
        other => return Err(format!("unknown controller {other}")),
    };
    let updates = list(&inputs["current_kl"])
        .into_iter()
        .zip(list(&inputs["n_steps"]));
    for ((kl, samples), want) in updates.zip(list(&case["expected"]["coef"])) {
        if let Some(controller) = &mut controller {
            controller.update(kl, samples as usize);
            coef = controller.coef;
        }
        HOST.check(coef, want, "coefficient")?;
    }
    Ok(())
}

fn penalty(case: &Value) -> Result<(), String> {
    let (params, inputs, expected) = (&case["params"], &case["inputs"], &case["expected"]);
    let (estimator, plus) = estimator(text(params, "estimator")?)?;
    let penalty = KlPenalty {
        straight_through: plus || params["straight_through"] == true,
        log_ratio_clamp: params["log_ratio_clamp"].as_f64(),
        value_clamp: params["value_clamp"].as_f64(),
        ..KlPenalty::new(1.0, estimator)
    };
    penalty.validate().map_err(|error| error.to_string())?;
    let policy = rows(&inputs["log_probs"]).ok_or("no log_probs")?;
    let reference = rows(&inputs["ref_log_probs"]).ok_or("no ref_log_probs")?;
    let host = policy.concat().into_iter().zip(reference.concat());
    let host: Vec<f64> = host.map(|(lp, rf)| penalty.value(lp, rf)).collect();
    HOST.check_rows(&host, &expected["values"], None, "value on the host")?;
    for (backend, device) in devices() {
        let leaf = matrix(&policy, &device).autodiff().require_grad();
        let values = penalty.per_token(leaf.clone(), matrix(&reference, &device));
        let what = format!("{backend} value");
        DERIVED.check_rows(&floats(values.clone()), &expected["values"], None, &what)?;
        let gradients = values.sum().backward();
        let got = floats(leaf.grad(&gradients).ok_or("no gradient")?);
        let what = format!("{backend} gradient");
        DERIVED.check_rows(&got, &expected["grad_log_probs"], None, &what)?;
    }
    Ok(())
}
