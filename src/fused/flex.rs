//! Kernels as tensor operations that are recorded on the gradient tape.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, DispatchKindConversion, DispatchTensor, Flex, GradientCheckpointingStrategy,
};
use burn::tensor::{Bytes, DType, Shape, Tensor};
use rlvr_kernels::Matrix;

use crate::host;

/// A tensor on the gradient tape.
type AutodiffTensor<B> = FloatTensor<Autodiff<B>>;

/// An operation on `N` tensors with its own backward pass.
pub(super) trait Operation<const N: usize>: Debug + Send + 'static {
    /// The values that are kept for the backward pass.
    type Saved: Clone + Debug + Send + 'static;

    fn forward(self, inputs: [FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// Returns the gradients of the inputs that are `wanted`, given that of the output.
    fn backward(
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// An input of an [`Operation`]: a tensor of any rank.
#[derive(Clone)]
pub(super) struct Input {
    // The rank is erased: a primitive does not have one.
    tensor: Tensor<1>,
    strategy: Option<GradientCheckpointingStrategy>,
}

impl Input {
    /// Returns `None` if there is no kernel for the tensor: it is not f32 or not on the `flex`
    /// device.
    pub(super) fn new<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 || !host::is_cpu(&tensor.device()) {
            return None;
        }
        Some(Self {
            strategy: tensor.gradient_checkpointing_strategy(),
            tensor: Tensor::from_dispatch(tensor.clone().into_dispatch()),
        })
    }
}

/// Applies `operation`. The result is on the gradient tape if an input is. Returns `None` if an
/// input is `None`, or the inputs are on tapes with different checkpointing strategies.
pub(super) fn apply<O: Operation<N>, const N: usize, const D: usize>(
    operation: O,
    inputs: [Option<Input>; N],
) -> Option<Tensor<D>> {
    let mut known = Vec::with_capacity(N);
    for input in inputs {
        known.push(input?);
    }
    let strategies = || known.iter().filter_map(|input| input.strategy);
    match strategies().next() {
        None => {
            let plain = known
                .into_iter()
                .map(|input| input.tensor.try_into_primitive::<Flex>().ok());
            let plain: Vec<FlexTensor> = plain.collect::<Option<_>>()?;
            let (output, _) = operation.forward(plain.try_into().ok()?);
            Some(off_tape(output))
        }
        Some(strategy) if strategies().any(|other| other != strategy) => None,
        Some(GradientCheckpointingStrategy::Balanced) => {
            let output = record::<O, BalancedCheckpointing, N>(
                operation,
                taped::<BalancedCheckpointing, N>(known)?,
            );
            Some(Tensor::from_primitive::<
                Autodiff<Flex, BalancedCheckpointing>,
            >(output))
        }
        Some(GradientCheckpointingStrategy::Disabled) => {
            let output =
                record::<O, NoCheckpointing, N>(operation, taped::<NoCheckpointing, N>(known)?);
            Some(Tensor::from_primitive::<Autodiff<Flex, NoCheckpointing>>(
                output,
            ))
        }
    }
}

/// Returns the inputs as nodes of the tape `C`; inputs off the tape become constants.
fn taped<C: CheckpointStrategy, const N: usize>(
    inputs: Vec<Input>,
) -> Option<[AutodiffTensor<Flex>; N]>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    let tensors = inputs.into_iter().map(|input| match input.strategy {
        Some(_) => input.tensor.try_into_primitive::<Autodiff<Flex, C>>().ok(),
        None => {
            let constant = input.tensor.try_into_primitive::<Flex>().ok()?;
            Some(AutodiffTensor::new(constant))
        }
    });
    let tensors: Vec<_> = tensors.collect::<Option<_>>()?;
    tensors.try_into().ok()
}

/// Computes the output and records the backward pass on the tape.
fn record<O: Operation<N>, C: CheckpointStrategy, const N: usize>(
    operation: O,
    inputs: [AutodiffTensor<Flex>; N],
) -> AutodiffTensor<Flex> {
    let nodes = inputs.each_ref().map(AutodiffTensor::node);
    let inputs = inputs.map(AutodiffTensor::into_primitive);
    let (output, saved) = operation.forward(inputs);
    let step = Step::<O, N>(PhantomData);
    match step.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(tracked) => tracked.finish(saved, output),
        OpsKind::UnTracked(untracked) => untracked.finish(output),
    }
}

/// The backward pass of an operation, as Burn's autodiff calls it.
#[derive(Debug)]
struct Step<O, const N: usize>(PhantomData<O>);

impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Step<O, N> {
    type State = O::Saved;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let new = O::backward(ops.state, gradient, wanted);
        for (parent, new) in ops.parents.into_iter().zip(new) {
            if let (Some(parent), Some(new)) = (parent, new) {
                gradients.register::<Flex>(parent.id, new);
            }
        }
    }
}

/// Returns the tensor off the tape if there are kernels for it.
pub(super) fn plain<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    if tensor.dtype() != DType::F32 || !host::is_cpu(&tensor.device()) {
        return None;
    }
    tensor.clone().inner().try_into_primitive::<Flex>().ok()
}

/// Returns a tensor off the tape.
pub(super) fn off_tape<const D: usize>(tensor: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(tensor)
}

/// Returns the tensor in contiguous memory.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

/// Returns the numbers of a tensor that is contiguous; see [`contiguous`].
pub(super) fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("made contiguous before")
}

/// Returns a matrix view with the strides of the tensor, without a copy.
pub(super) fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
    let layout = tensor.layout();
    let [rows, columns] = layout.shape().dims();
    let strides = [layout.strides()[0] as usize, layout.strides()[1] as usize];
    let data = &tensor.storage::<f32>()[layout.start_offset()..];
    Matrix::strided(data, [rows, columns], strides)
}

/// Returns a contiguous tensor as a matrix whose rows are its last dimension.
pub(super) fn rows(tensor: &FlexTensor) -> Matrix<'_> {
    let shape = tensor.layout().shape();
    let columns = shape[shape.num_dims() - 1];
    let data = floats(tensor);
    Matrix::new(data, data.len() / columns.max(1), columns)
}

/// Returns a tensor with these numbers, row-major.
pub(super) fn tensor(numbers: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let layout = Layout::contiguous(shape.into());
    FlexTensor::new(Bytes::from_elems(numbers), layout, DType::F32)
}
