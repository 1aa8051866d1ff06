//! The optimizer update with several shards: one learner's part of it, and of the optimizer state
//! (ZeRO-1).
//!
//! The trained parameters are one vector in the order in which the model visits them, and each
//! learner owns one slice of it.

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
    /// [`step`](Self::step) with the sum of all learners' gradients.
    ///
    /// # Errors
    /// Returns the errors of `step`, and an error if a learner does not answer.
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

    /// [`save`](Self::save) by the first learner, with the parts of the others. All learners must
    /// call it.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or a learner does not answer.
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

    /// Returns the bytes of optimizer state on this learner.
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
    /// Returns the errors of `load`.
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
    /// Returns whether the optimizer state is divided among the learners.
    fn divides_state(&self) -> bool {
        self.sharded_optimizer && self.several()
    }
}

/// Returns the number of trained values.
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

/// Returns the intersection of two ranges; an empty range within the first if they are disjoint.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = b.start.clamp(a.start, a.end);
    start..b.end.clamp(start, a.end)
}

/// Returns the sum of squares, by blocks, in f64.
fn sum_of_squares(numbers: &[f32]) -> f64 {
    let block = |block: &[f32]| block.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let blocks: Vec<f64> = numbers.par_chunks(1 << 16).map(block).collect();
    blocks.iter().sum()
}

/// Updates the weights of this learner's slice and its part of the state.
struct MovePart<'a> {
    optimizer: &'a mut Optimizer,
    update: AdamW,
    gradient: &'a [f32],
    moved: Vec<f32>,
    own: Range<usize>,
    /// The number of values before this parameter.
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

/// Sets the weights of parameters that have a gradient.
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

/// Joins the parts of all learners, parameter by parameter, on the first learner.
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

#[cfg(all(test, feature = "flex"))]
mod tests;
