//! The weights of a checkpoint as a folder that other programs read.

use std::path::Path;

use burn::module::Module;

use super::config::to_fields;
use super::{LoadOptions, SaveOptions, load, save};
use crate::policy::PolicyModel;
use crate::policy::causal::CausalModel;
use crate::{Error, Result};

/// Writes `model` to the folder `to`, unless it has adapters or a shape that no supported architecture has.
pub(crate) fn export(model: &CausalModel, to: &Path) -> Result<bool> {
    if model.has_adapters() || to_fields(model.config()).is_err() {
        return Ok(false);
    }
    save(&model.valid(), to, &SaveOptions::default())?;
    Ok(true)
}

/// `model` with the weights of the folder `from`, in its own types.
pub(crate) fn import(model: CausalModel, from: &Path) -> Result<CausalModel> {
    let weights = load(from, &LoadOptions::default(), &model.valid().device())?;
    model
        .try_load_record(weights.into_record().cast_to_module_dtype())
        .map_err(|reason| Error::checkpoint(from, reason))
}
