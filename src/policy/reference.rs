//! The reference policy of a KL term.

use std::any::Any;

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::PolicyModel;
use super::gradients::Trained;
use super::log_probs::{as_dtype, in_f32};
use crate::{Error, Result};

/// When and how the reference policy is updated from the policy.
#[doc(alias("sync_ref_model", "ref_model_mixup_alpha"))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReferenceSync {
    /// The reference is never updated.
    #[default]
    Never,
    /// The reference is replaced by the policy every `steps` steps (DeepSeek-R1: 400 updates).
    Every {
        /// Steps between two updates; at least 1.
        steps: u64,
    },
    /// `reference = reference + alpha * (policy - reference)` every `steps` steps (TR-DPO, arXiv
    /// 2404.09656; TRL's defaults are 0.6 and 512), in f32, for every trained parameter. For
    /// adapters, `A` and `B` are averaged separately, not their product.
    MovingAverage {
        /// Steps between two updates; at least 1.
        steps: u64,
        /// The weight of the policy, in (0, 1].
        alpha: f64,
    },
}

impl ReferenceSync {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `steps` is 0 or `alpha` is outside (0, 1].
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

/// A frozen copy of a policy, adapters included, for a KL term. It has no gradients, and shares
/// with the policy the memory of the parameters that are not trained.
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::policy::{PolicyModel, ReferencePolicy, ReferenceSync};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex().autodiff();
/// let policy = CausalConfig {
///     hidden_size: 16,
///     ..CausalConfig::new(11)
/// }
/// .init(0, &device)?;
/// let mut reference =
///     ReferencePolicy::new(&policy, ReferenceSync::Every { steps: 400 })?;
/// assert!(!reference.after_step(1, &policy)); // call it after every step
/// assert!(reference.after_step(400, &policy)); // replaced by the policy
/// assert_eq!(reference.model().vocab_size(), 11);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct ReferencePolicy<M> {
    model: M,
    sync: ReferenceSync,
    /// Whether each parameter is trained, in the module's order. The others are equal in policy and
    /// reference.
    trained: Vec<bool>,
    /// For a moving average, the model with its trained parameters in f32: in half precision most
    /// updates are smaller than the last digit.
    average: Option<M>,
}

impl<M: PolicyModel> ReferencePolicy<M> {
    /// Creates a frozen copy of `policy` that is updated according to `sync`.
    ///
    /// # Errors
    /// Returns an error if `sync` is invalid.
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

    /// The frozen model. Its results are not on the gradient tape.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The weights to be saved in a checkpoint: those of the model, or the f32 values of a moving
    /// average.
    pub(crate) fn weights(&self) -> &M {
        self.average.as_ref().unwrap_or(&self.model)
    }

    /// Replaces the weights, as when a checkpoint is read, and rounds them to the types of the
    /// model.
    pub(crate) fn replace(&mut self, weights: M) {
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

    /// Updates the reference from `policy` if step `step`, counted from 1, is due for it, and
    /// returns whether it did. Call it after every step.
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

/// The parameters of a module, in its order. Two models with the same structure agree in the order,
/// but not in ids if one of them was read from a file.
#[derive(Default)]
struct Values(Vec<Box<dyn Any>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(Box::new(param.val()));
    }
}

/// The types of the parameters of a module, in its order.
#[derive(Default)]
struct Types(Vec<DType>);

impl ModuleVisitor for Types {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().dtype());
    }
}

/// Casts the trained parameters to f32.
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

/// Adds `alpha` times the difference to the targets to the trained parameters.
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
