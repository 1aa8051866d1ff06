//! Gradients: which parameters have one, how they are summed, and how tensors come onto the tape.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::log_probs::in_f32;
use crate::fused::add_scaled;
use crate::{Error, Result};

/// A sum of gradients in f32, whatever the type of the parameters: a sum of many small terms in half precision loses those that
/// are below its last digit.
#[derive(Debug, Default)]
pub struct GradientSum {
    sum: GradientsParams,
}

impl GradientSum {
    /// Adds the gradients of the parameters of `model`; others are dropped.
    pub fn add<M: Module>(&mut self, model: &M, gradients: GradientsParams) {
        self.add_scaled(model, gradients, 1.0);
    }

    /// Adds `factor` times the gradients.
    pub fn add_scaled<M: Module>(&mut self, model: &M, gradients: GradientsParams, factor: f64) {
        model.visit(&mut Add {
            sum: &mut self.sum,
            new: gradients,
            factor,
        });
    }

    /// Adds another sum over the parameters of `model`. A parameter that only one of the two has counts as 0 in the other.
    pub(crate) fn merge<M: Module>(&mut self, model: &M, other: Self) {
        model.visit(&mut Merge {
            sum: &mut self.sum,
            other: other.sum,
        });
    }

    /// The sum.
    pub fn finish(self) -> GradientsParams {
        self.sum
    }
}

struct Add<'a> {
    sum: &'a mut GradientsParams,
    new: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(new) = self.new.remove::<D>(param.id) else {
            return;
        };
        let new = in_f32(new);
        let sum = match self.sum.remove::<D>(param.id) {
            Some(sum) => add_scaled(sum, self.factor, new),
            None if self.factor == 1.0 => new,
            None => new.mul_scalar(self.factor),
        };
        self.sum.register(param.id, sum);
    }
}

struct Merge<'a> {
    sum: &'a mut GradientsParams,
    other: GradientsParams,
}

impl ModuleVisitor for Merge<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (sum, other) = (
            self.sum.remove::<D>(param.id),
            self.other.remove::<D>(param.id),
        );
        let merged = match (sum, other) {
            (None, None) => return,
            (Some(sum), Some(other)) => add_scaled(sum, 1.0, other),
            // Of -0 and 0 the sum is 0.
            (Some(one), None) | (None, Some(one)) => one.add_scalar(0.0),
        };
        self.sum.register(param.id, merged);
    }
}

/// The trained parameters of a model: those that require a gradient, or all of a model off the gradient tape, which does not
/// say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trained {
    /// In the module's order: whether a parameter is trained.
    pub flags: Vec<bool>,
    /// The ids of those that are.
    pub ids: Vec<ParamId>,
    /// How many numbers each of them holds.
    pub sizes: Vec<usize>,
}

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.flags.push(param.val().is_require_grad());
        self.ids.push(param.id);
        self.sizes.push(param.val().shape().num_elements());
    }
}

impl Trained {
    /// Those of `model`.
    pub(crate) fn of<M: Module>(model: &M) -> Self {
        let mut trained = Self::default();
        model.visit(&mut trained);
        if trained.flags.iter().any(|&flag| flag) {
            let mut flags = trained.flags.iter();
            trained.ids.retain(|_| flags.next() == Some(&true));
            let mut flags = trained.flags.iter();
            trained.sizes.retain(|_| flags.next() == Some(&true));
        } else {
            trained.flags.fill(true);
        }
        trained
    }

    /// Whether the parameter called `id` is trained.
    pub(crate) fn contains(&self, id: ParamId) -> bool {
        self.ids.contains(&id)
    }

    /// Whether every parameter is trained.
    pub(crate) fn all(&self) -> bool {
        self.flags.iter().all(|&trained| trained)
    }
}

/// Rejects a model of which no parameter requires a gradient; `what` names it in the error.
///
/// # Errors
/// [`Error::Config`].
pub(crate) fn require_gradients<M: Module>(model: &M, what: &str) -> Result<()> {
    struct Any(bool);
    impl ModuleVisitor for Any {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 = self.0 || param.val().is_require_grad();
        }
    }
    let mut any = Any(false);
    model.visit(&mut any);
    if any.0 {
        return Ok(());
    }
    let expected = "one built on `device.autodiff()`";
    Err(Error::config(
        what,
        "no parameter requires gradients",
        expected,
    ))
}

/// The model with parameters of its own on the gradient tape, so that another thread can go backward beside this one. Ids and values
/// are the same.
pub(crate) fn fork<M: Module>(model: &M) -> M {
    struct Fork;
    impl ModuleMapper for Fork {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| {
                let trained = value.is_require_grad();
                on_tape_of(value.clone().inner(), &value).set_require_grad(trained)
            })
        }
    }
    model.clone().map(&mut Fork)
}

/// `x` on the same tape as `like`, checkpointing strategy included: burn refuses operations on tensors of different strategies. Off
/// the tape if `like` is.
pub(crate) fn on_tape_of<const D: usize, const E: usize>(
    x: Tensor<D>,
    like: &Tensor<E>,
) -> Tensor<D> {
    match like.gradient_checkpointing_strategy() {
        Some(strategy) => x.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}
