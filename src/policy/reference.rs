//! The frozen policy that a KL term pulls towards.

use std::any::Any;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::PolicyModel;
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

impl<M: PolicyModel> ReferencePolicy<M> {
    /// Freezes what `policy` starts from ([`PolicyModel::reference`]), to be moved by `sync`.
    ///
    /// # Errors
    /// If `sync` is refused.
    pub fn new(policy: &M, sync: ReferenceSync) -> Result<Self> {
        sync.validate()?;
        Ok(Self {
            model: policy.reference(),
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
    model.map(&mut Blend {
        sources: sources.0.into_iter(),
        alpha,
    })
}

/// The parameters of a module in its own order, which is what two models of one structure share; ids they may not,
/// once one of them was read from a file.
#[derive(Default)]
struct Sources(Vec<Box<dyn Any>>);

impl ModuleVisitor for Sources {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(Box::new(param.val()));
    }
}

struct Blend {
    sources: std::vec::IntoIter<Box<dyn Any>>,
    alpha: f64,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let source = self.sources.next();
        let towards = source.and_then(|any| any.downcast::<Tensor<D>>().ok());
        param.map(|old| match towards {
            Some(new) => old.mul_scalar(1.0 - self.alpha) + new.mul_scalar(self.alpha),
            None => old,
        })
    }
}
