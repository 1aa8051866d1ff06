//! Tests of the gradients of a policy.

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;

use super::reader::{Check, broken, tolerance};
use crate::policy::forward_pass::PrefixedBatch;
use crate::policy::gradients::{on_tape_of, require_gradients};
use crate::policy::log_probs::{as_dtype, is_half};
use crate::policy::{PolicyModel, TokenBatch};
use crate::{Error, Result, random};

const PROMISE: &str = "everything is differentiable, the cache included";

/// The tolerance of central differences, relative to the gradient.
const DIFFERENCE: f64 = 0.03;

/// Checks the gradients of a model on the gradient tape: with and without a cache, and against
/// central differences.
pub(super) fn check<M: PolicyModel>(check: &Check<M>) -> Result<()> {
    if require_gradients(&check.model, "policy").is_err() {
        return Ok(());
    }
    let (cached, rows) = check.prompts()?;
    let starts: Vec<usize> = rows
        .iter()
        .zip(&cached.rows.lengths)
        .map(|(row, read)| row.len() - read)
        .collect();
    let whole = PrefixedBatch::from(TokenBatch::from_rows(&rows, &check.device)?);
    let loss = Loss::new(check, &rows, starts);
    let want = loss.gradients(&check.model, &whole, true)?;
    through_the_cache(check, &want, &loss.gradients(&check.model, &cached, false)?)?;
    if is_half(check.dtype) {
        return Ok(());
    }
    for (index, gradient) in want
        .iter()
        .enumerate()
        .filter(|(_, gradient)| gradient.trained)
    {
        differences(check, &loss, &whole, index, gradient)?;
    }
    Ok(())
}

fn through_the_cache<M: PolicyModel>(
    check: &Check<M>,
    want: &[Gradient],
    got: &[Gradient],
) -> Result<()> {
    let within = tolerance(check.dtype).1;
    let largest = |values: &[f64]| values.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let all = want
        .iter()
        .map(|one| largest(&one.values))
        .fold(0.0, f64::max);
    for (want, got) in want.iter().zip(got) {
        // Some gradients are 0 up to rounding, such as that of the bias of the keys.
        let within = within * largest(&want.values).max(0.01 * all);
        for (at, (want_at, got_at)) in want.values.iter().zip(&got.values).enumerate() {
            if (want_at - got_at).abs() > within || !(want_at + got_at).is_finite() {
                let place = format!("gradient of `{}`, number {at}", want.name);
                let values = format!(
                    "{got_at:.6} where prompts are shared, but {want_at:.6} through whole rows"
                );
                return Err(broken(
                    PROMISE,
                    format!("{place}: {values}; they may differ by {within:.1e}"),
                ));
            }
        }
    }
    Ok(())
}

/// Compares the gradient of a parameter with a central difference.
fn differences<M: PolicyModel>(
    check: &Check<M>,
    loss: &Loss,
    batch: &PrefixedBatch,
    index: usize,
    gradient: &Gradient,
) -> Result<()> {
    let signs: Vec<f64> = signs(gradient.values.len(), index as u64 + 2);
    let mut moved = [0.0; 2];
    for (moved, sign) in moved.iter_mut().zip([1.0, -1.0]) {
        let step = sign * gradient.step;
        let mut mapper = Move {
            index,
            step,
            signs: &signs,
            seen: 0,
        };
        *moved = loss.value(&check.model.clone().map(&mut mapper), batch)?;
    }
    let difference = (moved[0] - moved[1]) / 2.0;
    let expected = gradient
        .values
        .iter()
        .zip(&signs)
        .map(|(g, s)| g * s)
        .sum::<f64>()
        * gradient.step;
    let norm = gradient.values.iter().map(|g| g * g).sum::<f64>().sqrt() * gradient.step;
    let within = DIFFERENCE * norm.max(difference.abs()) + loss.rounding(check.dtype, &moved);
    if (difference - expected).abs() <= within {
        return Ok(());
    }
    let values = format!(
        "the loss changes by {difference:.6} along a direction, by its gradient {expected:.6}"
    );
    let place = format!("parameter `{}`", gradient.name);
    Err(broken(
        PROMISE,
        format!("{place}: {values}; they may differ by {within:.1e}"),
    ))
}

fn signs(count: usize, stream: u64) -> Vec<f64> {
    let mut rng = random::generator(&[stream]);
    (0..count)
        .map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 })
        .collect()
}

/// A sum of hidden states and of the unembedding with random signs, without the hidden states of
/// the prompt of each row.
struct Loss {
    starts: Vec<usize>,
    lengths: Vec<usize>,
    /// By row, token and component.
    hidden: Vec<Vec<Vec<f64>>>,
    unembedding: Vec<f64>,
}

impl Loss {
    fn new<M: PolicyModel>(check: &Check<M>, rows: &[Vec<u32>], starts: Vec<usize>) -> Self {
        let [depth, vocabulary] = check.model.unembedding().dims();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let signs_of = |row: usize| {
            let all = signs(longest * depth, 1 << 32 | row as u64);
            all.chunks_exact(depth).map(<[f64]>::to_vec).collect()
        };
        Self {
            starts,
            lengths: rows.iter().map(Vec::len).collect(),
            hidden: (0..rows.len()).map(signs_of).collect(),
            unembedding: signs(depth * vocabulary, 1),
        }
    }

    /// Returns the value for `model`, in f64.
    fn value<M: PolicyModel>(&self, model: &M, batch: &PrefixedBatch) -> Result<f64> {
        let hidden = model.forward_pass(batch)?.hidden;
        let [_, width, size] = hidden.dims();
        let read = |reason| Error::device("hidden states", reason);
        let hidden = hidden.inner().try_into_vec_as::<f64>().map_err(read)?;
        let matrix = model
            .unembedding()
            .inner()
            .try_into_vec_as::<f64>()
            .map_err(read)?;
        let mut sum: f64 = matrix
            .iter()
            .zip(&self.unembedding)
            .map(|(x, w)| x * w)
            .sum();
        for (row, &length) in self.lengths.iter().enumerate() {
            for token in self.starts[row]..length {
                let state = &hidden[(row * width + token) * size..][..size];
                sum += state
                    .iter()
                    .zip(&self.hidden[row][token])
                    .map(|(x, w)| x * w)
                    .sum::<f64>();
            }
        }
        Ok(sum)
    }

    /// The tolerance for rounding in the difference of two values.
    fn rounding(&self, dtype: burn::tensor::DType, values: &[f64; 2]) -> f64 {
        let terms = self.lengths.iter().sum::<usize>() * self.hidden[0].first().map_or(1, Vec::len);
        0.1 * tolerance(dtype).0 * (terms as f64).sqrt().max(values[0].abs()).min(1e3)
    }

    /// Returns the gradients in the model's order. `whole` means that the batch has no prefixes.
    fn gradients<M: PolicyModel>(
        &self,
        model: &M,
        batch: &PrefixedBatch,
        whole: bool,
    ) -> Result<Vec<Gradient>> {
        let pass = model.forward_pass(batch)?;
        let [rows, width, size] = pass.hidden.dims();
        let mut weights = vec![0f32; rows * width * size];
        for (row, &length) in self.lengths.iter().enumerate() {
            let skipped = if whole { 0 } else { self.starts[row] };
            for token in self.starts[row]..length {
                let at = (row * width + token - skipped) * size;
                let signs = self.hidden[row][token].iter().map(|&sign| sign as f32);
                for (weight, sign) in weights[at..at + size].iter_mut().zip(signs) {
                    *weight = sign;
                }
            }
        }
        let plain: Device = pass.hidden.clone().inner().device();
        let to_hidden =
            Tensor::<3>::from_data(TensorData::new(weights, [rows, width, size]), &plain);
        let to_hidden = as_dtype(to_hidden, pass.hidden.dtype());
        let matrix = model.unembedding();
        let signs: Vec<f32> = self.unembedding.iter().map(|&sign| sign as f32).collect();
        let weights = TensorData::new(signs, matrix.dims());
        let unembedding = matrix.is_tracked().then(|| {
            let weights = Tensor::<2>::from_data(weights, &plain);
            (matrix.clone(), as_dtype(weights, matrix.dtype()))
        });
        let gradients = pass.backward(to_hidden, unembedding, model)?;
        let mut read = Read {
            gradients,
            path: Vec::new(),
            found: Ok(Vec::new()),
        };
        model.visit(&mut read);
        read.found
    }
}

/// The gradient of a parameter.
struct Gradient {
    name: String,
    trained: bool,
    values: Vec<f64>,
    /// The step of the central difference: 1 % of the root mean square of the parameter, or of 0.1
    /// if that is more.
    step: f64,
}

struct Read {
    gradients: GradientsParams,
    path: Vec<String>,
    found: Result<Vec<Gradient>>,
}

impl ModuleVisitor for Read {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Ok(found) = &mut self.found else { return };
        let name = self.path.join(".");
        let value = param.val();
        let trained = value.is_require_grad();
        let count = value.shape().num_elements();
        let gradient = self.gradients.remove::<D>(param.id);
        let read = |tensor: Tensor<D>| tensor.try_into_vec_as::<f64>();
        let numbers = gradient.map_or_else(|| Ok(vec![0.0; count]), read);
        match numbers.and_then(|values| Ok((values, read(value.inner())?))) {
            Ok((values, own)) => {
                let square = own.iter().map(|x| x * x).sum::<f64>() / count.max(1) as f64;
                let step = 0.01 * square.sqrt().max(0.1);
                found.push(Gradient {
                    name,
                    trained,
                    values,
                    step,
                });
            }
            Err(reason) => self.found = Err(Error::device(name, reason)),
        }
    }
}

/// Adds `step` times its sign to each element of one parameter.
struct Move<'a> {
    index: usize,
    step: f64,
    signs: &'a [f64],
    seen: usize,
}

impl ModuleMapper for Move<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seen += 1;
        if self.seen != self.index + 1 {
            return param;
        }
        param.map(|value| {
            let plain = value.clone().inner();
            let signs = self.signs.iter();
            let moves: Vec<f32> = signs.map(|sign| (sign * self.step) as f32).collect();
            let moves =
                Tensor::<D>::from_data(TensorData::new(moves, plain.dims()), &plain.device());
            let moved = plain.clone() + as_dtype(moves, plain.dtype());
            on_tape_of(moved, &value).set_require_grad(true)
        })
    }
}
