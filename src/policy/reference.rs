//! The frozen policy that a KL term pulls towards.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

use crate::{Error, Result};

/// When and how the reference follows the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReferenceSync {
    /// The reference stays what it was when training began.
    #[default]
    Never,
    /// The reference becomes the policy every `steps` steps (DeepSeek-R1: 400 updates).
    Every {
        /// Steps between two replacements; at least 1.
        steps: u64,
    },
    /// `reference = alpha * policy + (1 - alpha) * reference` every `steps` steps (TR-DPO, arXiv
    /// 2404.09656; TRL's defaults are 0.6 and 512).
    MovingAverage {
        /// Steps between two moves; at least 1.
        steps: u64,
        /// The policy's share, in (0, 1].
        alpha: f64,
    },
}

impl ReferenceSync {
    /// Refuses zero steps and a share outside (0, 1].
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Every { steps: 0 } | Self::MovingAverage { steps: 0, .. } => {
                Err(Error::config("reference_sync.steps", 0, "at least 1 step"))
            }
            Self::MovingAverage { alpha, .. } if !(alpha > 0.0 && alpha <= 1.0) => Err(
                Error::config("reference_sync.alpha", alpha, "a share in (0, 1]"),
            ),
            _ => Ok(()),
        }
    }
}

/// A copy of the policy without gradients.
#[derive(Clone, Debug)]
pub struct ReferencePolicy<M> {
    model: M,
    sync: ReferenceSync,
}

impl<M: Module> ReferencePolicy<M> {
    /// Freezes a copy of `policy`, to be moved by `sync`.
    ///
    /// # Errors
    /// If `sync` is refused.
    pub fn new(policy: &M, sync: ReferenceSync) -> Result<Self> {
        sync.validate()?;
        Ok(Self {
            model: policy.valid(),
            sync,
        })
    }

    /// The frozen model; nothing that it computes is recorded for a gradient.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Puts other weights in its place, as when a checkpoint is read.
    pub fn replace(&mut self, model: M) {
        self.model = model.valid();
    }

    /// Called after step `step` (counted from 1): follows `policy` if it is time. Returns whether it
    /// moved.
    pub fn after_step(&mut self, step: u64, policy: &M) -> bool {
        match self.sync {
            ReferenceSync::Every { steps } if step.is_multiple_of(steps) => {
                self.model = policy.valid();
                true
            }
            ReferenceSync::MovingAverage { steps, alpha } if step.is_multiple_of(steps) => {
                self.model = blend(self.model.clone(), &policy.valid(), alpha);
                true
            }
            _ => false,
        }
    }
}

/// `(1 - alpha) * model + alpha * towards`, parameter by parameter.
fn blend<M: Module>(model: M, towards: &M, alpha: f64) -> M {
    let mut sources = Sources::default();
    towards.visit(&mut sources);
    model.map(&mut Blend { sources, alpha })
}

/// The parameters of a module by id; a clone of a module keeps its ids.
#[derive(Default)]
struct Sources(HashMap<ParamId, Box<dyn std::any::Any>>);

impl ModuleVisitor for Sources {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id, Box::new(param.val()));
    }
}

struct Blend {
    sources: Sources,
    alpha: f64,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let source = self.sources.0.get(&param.id);
        let towards = source.and_then(|any| any.downcast_ref::<Tensor<D>>()).cloned();
        param.map(|old| match towards {
            Some(new) => old.mul_scalar(1.0 - self.alpha) + new.mul_scalar(self.alpha),
            None => old,
        })
    }
}
