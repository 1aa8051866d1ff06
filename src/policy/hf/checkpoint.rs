//! The weights of a checkpoint, in the format of Hugging Face.

use std::path::Path;

use burn::module::Module;

use super::config::{Task, to_fields};
use super::peft::write_adapters;
use super::{LoadOptions, SaveOptions, load, save};
use crate::policy::PolicyModel;
use crate::policy::causal::{CausalModel, LoraConfig, LoraTarget};
use crate::{Error, Result};

/// Writes `model` to the folder `to` and returns true, unless it has adapters or no supported
/// architecture has its shape.
pub(crate) fn export(model: &CausalModel, to: &Path) -> Result<bool> {
    if model.has_adapters() || to_fields(model.config(), Task::CausalLm).is_err() {
        return Ok(false);
    }
    save(&model.valid(), to, &SaveOptions::default())?;
    Ok(true)
}

/// Writes the adapters of `model` to the folder `to` and returns true, if it has any.
pub(crate) fn export_adapters(model: &CausalModel, to: &Path) -> Result<bool> {
    let adapters = model.adapters();
    let found: Vec<(String, usize, f64)> = adapters
        .map(|(name, lora)| (name, lora.a.dims()[1], lora.scale()))
        .collect();
    let Some(&(_, rank, scale)) = found.first() else {
        return Ok(false);
    };
    let adapted =
        |target: &LoraTarget| found.iter().any(|(name, ..)| name.ends_with(target.name()));
    let config = LoraConfig {
        rank,
        alpha: scale * rank as f64,
        targets: LoraTarget::ALL.into_iter().filter(adapted).collect(),
        ..LoraConfig::default()
    };
    write_adapters(model, &config, "", to, false)?;
    Ok(true)
}

/// Returns `model` with the weights of the folder `from`, in the types of `model`.
pub(crate) fn import(model: CausalModel, from: &Path) -> Result<CausalModel> {
    let weights = load(from, &LoadOptions::default(), &model.valid().device())?;
    model
        .try_load_record(weights.into_record().cast_to_module_dtype())
        .map_err(|reason| Error::checkpoint(from, reason))
}
