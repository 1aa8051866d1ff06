//! The cases of `value_loss.jsonl`.

use rlvr::loss::{ValueLossConfig, value_loss};
use serde_json::Value;

use crate::common::{devices, floats, matrix};
use crate::expect::{DERIVED, LOSS, get, rows};
use crate::objective::aggregation;

pub fn check(case: &Value) -> Result<(), String> {
    let (params, inputs, expected) = (&case["params"], &case["inputs"], &case["expected"]);
    let by = aggregation(&params["aggregation"])?.ok_or("no aggregation")?;
    if get(params, "loss_factor")? != 0.5 {
        return Err(format!(
            "another factor than 0.5: {}",
            params["loss_factor"]
        ));
    }
    let config = ValueLossConfig {
        clip_range: params["cliprange_value"].as_f64(),
        aggregation: by.how,
    };
    for (backend, device) in devices() {
        let input = |key: &str| matrix(&rows(&inputs[key]).unwrap(), &device);
        let leaf = input("values").autodiff().require_grad();
        let (old, returns, mask) = (input("old_values"), input("returns"), input("mask"));
        let loss = value_loss(&leaf, &old, &returns, &mask, &config, by.by)
            .map_err(|error| error.to_string())?;
        let value = floats(loss.loss.clone())[0] * by.scale;
        LOSS.check(value, get(expected, "loss")?, &format!("{backend} loss"))?;
        let gradients = loss.loss.backward();
        let got = floats(leaf.grad(&gradients).ok_or("no gradient")?);
        let got: Vec<f64> = got.into_iter().map(|g| g * by.scale).collect();
        let what = format!("{backend} gradient");
        DERIVED.check_rows(&got, &expected["grad_values"], None, &what)?;
        let metrics = loss.sums.read().unwrap();
        for (name, want) in expected["metrics"].as_object().ok_or("no metrics")? {
            let got = match name.as_str() {
                "vf_clipfrac" => metrics.mean("value_clip").ok_or("no value_clip")?,
                other => return Err(format!("unknown metric {other}")),
            };
            let want = crate::expect::number(want);
            DERIVED.check(got, want, &format!("{backend} {name}"))?;
        }
    }
    Ok(())
}
