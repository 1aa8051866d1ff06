//! Gradients of several learners.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

use super::learners::Learners;
use crate::{Result, host};

/// Replaces `gradients` by the sum over all learners. They travel in the order in which `model` visits its parameters, since
/// parameter ids differ between processes; a parameter without a gradient counts as zeros.
pub(super) fn sum_gradients<M: Module>(
    learners: &dyn Learners,
    model: &M,
    gradients: &mut GradientsParams,
) -> Result<()> {
    if learners.size() == 1 {
        return Ok(());
    }
    let mut flat = Flatten {
        gradients,
        numbers: Vec::new(),
        result: Ok(()),
    };
    model.visit(&mut flat);
    flat.result?;
    let mut numbers = flat.numbers;
    learners.sum(&mut numbers)?;
    model.visit(&mut Unflatten {
        gradients,
        numbers: &numbers,
    });
    Ok(())
}

struct Flatten<'a> {
    gradients: &'a GradientsParams,
    numbers: Vec<f32>,
    result: Result<()>,
}

impl ModuleVisitor for Flatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if !weight.is_require_grad() {
            return;
        }
        match self.gradients.get::<D>(param.id) {
            Some(gradient) => match host::floats(gradient, "gradient") {
                Ok(numbers) => self.numbers.extend(numbers),
                Err(error) => self.result = Err(error),
            },
            None => {
                let count: usize = weight.dims().iter().product();
                self.numbers.resize(self.numbers.len() + count, 0.0);
            }
        }
    }
}

struct Unflatten<'a> {
    gradients: &'a mut GradientsParams,
    numbers: &'a [f32],
}

impl ModuleVisitor for Unflatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if !weight.is_require_grad() {
            return;
        }
        let count: usize = weight.dims().iter().product();
        let (own, rest) = self.numbers.split_at(count.min(self.numbers.len()));
        self.numbers = rest;
        let data = TensorData::new(own.to_vec(), weight.dims());
        let gradient = Tensor::<D>::from_data(data, &weight.inner().device());
        self.gradients.remove::<D>(param.id);
        self.gradients.register(param.id, gradient);
    }
}
