//! Which parameters of a model are trained, and files that hold only those.
//!
//! A model with adapters has weights that never change: a checkpoint of it holds the adapters and what belongs to them, and is
//! read over the weights that the run began with.

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::store::ModuleRecord;
use burn::tensor::Tensor;

use crate::{Error, Result};

/// The trained parameters of a model.
#[derive(Debug, Default)]
pub(super) struct Trained {
    /// In the module's order: whether a parameter is trained.
    pub flags: Vec<bool>,
    ids: Vec<ParamId>,
}

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let trained = param.val().is_require_grad();
        self.flags.push(trained);
        self.ids.extend(trained.then_some(param.id));
    }
}

/// The ids of all parameters.
struct Everything(Vec<ParamId>);

impl ModuleVisitor for Everything {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.id);
    }
}

impl Trained {
    /// Those of `model`.
    pub(super) fn of<M: Module>(model: &M) -> Self {
        let mut trained = Self::default();
        model.visit(&mut trained);
        if trained.ids.is_empty() {
            // A model off the gradient tape says nothing about what is trained.
            let mut everything = Everything(Vec::new());
            model.visit(&mut everything);
            trained.ids = everything.0;
            trained.flags.fill(true);
        }
        trained
    }

    /// Whether the parameter called `id` is trained.
    pub(super) fn contains(&self, id: ParamId) -> bool {
        self.ids.contains(&id)
    }

    fn all(&self) -> bool {
        self.flags.iter().all(|&trained| trained)
    }

    /// Writes the parameters of `image`, a model of the same structure, that are trained in this one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn save<M: Module>(&self, image: M, path: &Path) -> Result<()> {
        let record = match self.all() {
            true => image.into_record(),
            false => image.into_record_group(ParamGroup::from_ids(self.ids.clone())),
        };
        record
            .save(path)
            .map_err(|reason| Error::checkpoint(path, reason))
    }

    /// `image` with the parameters that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// If the file is missing or does not fit the model.
    pub(super) fn load<M: Module>(&self, image: M, path: &Path) -> Result<M> {
        let refuse = |reason: String| Error::checkpoint(path, reason);
        let record = ModuleRecord::load(path).map_err(|reason| refuse(reason.to_string()))?;
        if record.len() != self.ids.len() {
            let (found, wanted) = (record.len(), self.ids.len());
            let reason = format!("holds {found} parameters where the model trains {wanted}");
            return Err(refuse(reason));
        }
        image
            .try_load_record(record.allow_partial(!self.all()))
            .map_err(|reason| refuse(reason.to_string()))
    }
}
