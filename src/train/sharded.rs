//! The optimizer's update in a step of several shards: one learner's part of it, and of the optimizer's state (ZeRO-1).
//!
//! The trained parameters are one vector in the order in which the model visits them, and each learner owns one slice of it.

use std::ops::Range;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::gradients::{Flat, reduce_scatter, unflatten};
use super::learners::{LearnerGroup, slice};
use super::optimizer::{Optimizer, State, UpdateReport, save_image};
use crate::fused::AdamW;
use crate::policy::{in_f32, is_half, on_tape_of};
use crate::{Error, Result, host};

impl Optimizer {
    /// [`step`](Self::step) along the sum of what all learners have of the gradients.
    ///
    /// # Errors
    /// As `step`; also if a learner is gone.
    pub(super) fn step_together<M: Module>(
        &mut self,
        group: &LearnerGroup,
        model: &mut M,
        mine: Flat,
    ) -> Result<UpdateReport> {
        let Flat {
            mut numbers,
            present,
        } = mine;
        let total = numbers.len();
        let own = slice(total, group.rank(), group.size());
        if group.all_reduce {
            group.learners().sum(&mut numbers)?;
            numbers = numbers[own.clone()].to_vec();
        } else if group.several() {
            numbers = reduce_scatter(group, numbers)?;
        }
        let squares = group.own_shards().map(|shard| {
            let shard = slice(total, shard, group.shards());
            sum_of_squares(&numbers[shard.start - own.start..shard.end - own.start])
        });
        let squares = group.gather_numbers("norm of the gradient", Ok(squares.collect()))?;
        let norm = squares.iter().flatten().sum::<f64>().sqrt();
        let (report, update) = self.begin(norm)?;
        let Some(update) = update else {
            return Ok(report);
        };
        if group.divides_state() {
            let mut moving = MovePart {
                optimizer: self,
                update,
                gradient: &numbers,
                moved: vec![0.0; numbers.len()],
                own,
                place: 0,
                present: present.iter(),
                result: Ok(()),
            };
            model.visit(&mut moving);
            moving.result?;
            let moved = moving.moved;
            drop(numbers);
            let moved = group.learners().concat(moved)?;
            *model = model.clone().map(&mut SetWeights {
                weights: &moved,
                present: present.iter(),
            });
        } else {
            let numbers = group.learners().concat(numbers)?;
            let gradients = unflatten(model, &numbers, &present);
            drop(numbers);
            self.move_along(model, gradients, update);
        }
        Ok(report)
    }

    /// [`save`](Self::save) by the first learner, with what the others hold. All of them must call it.
    ///
    /// # Errors
    /// If a file cannot be written or a learner is gone.
    pub(super) fn save_together<M: Module>(
        &mut self,
        group: &LearnerGroup,
        model: &M,
        folder: &Path,
        name: &str,
    ) -> Result<()> {
        if !group.divides_state() {
            return match group.is_first() {
                true => self.save(model, folder, name),
                false => Ok(()),
            };
        }
        for (suffix, part) in self.state.images() {
            let mut joining = Join {
                group,
                part,
                whole: GradientsParams::new(),
                result: Ok(()),
            };
            model.visit(&mut joining);
            joining.result?;
            if group.is_first() {
                save_image(model, &joining.whole, suffix, folder, name)?;
            }
        }
        Ok(())
    }

    /// The bytes of the state that this learner holds.
    pub(super) fn state_bytes<M: Module>(&self, group: &LearnerGroup, model: &M) -> usize {
        let State {
            first,
            second,
            master,
        } = &self.state;
        let numbers = [first, second, master].map(|moments| {
            let mut bytes = Bytes {
                moments,
                divided: group.divides_state(),
                numbers: 0,
            };
            model.visit(&mut bytes);
            bytes.numbers
        });
        numbers.iter().sum::<usize>() * size_of::<f32>()
    }

    /// [`load`](Self::load) of this learner's part.
    ///
    /// # Errors
    /// As `load`.
    pub(super) fn load_together<M: Module>(
        &mut self,
        group: &LearnerGroup,
        model: &M,
        folder: &Path,
        name: &str,
        updates: u64,
    ) -> Result<()> {
        if !group.divides_state() {
            return self.load(model, folder, name, updates);
        }
        let own = slice(count(model), group.rank(), group.size());
        self.load_parts(model, folder, name, updates, |place, values| {
            let part = overlap(&place, &own);
            let inside = part.start - place.start..part.end - place.start;
            let numbers = values.iter::<f32>().skip(inside.start).take(inside.len());
            let numbers: Vec<f32> = numbers.collect();
            let length = numbers.len();
            TensorData::new(numbers, [length])
        })
    }
}

struct Bytes<'a> {
    moments: &'a GradientsParams,
    divided: bool,
    numbers: usize,
}

impl ModuleVisitor for Bytes<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (id, moments) = (param.id, self.moments);
        let dims = match self.divided {
            true => moments.get::<1>(id).map(|part| part.dims().to_vec()),
            false => moments.get::<D>(id).map(|whole| whole.dims().to_vec()),
        };
        self.numbers += dims.map_or(0, |dims| dims.iter().product());
    }
}

impl LearnerGroup {
    /// Whether each learner holds a part of the optimizer's state.
    fn divides_state(&self) -> bool {
        self.sharded_optimizer && self.several()
    }
}

/// The numbers of all trained parameters.
fn count<M: Module>(model: &M) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let weight = param.val();
            if weight.is_require_grad() {
                self.0 += weight.dims().iter().product::<usize>();
            }
        }
    }
    let mut count = Count(0);
    model.visit(&mut count);
    count.0
}

/// What two ranges have in common; empty, within the first, if that is nothing.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = b.start.clamp(a.start, a.end);
    start..b.end.clamp(start, a.end)
}

/// The sum of squares, by blocks, in f64.
fn sum_of_squares(numbers: &[f32]) -> f64 {
    let block = |block: &[f32]| block.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let blocks: Vec<f64> = numbers.par_chunks(1 << 16).map(block).collect();
    blocks.iter().sum()
}

/// Moves the weights of this learner's slice, and with them its part of the state.
struct MovePart<'a> {
    optimizer: &'a mut Optimizer,
    update: AdamW,
    gradient: &'a [f32],
    moved: Vec<f32>,
    own: Range<usize>,
    /// The numbers of the parameters before this one.
    place: usize,
    present: std::slice::Iter<'a, bool>,
    result: Result<()>,
}

impl ModuleVisitor for MovePart<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if !weight.is_require_grad() {
            return;
        }
        let count: usize = weight.dims().iter().product();
        let place = self.place..self.place + count;
        self.place = place.end;
        let part = overlap(&place, &self.own);
        if self.present.next() != Some(&true) || part.is_empty() {
            return;
        }
        let id = param.id;
        let rounded = is_half(weight.dtype());
        let weight = weight.inner();
        let device = weight.device();
        let own = part.start - self.own.start..part.end - self.own.start;
        let gradient = TensorData::new(self.gradient[own.clone()].to_vec(), [part.len()]);
        let gradient = Tensor::<1>::from_data(gradient, &device);
        let decay = self.optimizer.decay(D);
        let State {
            first,
            second,
            master,
        } = &mut self.optimizer.state;
        let old = match master.remove::<1>(id) {
            Some(master) if rounded => master,
            _ => {
                let flat = weight.reshape([count]);
                in_f32(flat.narrow(0, part.start - place.start, part.len()))
            }
        };
        let moments = [first.remove::<1>(id), second.remove::<1>(id)];
        let (moved, [new_first, new_second]) = self.update.step(old, gradient, moments, decay);
        first.register(id, new_first);
        second.register(id, new_second);
        if rounded {
            master.register(id, moved.clone());
        }
        match host::floats(moved, "moved weights") {
            Ok(moved) => self.moved[own].copy_from_slice(&moved),
            Err(error) => self.result = Err(error),
        }
    }
}

/// Sets the weights of the parameters that are present.
struct SetWeights<'a> {
    weights: &'a [f32],
    present: std::slice::Iter<'a, bool>,
}

impl ModuleMapper for SetWeights<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let weight = param.val();
        if !weight.is_require_grad() {
            return param;
        }
        let count: usize = weight.dims().iter().product();
        let (own, rest) = self.weights.split_at(count.min(self.weights.len()));
        self.weights = rest;
        if self.present.next() != Some(&true) {
            return param;
        }
        param.map(|weight| {
            let dtype = weight.dtype();
            let data = TensorData::new(own.to_vec(), weight.dims());
            let moved = Tensor::<D>::from_data(data, &weight.clone().inner().device());
            let moved = match is_half(dtype) {
                true => moved.cast(dtype),
                false => moved,
            };
            on_tape_of(moved, &weight).set_require_grad(true)
        })
    }
}

/// Puts the parts of the learners together, parameter by parameter, on the first of them.
struct Join<'a> {
    group: &'a LearnerGroup,
    part: &'a GradientsParams,
    whole: GradientsParams,
    result: Result<()>,
}

impl ModuleVisitor for Join<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if !weight.is_require_grad() || self.result.is_err() {
            return;
        }
        let part = self.part.get::<1>(param.id);
        let part = part.map_or(Ok(Vec::new()), |part| host::floats(part, "moments"));
        let whole = part.and_then(|part| self.group.learners().concat(part));
        match whole {
            Err(error) => self.result = Err(error),
            Ok(whole) if whole.is_empty() || !self.group.is_first() => {}
            Ok(whole) => {
                let dims = weight.dims();
                let count: usize = dims.iter().product();
                if whole.len() != count {
                    self.result = Err(Error::shape("moments of all learners", whole.len(), count));
                    return;
                }
                let device = weight.inner().device();
                let whole = Tensor::<D>::from_data(TensorData::new(whole, dims), &device);
                self.whole.register(param.id, whole);
            }
        }
    }
}

#[cfg(all(test, any(feature = "flex", feature = "ndarray")))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use burn::tensor::{DType, Device, FloatDType};

    use super::super::config::TrainerConfig;
    use super::super::gradients::{Computed, Gradients, Shards, gathered};
    use super::super::learners::{Learners, Threads};
    use super::super::optimizer::OptimizerConfig;
    use super::super::schedule::Schedule;
    use super::*;
    use crate::policy::GradientSum;

    /// Parameters whose sizes no number of learners divides; the last has a gradient now and then, and on one learner only.
    #[derive(Module, Debug)]
    struct Model {
        a: Param<Tensor<2>>,
        b: Param<Tensor<1>>,
        c: Param<Tensor<1>>,
    }

    fn device() -> Device {
        #[cfg(feature = "flex")]
        let device = Device::flex();
        #[cfg(all(feature = "ndarray", not(feature = "flex")))]
        #[allow(deprecated)]
        let device = Device::ndarray();
        device.autodiff()
    }

    /// Numbers that differ in every digit.
    fn numbers<const D: usize>(dims: [usize; D], salt: usize) -> Tensor<D> {
        let count: usize = dims.iter().product();
        let number = |i: usize| ((i * 7919 + salt * 104_729) % 1000) as f32 / 313.0 - 1.5;
        let data = TensorData::new((0..count).map(number).collect(), dims);
        Tensor::from_data(data, &device())
    }

    fn model(half: bool) -> Model {
        fn param<const D: usize>(value: Tensor<D>, half: bool) -> Param<Tensor<D>> {
            let value = match half {
                true => value.cast(FloatDType::BF16),
                false => value,
            };
            Param::from_tensor(value)
        }
        Model {
            a: param(numbers([5, 3], 1), half),
            b: param(numbers([4], 2), half),
            c: param(numbers([3], 3), half),
        }
    }

    /// The gradient of one shard; -0 in places.
    fn gradient(model: &Model, update: usize, shard: usize) -> GradientSum {
        let mut gradients = GradientsParams::new();
        let salt = 10 * update + shard;
        gradients.register(model.a.id, numbers([5, 3], 100 + salt).inner());
        if shard != 2 {
            let some = numbers([4], 200 + salt).inner();
            gradients.register(model.b.id, some.clamp_min(0.0).neg());
        }
        if shard == 3 && update.is_multiple_of(2) {
            gradients.register(model.c.id, numbers([3], 300 + salt).inner());
        }
        let mut sum = GradientSum::default();
        sum.add(model, gradients);
        sum
    }

    /// The bits of the weights after some updates with four shards on `size` learners, and the bytes of state of each; saved and loaded
    /// on the way.
    fn train(size: usize, sharded: bool, half: bool) -> Vec<(Vec<u32>, usize, u64)> {
        let folder = std::env::temp_dir().join(format!(
            "rlvr-sharded-{}-{size}-{sharded}-{half}",
            std::process::id()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let place = folder.clone();
        let all = Threads::run(size, Duration::from_secs(60), move |learner| {
            let config = TrainerConfig {
                shards: 4,
                sharded_optimizer: sharded,
                ..TrainerConfig::default()
            };
            let first = learner.rank() == 0;
            let group = LearnerGroup::new(Arc::new(learner), &config)?;
            let mut model = model(half);
            let settings = OptimizerConfig {
                weight_decay: 0.1,
                ..OptimizerConfig::new(Schedule::constant(0.01))
            };
            let mut optimizer = Optimizer::new(settings)?;
            for update in 0..4 {
                let mut shards = Shards::of(&model);
                for shard in group.own_shards() {
                    shards.push(gradient(&model, update, shard));
                }
                let computed = Computed {
                    metrics: Vec::new(),
                    gradients: shards.finish(),
                };
                let (_, part) = gathered(&group, &model, Ok(computed))?;
                let Gradients::Part(part) = part else {
                    panic!("several shards");
                };
                let report = optimizer.step_together(&group, &mut model, part)?;
                // It is clipped.
                assert!(report.grad_norm > 1.0);
                if update == 1 {
                    optimizer.save_together(&group, &model, &place, "policy")?;
                    group.agree("save", Ok(()))?;
                    optimizer = Optimizer::new(settings)?;
                    optimizer.load_together(&group, &model, &place, "policy", 2)?;
                    group.agree("load", Ok(()))?;
                    if first {
                        assert_eq!(place.join("policy.w.bpk").exists(), half);
                    }
                }
            }
            let mut bits = Vec::new();
            for weights in [
                host::floats(model.a.val().inner(), "a")?,
                host::floats(model.b.val().inner(), "b")?,
                host::floats(model.c.val().inner(), "c")?,
            ] {
                bits.extend(weights.into_iter().map(f32::to_bits));
            }
            assert_eq!(is_half(model.a.val().dtype()), half);
            assert_eq!(model.c.val().dtype() == DType::F32, !half);
            let bytes = optimizer.state_bytes(&group, &model);
            Ok((bits, bytes, optimizer.updates()))
        });
        std::fs::remove_dir_all(&folder).unwrap();
        all.unwrap()
    }

    #[test]
    fn every_number_of_learners_moves_the_weights_to_the_same_bits() {
        for half in [false, true] {
            let alone = train(1, false, half).remove(0);
            assert_eq!(alone.2, 4);
            // 22 numbers, two moments, and copies of weights in half precision.
            let copies = if half { 3 } else { 2 };
            assert_eq!(alone.1, 4 * 22 * copies);
            for size in [1, 2, 4] {
                for sharded in [false, true] {
                    let all = train(size, sharded, half);
                    for (bits, ..) in &all {
                        assert_eq!(*bits, alone.0, "{size} learners, {sharded}, {half}");
                    }
                    let bytes: Vec<usize> = all.iter().map(|(_, bytes, _)| *bytes).collect();
                    match sharded {
                        false => assert_eq!(bytes, vec![alone.1; size]),
                        // Slices of 22 numbers: 11 and 11, or 5, 6, 5 and 6.
                        true => {
                            let slices = (0..size).map(|rank| slice(22, rank, size).len());
                            let expected = slices.map(|count| 4 * count * copies);
                            assert_eq!(bytes, expected.collect::<Vec<_>>());
                        }
                    }
                }
            }
        }
    }
}
