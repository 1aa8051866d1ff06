//! Adapters in the format of Hugging Face's PEFT: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use serde_json::{Map, Value, json};

use super::files::{TensorFiles, dtype};
use super::load::transposed;
use super::save::{Stored, write_file, write_json};
use crate::folder::write_whole;
use crate::policy::causal::{CausalModel, Lora, LoraConfig, LoraTarget, Weight};
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
pub(super) const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the model's own modules.
const PREFIX: &str = "base_model.model.";

/// Writes the adapters of `model` into the folder `to`, as PEFT's `PeftModel.from_pretrained` reads them.
///
/// `base` is written down as the name of the model that they adapt. `config` is what they were made with
/// ([`CausalModel::with_lora`]).
///
/// # Errors
/// If the model has no adapters or other ones than `config` describes, `to` is not empty and may not be replaced, or a file cannot be
/// written.
pub fn save_adapters(
    model: &CausalModel,
    config: &LoraConfig,
    base: &str,
    to: impl AsRef<Path>,
    replace: bool,
) -> Result<()> {
    config.validate()?;
    if !model.has_adapters() {
        let expected = "a model with adapters, from with_lora or load_adapters";
        return Err(Error::config("model", "a model without adapters", expected));
    }
    for (name, lora) in model.adapters() {
        let rank = lora.a.dims()[1];
        if !config.adapts(&name) || rank != config.rank || lora.scale() != config.scale() {
            let found = format!("{name} of rank {rank} and scale {}", lora.scale());
            let expected = format!("the adapters of the model: it has {found}");
            return Err(Error::config("lora", format!("{config:?}"), expected));
        }
    }
    write_adapters(model, config, base, to.as_ref(), replace)
}

/// Writes the adapters of `model`, which are those that `config` describes.
pub(super) fn write_adapters(
    model: &CausalModel,
    config: &LoraConfig,
    base: &str,
    to: &Path,
    replace: bool,
) -> Result<()> {
    let mut tensors = Vec::new();
    for (name, lora) in model.adapters() {
        for (part, matrix) in [("lora_A", &lora.a), ("lora_B", &lora.b)] {
            let name = format!("{PREFIX}{name}.{part}.weight");
            tensors.push(Stored::new(name, Weight::Projection(matrix), DType::F32)?);
        }
    }
    let targets: BTreeSet<&str> = config.targets.iter().map(|target| target.name()).collect();
    let description = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "use_rslora": config.rank_stabilized,
        "target_modules": targets,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "inference_mode": true,
        "modules_to_save": null,
    });
    write_whole(to, replace, |folder| {
        write_json(&folder.join(CONFIG), &description)?;
        write_file(&tensors, &folder.join(TENSORS))
    })
}

/// `model` with the adapters in the folder `from`, which are trained and nothing else is, and the configuration that describes
/// them.
///
/// # Errors
/// If a file is missing or broken, the adapters are of a kind that the model does not have (each setting is named), or tensors are
/// missing, left over or of the wrong shape, which are listed.
pub fn load_adapters(
    model: CausalModel,
    from: impl AsRef<Path>,
) -> Result<(CausalModel, LoraConfig)> {
    let from = from.as_ref();
    let config = read(from, &model)?;
    let mut files = TensorFiles::of(&[from.join(TENSORS)])?;
    let mut unused: BTreeSet<String> = files.names().map(str::to_string).collect();
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
    let device = model.embed_tokens.weight.device();
    let model = model.with_adapters(|_, name, projection| {
        if !config.adapts(name) {
            return Ok(None);
        }
        let [inputs, outputs] = projection.weight.dims();
        let mut take = |part: &str, shape: [usize; 2]| -> Result<Option<Tensor<2>>> {
            let name = format!("{PREFIX}{name}.{part}.weight");
            unused.remove(&name);
            match files.info(&name) {
                None => missing.push(name),
                Some(info) if info.shape != shape || dtype(info.dtype).is_none() => {
                    let (kind, found) = (info.dtype, &info.shape);
                    let fault = format!("{name} is {kind:?} {found:?} instead of floats {shape:?}");
                    misshapen.push(fault);
                }
                Some(_) => {
                    let data = transposed(files.read(&name)?).convert_dtype(DType::F32);
                    return Ok(Some(Tensor::from_data(data, (&device, DType::F32))));
                }
            }
            Ok(None)
        };
        let a = take("lora_A", [config.rank, inputs])?;
        let b = take("lora_B", [outputs, config.rank])?;
        Ok(a.zip(b).map(|(a, b)| {
            let (a, b) = (Param::from_tensor(a), Param::from_tensor(b));
            Lora::new(a, b, config.scale())
        }))
    })?;
    if missing.is_empty() && misshapen.is_empty() && unused.is_empty() {
        return Ok((model, config));
    }
    Err(Error::Weights {
        path: from.to_path_buf(),
        missing,
        left_over: unused.into_iter().collect(),
        misshapen,
    })
}

fn names_of_targets() -> [&'static str; 7] {
    LoraTarget::ALL.map(LoraTarget::name)
}

/// The projections that `names` mean, which are last parts of their full names or all of it. `None` if a name means none of them,
/// or a projection is meant in some layers and not in others.
fn targets(names: &[&str], model: &CausalModel) -> Option<Vec<LoraTarget>> {
    let projections: Vec<String> = model.projections().map(|(name, _)| name).collect();
    let meant = |name: &str, full: &str| match full.strip_suffix(name) {
        Some(before) => before.is_empty() || before.ends_with('.'),
        None => false,
    };
    let means_something = |name: &&str| projections.iter().any(|full| meant(name, full));
    if !names.iter().all(means_something) {
        return None;
    }
    let mut targets = Vec::new();
    for target in LoraTarget::ALL {
        let own = |full: &&String| full.ends_with(target.name());
        let adapted = |full: &&String| names.iter().any(|name| meant(name, full));
        let (all, some) = (
            projections.iter().filter(own).all(|full| adapted(&full)),
            projections.iter().filter(own).any(|full| adapted(&full)),
        );
        if all != some {
            return None;
        }
        targets.extend(all.then_some(target));
    }
    Some(targets)
}

/// `adapter_config.json`.
fn read(folder: &Path, model: &CausalModel) -> Result<LoraConfig> {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let fields: Map<String, Value> =
        serde_json::from_str(&text).map_err(|reason| Error::model_file(&path, reason))?;
    let refuse = |name: &str, expected: &str| {
        let given = fields.get(name).unwrap_or(&Value::Null);
        let reason = format!("`{name}` is {given}; expected {expected}");
        Err(Error::model_file(&path, reason))
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
    if text("peft_type") != Some("LORA") {
        return refuse("peft_type", "\"LORA\"");
    }
    if text("bias").is_some_and(|bias| bias != "none") {
        return refuse("bias", "\"none\": biases are not adapted");
    }
    for unsupported in ["use_dora", "fan_in_fan_out", "lora_bias"] {
        if flag(unsupported) {
            return refuse(unsupported, "false");
        }
    }
    for unsupported in [
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "layers_to_transform",
        "exclude_modules",
    ] {
        let empty = match fields.get(unsupported) {
            None | Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return refuse(unsupported, "nothing: every layer has the same adapters");
        }
    }
    let Some(rank) = fields.get("r").and_then(Value::as_u64) else {
        return refuse("r", "a whole number");
    };
    let Some(alpha) = fields.get("lora_alpha").and_then(Value::as_f64) else {
        return refuse("lora_alpha", "a number");
    };
    let names: Option<Vec<&str>> = match fields.get("target_modules") {
        Some(Value::String(all)) if all == "all-linear" => Some(names_of_targets().to_vec()),
        Some(Value::Array(names)) => names.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(targets) = names.and_then(|names| targets(&names, model)) else {
        let known = names_of_targets().join(", ");
        return refuse(
            "target_modules",
            &format!("a list of {known}, each in all layers"),
        );
    };
    let config = LoraConfig {
        rank: rank as usize,
        alpha,
        rank_stabilized: flag("use_rslora"),
        targets,
        ..LoraConfig::default()
    };
    let valid = config.validate();
    valid.map_err(|reason| Error::model_file(&path, reason))?;
    Ok(config)
}
