//! The frozen policy that a KL term pulls towards.

use std::any::Any;

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::PolicyModel;
use super::gradients::Trained;
use super::log_probs::{as_dtype, in_f32};
use crate::{Error, Result};

/// When and how the reference follows the policy.
#[doc(alias("sync_ref_model", "ref_model_mixup_alpha"))]
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
    /// `reference = reference + alpha * (policy - reference)` every `steps` steps (TR-DPO, arXiv
    /// 2404.09656; TRL's defaults are 0.6 and 512), in f32, for every parameter that the policy trains. Of adapters `A` and `B` are
    /// averaged, not their product.
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

/// The policy as it was given, without gradients, adapters included; it shares with the policy what neither of them changes.
#[derive(Clone, Debug)]
pub struct ReferencePolicy<M> {
    model: M,
    sync: ReferenceSync,
    /// Whether each parameter, in the module's order, is trained: the others are equal in policy and reference.
    trained: Vec<bool>,
    /// Of a moving average: the model with its trained parameters in f32. In half precision most moves are smaller than the last
    /// digit.
    average: Option<M>,
}

impl<M: PolicyModel> ReferencePolicy<M> {
    /// Freezes `policy`, to be moved by `sync`.
    ///
    /// # Errors
    /// If `sync` is refused.
    pub fn new(policy: &M, sync: ReferenceSync) -> Result<Self> {
        sync.validate()?;
        let mut reference = Self {
            model: policy.valid(),
            sync,
            trained: Trained::of(policy).flags,
            average: None,
        };
        reference.replace(policy.valid());
        Ok(reference)
    }

    /// The frozen model; nothing that it computes is recorded for a gradient.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// What a checkpoint holds: the model, or of a moving average its f32 values.
    pub(crate) fn weights(&self) -> &M {
        self.average.as_ref().unwrap_or(&self.model)
    }

    /// Puts other weights in its place, as when a checkpoint is read. They are rounded to the types of the model's own.
    pub fn replace(&mut self, weights: M) {
        let weights = weights.valid();
        let mut types = Types::default();
        self.model.visit(&mut types);
        self.average = match self.sync {
            ReferenceSync::MovingAverage { .. } => {
                Some(weights.clone().map(&mut InF32(self.trained.iter())))
            }
            _ => None,
        };
        self.model = weights.map(&mut Round(types.0.into_iter()));
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
                let mut targets = Values::default();
                policy.valid().visit(&mut targets);
                let average = self.weights().clone();
                self.replace(average.map(&mut Blend {
                    targets: targets.0.into_iter(),
                    trained: self.trained.clone().into_iter(),
                    alpha,
                }));
                true
            }
            _ => false,
        }
    }
}

/// The parameters of a module in its own order, which is what two models of one structure share; ids they may not, once one of
/// them was read from a file.
#[derive(Default)]
struct Values(Vec<Box<dyn Any>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(Box::new(param.val()));
    }
}

/// The types of the parameters of a module, in its own order.
#[derive(Default)]
struct Types(Vec<DType>);

impl ModuleVisitor for Types {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().dtype());
    }
}

/// Takes the trained parameters to f32.
struct InF32<'a>(std::slice::Iter<'a, bool>);

impl ModuleMapper for InF32<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.next() {
            Some(true) => param.map(in_f32),
            _ => param,
        }
    }
}

/// Rounds every parameter to its type.
struct Round(std::vec::IntoIter<DType>);

impl ModuleMapper for Round {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.next() {
            Some(dtype) => param.map(|weight| as_dtype(weight, dtype)),
            None => param,
        }
    }
}

/// Moves the trained parameters by `alpha` of their distance to the targets.
struct Blend {
    targets: std::vec::IntoIter<Box<dyn Any>>,
    trained: std::vec::IntoIter<bool>,
    alpha: f64,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let target = self.targets.next();
        let target = target.and_then(|any| any.downcast::<Tensor<D>>().ok());
        match (self.trained.next(), target) {
            (Some(true), Some(target)) => param.map(|old| {
                let step = (in_f32(*target) - old.clone()).mul_scalar(self.alpha);
                old + step
            }),
            _ => param,
        }
    }
}
