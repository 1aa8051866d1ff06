//! AdamW with clipping by the global gradient norm.
//!
//! burn's optimizers clip each tensor by its own norm, and restore their state on the process's default
//! device and by parameter ids; this one clips by the norm of the whole gradient and keeps its moments by the
//! model's own structure and device, so that a checkpoint can be read on any device of a build.

use std::ops::Range;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use super::trained::Trained;
use crate::fused::{AdamW, sum_of_squares};
use crate::host;
use crate::policy::{in_f32, is_half, on_tape_of};
use crate::{Error, Result};

/// The settings of [`Optimizer`].
#[doc(alias("AdamWConfig", "GradientClippingConfig"))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The learning rate over the updates.
    pub schedule: Schedule,
    /// Decay of the first moment, in [0, 1). Default 0.9.
    pub beta_1: f64,
    /// Decay of the second moment, in [0, 1). Default 0.999.
    pub beta_2: f64,
    /// Added to the root of the second moment. Default 1e-8.
    pub epsilon: f64,
    /// Decoupled decay of matrices, per unit of learning rate; norms and biases are left alone. Default 0.
    pub weight_decay: f64,
    /// The gradient of the whole model is scaled down to this norm if it is longer. Default 1.
    pub max_grad_norm: Option<f64>,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            schedule: Schedule::default(),
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: Some(1.0),
        }
    }
}

impl OptimizerConfig {
    /// The defaults with a learning-rate schedule.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            ..Self::default()
        }
    }

    /// Rejects invalid settings, naming field, value and range.
    pub fn validate(&self) -> Result<()> {
        self.schedule.validate()?;
        for (field, beta) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::config(
                    format!("optimizer.{field}"),
                    beta,
                    "a decay in [0, 1)",
                ));
            }
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return Err(Error::config(
                "optimizer.epsilon",
                self.epsilon,
                "a finite number above 0",
            ));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(Error::config(
                "optimizer.weight_decay",
                self.weight_decay,
                "a finite number of at least 0",
            ));
        }
        match self.max_grad_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => Err(Error::config(
                "optimizer.max_grad_norm",
                norm,
                "a finite number above 0, or none",
            )),
            _ => Ok(()),
        }
    }
}

/// What one update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateReport {
    /// L2 norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
}

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over a whole module.
///
/// ```text
/// g <- g * min(1, max_grad_norm / |g|)          |g| over all parameters together
/// m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
/// w <- w - lr * (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay * w)
/// ```
///
/// Parameters in half precision (f16, bf16) have f32 moments and an f32 copy that is updated in their place and rounded into
/// them: most updates are smaller than what half precision can add.
///
/// Of several learners each may hold a part of the state; see
/// [`TrainerConfig::sharded_optimizer`](super::TrainerConfig::sharded_optimizer).
#[derive(Debug, Default)]
pub struct Optimizer {
    config: OptimizerConfig,
    updates: u64,
    pub(super) state: State,
}

/// What an optimizer knows of each trained parameter.
#[derive(Debug, Default)]
pub(super) struct State {
    pub first: GradientsParams,
    pub second: GradientsParams,
    /// Of parameters in half precision, what they are the rounded value of.
    pub master: GradientsParams,
}

impl State {
    /// The images of the model that a checkpoint holds beside its weights, by the ends of their names.
    pub fn images(&mut self) -> [(&'static str, &mut GradientsParams); 3] {
        [
            ("m", &mut self.first),
            ("v", &mut self.second),
            (MASTERS, &mut self.master),
        ]
    }
}

/// The image that is there only if there are parameters in half precision.
const MASTERS: &str = "w";

impl Optimizer {
    /// An optimizer that has made no update.
    ///
    /// # Errors
    /// If the configuration is refused.
    pub fn new(config: OptimizerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            ..Self::default()
        })
    }

    /// The number of updates that moved the model.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moves `model` along `gradients`. A parameter without a gradient stays as it is. If no parameter has a gradient, or all of them
    /// are zero, nothing changes and the update is not counted: neither the schedule nor the bias correction advances.
    ///
    /// # Errors
    /// If the gradient's norm is not finite; the model and the optimizer are left as they were.
    pub fn step<M: Module>(
        &mut self,
        model: &mut M,
        gradients: GradientsParams,
    ) -> Result<UpdateReport> {
        let Some(device) = model.devices().into_iter().next() else {
            return self.update(model, gradients); // no parameters
        };
        host::on_pool(&device, (self, model), |(optimizer, model)| {
            optimizer.update(model, gradients)
        })
    }

    fn update<M: Module>(
        &mut self,
        model: &mut M,
        gradients: GradientsParams,
    ) -> Result<UpdateReport> {
        let grad_norm = global_norm(&gradients, model)?;
        let (report, numbers) = self.begin(grad_norm)?;
        if let Some(numbers) = numbers {
            self.move_along(model, gradients, numbers);
        }
        Ok(report)
    }

    /// Counts an update along a gradient of this norm and gives its numbers; none if the gradient is zero.
    ///
    /// # Errors
    /// If the norm is not finite.
    pub(super) fn begin(&mut self, grad_norm: f64) -> Result<(UpdateReport, Option<AdamW>)> {
        if !grad_norm.is_finite() {
            return Err(Error::NonFinite {
                what: "the gradient norm".into(),
                value: grad_norm,
                step: self.updates,
                advice: "lower the learning rate, or look for log-probs of -inf in the batch"
                    .into(),
            });
        }
        let learning_rate = self.config.schedule.rate(self.updates);
        let report = UpdateReport {
            grad_norm,
            learning_rate,
        };
        if grad_norm == 0.0 {
            return Ok((report, None));
        }
        let scale = match self.config.max_grad_norm {
            Some(max) if grad_norm > max => max / grad_norm,
            _ => 1.0,
        };
        self.updates += 1;
        let (beta_1, beta_2) = (self.config.beta_1, self.config.beta_2);
        let numbers = AdamW {
            beta_1,
            beta_2,
            epsilon: self.config.epsilon,
            learning_rate,
            scale,
            // Powers of the decays by the number of updates: the moments start at zero.
            corrections: [beta_1, beta_2].map(|beta| 1.0 - beta.powf(self.updates as f64)),
        };
        Ok((report, Some(numbers)))
    }

    /// Moves `model` along `gradients`.
    pub(super) fn move_along<M: Module>(
        &mut self,
        model: &mut M,
        gradients: GradientsParams,
        numbers: AdamW,
    ) {
        let mut update = Update {
            decay: self.config.weight_decay,
            numbers,
            gradients,
            state: &mut self.state,
        };
        *model = model.clone().map(&mut update);
    }

    /// The decay of a parameter of `dimensions` dimensions: of matrices, not of norms and biases.
    pub(super) fn decay(&self, dimensions: usize) -> f64 {
        decay(self.config.weight_decay, dimensions)
    }

    /// Writes the moments under `folder` as `{name}.m.bpk` and `{name}.v.bpk`; and `{name}.w.bpk`, if there are parameters in half
    /// precision.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save<M: Module>(&self, model: &M, folder: &Path, name: &str) -> Result<()> {
        let State {
            first,
            second,
            master,
        } = &self.state;
        save_image(model, first, "m", folder, name)?;
        save_image(model, second, "v", folder, name)?;
        save_image(model, master, MASTERS, folder, name)
    }

    /// Reads what [`save`](Self::save) wrote for a model of the same structure, after `updates` updates.
    ///
    /// # Errors
    /// If a file is missing or does not fit the model.
    pub fn load<M: Module>(
        &mut self,
        model: &M,
        folder: &Path,
        name: &str,
        updates: u64,
    ) -> Result<()> {
        self.load_parts(model, folder, name, updates, |_, values| values)
    }

    /// The same of a part of the state: `part` gives that of a parameter's values, with their positions among those of all trained
    /// parameters.
    pub(super) fn load_parts<M: Module>(
        &mut self,
        model: &M,
        folder: &Path,
        name: &str,
        updates: u64,
        part: impl Fn(Range<usize>, TensorData) -> TensorData,
    ) -> Result<()> {
        self.updates = updates;
        let trained = Trained::of(model);
        for (suffix, moments) in self.state.images() {
            let path = folder.join(format!("{name}.{suffix}.bpk"));
            *moments = GradientsParams::new();
            if suffix == MASTERS && !path.exists() {
                continue;
            }
            let mut values = Values {
                trained: trained.flags.iter(),
                values: Vec::new(),
            };
            trained
                .load_as_written(model.valid(), &path)?
                .visit(&mut values);
            model.visit(&mut FillMoments {
                trained: &trained,
                values: values.values.into_iter(),
                moments,
                offset: 0,
                part: &part,
            });
        }
        Ok(())
    }
}

fn decay(decay: f64, dimensions: usize) -> f64 {
    if dimensions >= 2 { decay } else { 0.0 }
}

/// Writes `moments`, whole, as the image `suffix` of `model`.
pub(super) fn save_image<M: Module>(
    model: &M,
    moments: &GradientsParams,
    suffix: &str,
    folder: &Path,
    name: &str,
) -> Result<()> {
    let masters = suffix == MASTERS;
    if masters && moments.is_empty() {
        return Ok(());
    }
    let trained = Trained::of(model);
    let path = folder.join(format!("{name}.{suffix}.bpk"));
    // The moments of a model have the shape of the model: they are saved as one.
    let image = model.valid().map(&mut WithMoments {
        moments,
        trained: &trained,
        masters,
    });
    trained.save(image, &path)
}

/// `sqrt(sum of g^2)` over all parameters, with one read from the device.
///
/// # Errors
/// If the device cannot give the norm back.
pub fn global_norm<M: Module>(gradients: &GradientsParams, model: &M) -> Result<f64> {
    let mut squares = Squares {
        gradients,
        known: 0.0,
        sums: Vec::new(),
    };
    model.visit(&mut squares);
    let mut sum = squares.known;
    if !squares.sums.is_empty() {
        let sums = host::floats(Tensor::cat(squares.sums, 0), "gradient norm")?;
        sum += sums.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(sum.sqrt())
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    /// The sum over parameters that were computed at once.
    known: f64,
    /// Those of the other parameters.
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            match sum_of_squares(in_f32(gradient)) {
                Ok(sum) => self.known += sum,
                Err(sum) => self.sums.push(*sum),
            }
        }
    }
}

struct Update<'a> {
    decay: f64,
    numbers: AdamW,
    gradients: GradientsParams,
    state: &'a mut State,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(gradient) = self.gradients.remove::<D>(id) else {
            return param;
        };
        let gradient = in_f32(gradient);
        let decay = decay(self.decay, D);
        let state = &mut *self.state;
        param.map(|weight| {
            let tracked = weight.is_require_grad();
            let dtype = weight.dtype();
            let rounded = is_half(dtype);
            let old = match state.master.remove(id) {
                Some(master) if rounded => master,
                _ => in_f32(weight.clone().inner()),
            };
            let moments = [state.first.remove(id), state.second.remove(id)];
            let (mut moved, [first, second]) = self.numbers.step(old, gradient, moments, decay);
            state.first.register(id, first);
            state.second.register(id, second);
            if rounded {
                state.master.register(id, moved.clone());
                moved = moved.cast(dtype);
            }
            on_tape_of(moved, &weight).set_require_grad(tracked)
        })
    }
}

/// A model whose trained parameters are its moments.
struct WithMoments<'a> {
    moments: &'a GradientsParams,
    trained: &'a Trained,
    /// They are f32 copies of the weights: where there is none yet, it is the weight. Moments begin at zero.
    masters: bool,
}

impl ModuleMapper for WithMoments<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.trained.contains(param.id) {
            return param;
        }
        let known = self.moments.get::<D>(param.id);
        let masters = self.masters;
        param.map(|weight| match known {
            Some(known) => known,
            None if masters => in_f32(weight),
            None => in_f32(weight.zeros_like()),
        })
    }
}

/// The trained parameters of a module in its own order.
struct Values<'a> {
    trained: std::slice::Iter<'a, bool>,
    values: Vec<TensorData>,
}

impl ModuleVisitor for Values<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.trained.next() == Some(&true) {
            self.values.push(param.val().into_data());
        }
    }
}

/// Registers values, in the module's order, as the moments of its trained parameters.
struct FillMoments<'a, P> {
    trained: &'a Trained,
    values: std::vec::IntoIter<TensorData>,
    moments: &'a mut GradientsParams,
    /// The numbers of the parameters before this one.
    offset: usize,
    part: &'a P,
}

impl<P: Fn(Range<usize>, TensorData) -> TensorData> ModuleVisitor for FillMoments<'_, P> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.trained.contains(param.id)
            && let Some(value) = self.values.next()
        {
            let device = param.val().inner().device();
            let place = self.offset..self.offset + value.num_elements();
            self.offset = place.end;
            let part = (self.part)(place, value);
            match part.rank() {
                _ if part.num_elements() == 0 => {}
                1 => self
                    .moments
                    .register(param.id, Tensor::<1>::from_data(part, &device)),
                _ => self
                    .moments
                    .register(param.id, Tensor::<D>::from_data(part, &device)),
            }
        }
    }
}
