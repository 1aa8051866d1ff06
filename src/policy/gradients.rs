//! Gradients: sums of them, trained parameters, and tensors on the gradient tape.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::log_probs::in_f32;
use crate::fused::add_scaled;
use crate::{Error, Result};

/// A sum of gradients in f32, for gradient accumulation over micro-batches.
///
/// The sum is f32 whatever the type of the parameters: in half precision, terms below the last
/// digit of the sum would be lost.
///
/// ```
/// use burn::optim::GradientsParams;
/// use burn::tensor::{Device, Tensor};
/// use rlvr::policy::GradientSum;
///
/// # #[cfg(feature = "flex")]
/// # fn main() {
/// let device = Device::flex().autodiff();
/// let model = burn::nn::LinearConfig::new(2, 1).init(&device);
/// let mut sum = GradientSum::default();
/// for micro_batch in [[[1.0, 2.0]], [[3.0, 4.0]]] {
///     let loss = model
///         .forward(Tensor::<2>::from_data(micro_batch, &device))
///         .sum();
///     sum.add(&model, GradientsParams::from_grads(loss.backward(), &model));
/// }
/// let gradients = sum.finish();
/// let weight = gradients.get::<2>(model.weight.id).unwrap();
/// assert_eq!(weight.into_data().to_vec::<f32>().unwrap(), [4.0, 6.0]);
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[derive(Debug, Default)]
pub struct GradientSum {
    sum: GradientsParams,
}

impl GradientSum {
    /// Adds the gradients of the parameters of `model`. Other gradients are dropped.
    pub fn add<M: Module>(&mut self, model: &M, gradients: GradientsParams) {
        self.add_scaled(model, gradients, 1.0);
    }

    /// Adds `factor` times the gradients of the parameters of `model`.
    pub(super) fn add_scaled<M: Module>(
        &mut self,
        model: &M,
        gradients: GradientsParams,
        factor: f64,
    ) {
        model.visit(&mut Add {
            sum: &mut self.sum,
            new: gradients,
            factor,
        });
    }

    /// Adds another sum over the parameters of `model`. A gradient that only one of the two has is
    /// 0 in the other.
    pub(crate) fn merge<M: Module>(&mut self, model: &M, other: Self) {
        model.visit(&mut Merge {
            sum: &mut self.sum,
            other: other.sum,
        });
    }

    /// Returns the sum, in f32.
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
            // -0 + 0 is 0.
            (Some(one), None) | (None, Some(one)) => one.add_scalar(0.0),
        };
        self.sum.register(param.id, merged);
    }
}

/// The trained parameters of a model: those that require a gradient, or all if none does, as off
/// the gradient tape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trained {
    /// Whether each parameter is trained, in the module's order.
    pub flags: Vec<bool>,
    /// The ids of the trained parameters.
    pub ids: Vec<ParamId>,
    /// The number of elements of each trained parameter.
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
    /// Finds the trained parameters of `model`.
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

    /// Returns whether the parameter `id` is trained.
    pub(crate) fn contains(&self, id: ParamId) -> bool {
        self.ids.contains(&id)
    }

    /// Returns whether every parameter is trained.
    pub(crate) fn all(&self) -> bool {
        self.flags.iter().all(|&trained| trained)
    }
}

/// Rejects a model without a parameter that requires a gradient; `what` names it in the error.
///
/// # Errors
/// Returns [`Error::Config`] if no parameter requires a gradient.
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

/// Returns the model with separate nodes on the gradient tape, so that another thread can run a
/// backward pass at the same time. Ids and values are the same.
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

/// Returns `x` on the gradient tape with the checkpointing strategy of `like`, since Burn rejects
/// operations on tensors with different strategies; off the tape if `like` is.
pub(crate) fn on_tape_of<const D: usize, const E: usize>(
    x: Tensor<D>,
    like: &Tensor<E>,
) -> Tensor<D> {
    match like.gradient_checkpointing_strategy() {
        Some(strategy) => x.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}
