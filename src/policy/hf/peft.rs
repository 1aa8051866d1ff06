//! Adapters in the format of Hugging Face's PEFT: `adapter_config.json` and
//! `adapter_model.safetensors`.

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
/// PEFT's prefix of the names of the model's modules.
const PREFIX: &str = "base_model.model.";

/// Writes the adapters of `model` into the folder `to`, in the format of PEFT's
/// `PeftModel.from_pretrained`.
///
/// `config` is the configuration of the adapters ([`CausalModel::with_lora`]), and `base` is stored
/// as the name of the base model. A folder `to` that is not empty is replaced only if `replace`.
///
/// # Errors
/// Returns an error if the model has no adapters or not those of `config`, `to` is not empty and
/// `replace` is false, or a file cannot be written.
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
            let expected = format!("the configuration of the model's adapters, which has {found}");
            return Err(Error::config("lora", format!("{config:?}"), expected));
        }
    }
    write_adapters(model, config, base, to.as_ref(), replace)
}

/// Writes the adapters of `model`, whose configuration is `config`.
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

/// Adds the adapters in the folder `from` to `model` and freezes its weights. Returns the model and
/// the configuration of the adapters.
///
/// ```no_run
/// use burn::tensor::Device;
/// use rlvr::policy::hf::{LoadOptions, load, load_adapters, save_adapters};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let base = "SmolLM2-135M-Instruct";
/// let model = load(base, &LoadOptions::f32(), &Device::flex().autodiff())?;
/// let (model, config) = load_adapters(model, "adapters")?;
/// save_adapters(&model, &config, base, "adapters-copy", false)?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Returns an error if a file is missing or broken or has an unsupported setting, which is named,
/// if the model already has adapters, and [`Error::Weights`] with the lists of tensors that are
/// missing, unexpected or of the wrong shape.
pub fn load_adapters(
    model: CausalModel,
    from: impl AsRef<Path>,
) -> Result<(CausalModel, LoraConfig)> {
    let from = from.as_ref();
    let config = read(from, &model)?;
    let mut files = TensorFiles::of(&[from.join(TENSORS)])?;
    let mut unused: BTreeSet<String> = files.names().map(str::to_string).collect();
    let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
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
                    mismatched.push(fault);
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
    if missing.is_empty() && mismatched.is_empty() && unused.is_empty() {
        return Ok((model, config));
    }
    Err(Error::Weights {
        path: from.to_path_buf(),
        missing,
        unexpected: unused.into_iter().collect(),
        mismatched,
    })
}

fn names_of_targets() -> [&'static str; 7] {
    LoraTarget::ALL.map(LoraTarget::name)
}

/// Returns the targets with these names, which are full names of projections or their last parts.
/// `None` if a name matches no projection, or a target is matched in some layers only.
fn targets(names: &[&str], model: &CausalModel) -> Option<Vec<LoraTarget>> {
    let projections: Vec<String> = model.projections().map(|(name, _)| name).collect();
    let matches = |name: &str, full: &str| match full.strip_suffix(name) {
        Some(before) => before.is_empty() || before.ends_with('.'),
        None => false,
    };
    let is_known = |name: &&str| projections.iter().any(|full| matches(name, full));
    if !names.iter().all(is_known) {
        return None;
    }
    let mut targets = Vec::new();
    for target in LoraTarget::ALL {
        let own = |full: &&String| full.ends_with(target.name());
        let adapted = |full: &&String| names.iter().any(|name| matches(name, full));
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

/// Reads `adapter_config.json`.
fn read(folder: &Path, model: &CausalModel) -> Result<LoraConfig> {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let fields: Map<String, Value> =
        serde_json::from_str(&text).map_err(|reason| Error::model_file(&path, reason))?;
    let invalid = |name: &str, expected: &str| {
        let given = fields.get(name).unwrap_or(&Value::Null);
        let reason = format!("`{name}` is {given}; expected {expected}");
        Err(Error::model_file(&path, reason))
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let flag = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
    if text("peft_type") != Some("LORA") {
        return invalid("peft_type", "\"LORA\"");
    }
    if text("bias").is_some_and(|bias| bias != "none") {
        return invalid("bias", "\"none\": biases are not adapted");
    }
    for unsupported in ["use_dora", "fan_in_fan_out", "lora_bias"] {
        if flag(unsupported) {
            return invalid(unsupported, "false");
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
            return invalid(unsupported, "none: every layer has the same adapters");
        }
    }
    let Some(rank) = fields.get("r").and_then(Value::as_u64) else {
        return invalid("r", "a whole number");
    };
    let Some(alpha) = fields.get("lora_alpha").and_then(Value::as_f64) else {
        return invalid("lora_alpha", "a number");
    };
    let names: Option<Vec<&str>> = match fields.get("target_modules") {
        Some(Value::String(all)) if all == "all-linear" => Some(names_of_targets().to_vec()),
        Some(Value::Array(names)) => names.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(targets) = names.and_then(|names| targets(&names, model)) else {
        let known = names_of_targets().join(", ");
        return invalid(
            "target_modules",
            &format!("a list of some of {known}, each in all layers"),
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
