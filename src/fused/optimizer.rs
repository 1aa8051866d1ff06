use burn::tensor::Tensor;

/// The numbers of one update of AdamW (arXiv 1711.05101) that all parameters share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamW {
    pub beta_1: f64,
    pub beta_2: f64,
    pub epsilon: f64,
    pub learning_rate: f64,
    /// What the gradient is multiplied by first.
    pub scale: f64,
    /// `1 - beta^t` of both decays.
    pub corrections: [f64; 2],
}

impl AdamW {
    /// The moved weights and moments in f32, off the tape; `decay` is the weight decay. Moments that do not exist yet are zero.
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

/// `sum + factor * new` in f32, off the tape.
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

/// `sum of x^2`: a number if it is to be had without waiting for the device, else a tensor `[1]`.
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
    use crate::fused::flex::{floats, in_order, plain, tensor};

    /// Whether there are kernels for all of these tensors.
    pub(super) fn has_kernels<'a, const D: usize>(
        tensors: impl IntoIterator<Item = &'a Tensor<D>>,
    ) -> bool {
        tensors.into_iter().all(|tensor| plain(tensor).is_some())
    }

    /// The primitive of a tensor that there are kernels for.
    fn lying<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
        let lying = tensor.inner().try_into_primitive::<Flex>();
        in_order(lying.expect("there are kernels for it"))
    }

    /// The same with nothing else in its memory; copied if somebody else holds it.
    fn owned<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
        lying(tensor).to_contiguous()
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
        let (weight, gradient) = (lying(weight), lying(gradient));
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
        let moved = numbers.step(
            floats(&weight),
            floats(&gradient),
            first.storage_mut(),
            second.storage_mut(),
        );
        let moved = tensor(moved, shape.clone());
        (on_tensor(moved), [first, second].map(on_tensor))
    }

    pub(super) fn add_scaled<const D: usize>(
        sum: Tensor<D>,
        factor: f64,
        new: Tensor<D>,
    ) -> Tensor<D> {
        let (mut sum, new) = (owned(sum), lying(new));
        rlvr_kernels::add_scaled(sum.storage_mut(), factor as f32, floats(&new));
        on_tensor(sum)
    }

    pub(super) fn sum_of_squares<const D: usize>(x: Tensor<D>) -> f64 {
        rlvr_kernels::sum_of_squares(floats(&lying(x)))
    }
}
