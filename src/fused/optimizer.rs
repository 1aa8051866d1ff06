use burn::tensor::Tensor;

/// The hyperparameters of one update of AdamW (arXiv 1711.05101) that all parameters share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamW {
    pub beta_1: f64,
    pub beta_2: f64,
    pub epsilon: f64,
    pub learning_rate: f64,
    /// The factor of the gradient, for clipping.
    pub scale: f64,
    /// The bias corrections `1 - beta_1^t` and `1 - beta_2^t`.
    pub corrections: [f64; 2],
}

impl AdamW {
    /// Returns the new weights and moments in f32, off the gradient tape. `decay` is the weight
    /// decay. A moment of `None` is zero.
    pub(crate) fn step<const D: usize>(
        &self,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        moments: [Option<Tensor<D>>; 2],
        decay: f64,
    ) -> (Tensor<D>, [Tensor<D>; 2]) {
        #[cfg(feature = "flex")]
        if fused::has_kernels(moments.iter().flatten().chain([&weight, &gradient])) {
            return fused::step(self, weight, gradient, moments, decay);
        }
        let [first, second] = moments;
        let gradient = gradient.mul_scalar(self.scale);
        let blend = |old: Option<Tensor<D>>, new: Tensor<D>, beta: f64| {
            let new = new.mul_scalar(1.0 - beta);
            match old {
                Some(old) => old.mul_scalar(beta) + new,
                None => new,
            }
        };
        let first = blend(first, gradient.clone(), self.beta_1);
        let second = blend(second, gradient.square(), self.beta_2);
        let root = second.clone().div_scalar(self.corrections[1]).sqrt();
        let direction =
            first.clone().div_scalar(self.corrections[0]) / root.add_scalar(self.epsilon);
        let kept = match decay {
            0.0 => weight,
            decay => weight.mul_scalar(1.0 - self.learning_rate * decay),
        };
        (
            kept - direction.mul_scalar(self.learning_rate),
            [first, second],
        )
    }
}

/// Computes `sum + factor * new` in f32, off the gradient tape.
pub(crate) fn add_scaled<const D: usize>(sum: Tensor<D>, factor: f64, new: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if fused::has_kernels([&sum, &new]) {
        return fused::add_scaled(sum, factor, new);
    }
    match factor {
        1.0 => sum + new,
        factor => sum + new.mul_scalar(factor),
    }
}

/// Returns the sum of squares of `x`: a number if that needs no synchronization with the device,
/// otherwise a tensor `[1]`.
pub(crate) fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Result<f64, Box<Tensor<1>>> {
    #[cfg(feature = "flex")]
    if fused::has_kernels([&x]) {
        return Ok(fused::sum_of_squares(x));
    }
    Err(Box::new(x.square().sum()))
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use super::AdamW;
    use crate::fused::flex::{contiguous, floats, plain, tensor};

    /// Returns whether there are kernels for all of these tensors.
    pub(super) fn has_kernels<'a, const D: usize>(
        tensors: impl IntoIterator<Item = &'a Tensor<D>>,
    ) -> bool {
        tensors.into_iter().all(|tensor| plain(tensor).is_some())
    }

    /// Returns the contiguous primitive of a tensor that there are kernels for.
    fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
        let primitive = tensor.inner().try_into_primitive::<Flex>();
        contiguous(primitive.expect("has_kernels accepts it"))
    }

    /// As [`primitive`], with nothing else in its storage.
    fn owned<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
        primitive(tensor).to_contiguous()
    }

    fn on_tensor<const D: usize>(primitive: FlexTensor) -> Tensor<D> {
        Tensor::from_primitive::<Flex>(primitive)
    }

    pub(super) fn step<const D: usize>(
        update: &AdamW,
        weight: Tensor<D>,
        gradient: Tensor<D>,
        moments: [Option<Tensor<D>>; 2],
        decay: f64,
    ) -> (Tensor<D>, [Tensor<D>; 2]) {
        let (weight, gradient) = (primitive(weight), primitive(gradient));
        let count = floats(&weight).len();
        let numbers = rlvr_kernels::AdamW {
            beta_1: update.beta_1 as f32,
            beta_2: update.beta_2 as f32,
            epsilon: update.epsilon as f32,
            learning_rate: update.learning_rate as f32,
            keep: (1.0 - update.learning_rate * decay) as f32,
            scale: update.scale as f32,
            corrections: update.corrections.map(|correction| correction as f32),
        };
        let shape = weight.layout().shape();
        let [mut first, mut second] = moments.map(|moment| match moment {
            Some(moment) => owned(moment),
            None => tensor(vec![0.0; count], shape.clone()),
        });
        let new = numbers.step(
            floats(&weight),
            floats(&gradient),
            first.storage_mut(),
            second.storage_mut(),
        );
        let new = tensor(new, shape.clone());
        (on_tensor(new), [first, second].map(on_tensor))
    }

    pub(super) fn add_scaled<const D: usize>(
        sum: Tensor<D>,
        factor: f64,
        new: Tensor<D>,
    ) -> Tensor<D> {
        let (mut sum, new) = (owned(sum), primitive(new));
        rlvr_kernels::add_scaled(sum.storage_mut(), factor as f32, floats(&new));
        on_tensor(sum)
    }

    pub(super) fn sum_of_squares<const D: usize>(x: Tensor<D>) -> f64 {
        rlvr_kernels::sum_of_squares(floats(&primitive(x)))
    }
}
