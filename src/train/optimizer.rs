//! AdamW with clipping by the global gradient norm.
//!
//! Burn's optimizers clip each tensor by its own norm, and restore their state on the process's
//! default device by parameter ids. This one clips by the norm of the whole gradient and stores its
//! moments by the structure of the model, so a checkpoint can be loaded on any device of a build.

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
    /// The learning rate as a function of the update.
    pub schedule: Schedule,
    /// Decay of the first moment, in [0, 1). Default 0.9.
    pub beta_1: f64,
    /// Decay of the second moment, in [0, 1). Default 0.999.
    pub beta_2: f64,
    /// Added to the square root of the second moment. Default 1e-8.
    pub epsilon: f64,
    /// Decoupled weight decay of matrices, per unit of learning rate; norms and biases do not
    /// decay. Default 0.
    pub weight_decay: f64,
    /// The largest L2 norm of the whole gradient; a longer gradient is scaled down to it. `None`
    /// for no clipping. Default 1.
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
    /// Returns the default settings with a learning-rate schedule.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            ..Self::default()
        }
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
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

/// The report of one optimizer update.
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
/// Half-precision parameters (f16, bf16) have f32 moments and an f32 master copy, which is updated
/// and then rounded into them: most updates are too small to be added in half precision.
///
/// With several learners, each may hold a part of the state; see
/// [`TrainerConfig::sharded_optimizer`](super::TrainerConfig::sharded_optimizer).
#[derive(Debug, Default)]
pub struct Optimizer {
    config: OptimizerConfig,
    updates: u64,
    pub(super) state: State,
}

/// The optimizer state of each trained parameter.
#[derive(Debug, Default)]
pub(super) struct State {
    pub first: GradientsParams,
    pub second: GradientsParams,
    /// The f32 master copies of half-precision parameters.
    pub master: GradientsParams,
}

impl State {
    /// Returns the parts of the state, each with the suffix of its checkpoint file.
    pub fn images(&mut self) -> [(&'static str, &mut GradientsParams); 3] {
        [
            ("m", &mut self.first),
            ("v", &mut self.second),
            (MASTERS, &mut self.master),
        ]
    }
}

/// The suffix of the master copies, which exist for half-precision parameters only.
const MASTERS: &str = "w";

impl Optimizer {
    /// Creates an optimizer.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid.
    pub fn new(config: OptimizerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            ..Self::default()
        })
    }

    /// Returns the number of updates made; updates with a zero gradient do not count.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Updates `model` with `gradients`. A parameter without a gradient does not change. If all
    /// gradients are missing or zero, nothing changes and the update is not counted: neither the
    /// schedule nor the bias correction advances.
    ///
    /// # Errors
    /// Returns [`Error::NonFinite`] if the norm of the gradient is not finite. The model and the
    /// optimizer are then unchanged.
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

    /// Counts an update with this gradient norm and returns its coefficients; `None` if the
    /// gradient is zero.
    ///
    /// # Errors
    /// Returns an error if the norm is not finite.
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
            // Bias correction: the moments start at zero.
            corrections: [beta_1, beta_2].map(|beta| 1.0 - beta.powf(self.updates as f64)),
        };
        Ok((report, Some(numbers)))
    }

    /// Updates `model` with `gradients`.
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

    /// Returns the weight decay of a parameter with `dimensions` dimensions: 0 for norms and
    /// biases.
    pub(super) fn decay(&self, dimensions: usize) -> f64 {
        decay(self.config.weight_decay, dimensions)
    }

    /// Writes the moments into `folder` as `{name}.m.bpk` and `{name}.v.bpk`, and the master copies
    /// of half-precision parameters, if any, as `{name}.w.bpk`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
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

    /// Loads the files that [`save`](Self::save) wrote for a model of the same structure after
    /// `updates` updates.
    ///
    /// # Errors
    /// Returns an error if a file is missing or does not fit the model.
    pub fn load<M: Module>(
        &mut self,
        model: &M,
        folder: &Path,
        name: &str,
        updates: u64,
    ) -> Result<()> {
        self.load_parts(model, folder, name, updates, |_, values| values)
    }

    /// [`load`](Self::load) for a part of the state. `part` selects from a parameter's values,
    /// given their positions among the values of all trained parameters.
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

/// Writes the complete `moments` as the file `suffix` of `model`.
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
    // Moments have the structure of the model, so they are saved as a model.
    let image = model.valid().map(&mut WithMoments {
        moments,
        trained: &trained,
        masters,
    });
    trained.save(image, &path)
}

/// Returns the global gradient norm: `sqrt(sum of g^2)` over all parameters, with one read from the
/// device.
///
/// # Errors
/// Returns an error if the norm cannot be read from the device.
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
    /// The sum over parameters whose sums are already on the host.
    known: f64,
    /// The sums of the other parameters, on the device.
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

/// Replaces the trained parameters of a model by their moments.
struct WithMoments<'a> {
    moments: &'a GradientsParams,
    trained: &'a Trained,
    /// Whether these are master copies, whose initial value is the weight; moments start at zero.
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

/// The trained parameters of a module in visiting order.
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

/// Registers values, in visiting order, as the moments of the trained parameters.
struct FillMoments<'a, P> {
    trained: &'a Trained,
    values: std::vec::IntoIter<TensorData>,
    moments: &'a mut GradientsParams,
    /// The number of values before this parameter.
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
