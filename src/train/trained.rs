//! Files with the trained parameters of a model.
//!
//! Checkpoints of a model with adapters contain trained parameters only, and are loaded into a
//! model with the same frozen weights.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::store::ModuleRecord;
use burn::tensor::Tensor;

pub(super) use crate::policy::Trained;
use crate::policy::on_tape_of;
use crate::{Error, Result};

impl Trained {
    /// Writes the parameters of `image`, a model of the same structure, that are trained in this
    /// model.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn save<M: Module>(&self, image: M, path: &Path) -> Result<()> {
        let record = match self.all() {
            true => image.into_record(),
            false => image.into_record_group(ParamGroup::from_ids(self.ids.clone())),
        };
        record
            .save(path)
            .map_err(|reason| Error::checkpoint(path, reason))
    }

    /// Returns `image` with the parameters that [`save`](Self::save) wrote, cast to its own types.
    ///
    /// # Errors
    /// Returns an error if the file is missing or does not fit the model.
    pub(super) fn load<M: Module>(&self, image: M, path: &Path) -> Result<M> {
        self.read(image, path, ModuleRecord::cast_to_module_dtype)
    }

    /// [`load`](Self::load) without casting: parameters keep the types of the file.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load).
    pub(super) fn load_as_written<M: Module>(&self, image: M, path: &Path) -> Result<M> {
        self.read(image, path, |record| record)
    }

    fn read<M: Module>(
        &self,
        image: M,
        path: &Path,
        with_types: impl FnOnce(ModuleRecord) -> ModuleRecord,
    ) -> Result<M> {
        let refuse = |reason: String| Error::checkpoint(path, reason);
        let record = ModuleRecord::load(path).map_err(|reason| refuse(reason.to_string()))?;
        if record.len() != self.ids.len() {
            let (found, wanted) = (record.len(), self.ids.len());
            let reason = format!("it contains {found} parameters, but the model trains {wanted}");
            return Err(refuse(reason));
        }
        let loaded = image
            .try_load_record(with_types(record).allow_partial(!self.all()))
            .map_err(|reason| refuse(reason.to_string()))?;
        // On `flex` a tensor is read from the file at its first use, when the file may no longer
        // exist.
        Ok(loaded.map(&mut Own {
            trained: self.flags.iter(),
        }))
    }
}

/// Copies trained parameters into their own memory.
struct Own<'a> {
    trained: std::slice::Iter<'a, bool>,
}

impl ModuleMapper for Own<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.trained.next() != Some(&true) {
            return param;
        }
        param.map(|weight| {
            let tracked = weight.is_require_grad();
            let own = weight.clone().inner().mul_scalar(1.0);
            on_tape_of(own, &weight).set_require_grad(tracked)
        })
    }
}
