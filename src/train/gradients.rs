//! Summing and exchanging the gradients of several learners.
//!
//! Gradients are sent as one vector, in the order in which the model visits its trained parameters,
//! because parameter ids differ between processes.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};

use super::learners::{LearnerGroup, add};
use crate::loss::LossMetrics;
use crate::policy::GradientSum;
use crate::{Result, host};

/// Sums items pairwise in a binary tree over their positions as they arrive. For `2^n` items it
/// holds at most `n + 1`.
#[derive(Debug)]
pub(super) struct Tree<T> {
    /// Sums of `2^level` items with their level, larger ones first.
    sums: Vec<(u32, T)>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { sums: Vec::new() }
    }
}

impl<T> Tree<T> {
    /// Adds the next item.
    pub fn push(&mut self, thing: T, join: impl Fn(T, T) -> T) {
        let (mut level, mut sum) = (0, thing);
        while let Some((_, left)) = self.sums.pop_if(|(there, _)| *there == level) {
            (level, sum) = (level + 1, join(left, sum));
        }
        self.sums.push((level, sum));
    }

    /// Returns the sum of all items; `None` if there are none.
    pub fn finish(self, join: impl Fn(T, T) -> T) -> Option<T> {
        let sums = self.sums.into_iter().map(|(_, sum)| sum);
        sums.rev().reduce(|right, left| join(left, right))
    }
}

/// The gradients of a learner's shards.
pub(super) struct Shards<'a, M> {
    model: &'a M,
    tree: Tree<GradientSum>,
}

impl<'a, M: Module> Shards<'a, M> {
    /// Starts with no gradients of the parameters of `model`.
    pub fn of(model: &'a M) -> Self {
        Self {
            model,
            tree: Tree::default(),
        }
    }

    /// Adds the gradients of the next shard.
    pub fn push(&mut self, gradients: GradientSum) {
        let model = self.model;
        self.tree.push(gradients, |a, b| join(model, a, b));
    }

    /// Returns the sum.
    pub fn finish(self) -> GradientSum {
        let model = self.model;
        let sum = self.tree.finish(|a, b| join(model, a, b));
        sum.unwrap_or_default()
    }
}

fn join<M: Module>(model: &M, mut a: GradientSum, b: GradientSum) -> GradientSum {
    a.merge(model, b);
    a
}

/// A learner's part of an update.
#[derive(Default)]
pub(super) struct Computed {
    /// The metrics of micro-batches, by their position among the micro-batches of all learners.
    pub metrics: Vec<(usize, LossMetrics)>,
    /// The sum over all shards of this learner.
    pub gradients: GradientSum,
}

/// The gradients of an update.
pub(super) enum Gradients {
    /// The gradients of a step without shards.
    Whole(GradientsParams),
    /// The sum over this learner's shards, in host memory.
    Part(Flat),
}

/// Gradients in the order in which the model visits its trained parameters; zeros for a missing
/// gradient.
pub(super) struct Flat {
    pub numbers: Vec<f32>,
    /// For each parameter, whether it has a gradient on any learner.
    pub present: Vec<bool>,
}

/// Returns the metrics of an update over all learners, and this learner's part of the gradients.
///
/// # Errors
/// Returns an error if a learner could not compute its part.
pub(super) fn gathered<M: Module>(
    group: &LearnerGroup,
    model: &M,
    computed: Result<Computed>,
) -> Result<(LossMetrics, Gradients)> {
    let flat = |computed: Computed| {
        let gradients = computed.gradients.finish();
        Ok(match group.shards() {
            1 => (computed.metrics, Gradients::Whole(gradients)),
            _ => (
                computed.metrics,
                Gradients::Part(flatten(model, gradients)?),
            ),
        })
    };
    let (metrics, mut gradients) = match computed.and_then(flat) {
        Ok((metrics, gradients)) => (Ok(metrics), Some(gradients)),
        Err(error) => (Err(error), None),
    };
    let present = match &gradients {
        Some(Gradients::Part(flat)) => flat.present.clone(),
        _ => Vec::new(),
    };
    let message = metrics.map(|metrics| {
        let all = metrics.iter();
        let metrics: Vec<_> = all.map(|(at, one)| (*at, one.to_message())).collect();
        (metrics, present)
    });
    let mut metrics = Vec::new();
    for (theirs, present) in group.gather("metrics of an update", message)? {
        let read = theirs.into_iter();
        metrics.extend(read.map(|(at, one)| (at, LossMetrics::from_message(one))));
        if let Some(Gradients::Part(flat)) = &mut gradients {
            for (mine, theirs) in flat.present.iter_mut().zip(present) {
                *mine |= theirs;
            }
        }
    }
    metrics.sort_by_key(|(at, _)| *at);
    let mut sums = LossMetrics::default();
    metrics.iter().for_each(|(_, one)| sums.merge(one));
    let none = || Gradients::Whole(GradientsParams::new());
    Ok((sums, gradients.unwrap_or_else(none)))
}

/// Returns this learner's slice of the sum over all learners. Each learner holds the sum of
/// neighbouring shards, so this continues the binary tree.
pub(super) fn reduce_scatter(group: &LearnerGroup, numbers: Vec<f32>) -> Result<Vec<f32>> {
    let join = |mut left: Vec<f32>, right: Vec<f32>| {
        add(&mut left, &right);
        left
    };
    let mut tree = Tree::default();
    for part in group.learners().exchange(numbers)? {
        tree.push(part, join);
    }
    Ok(tree.finish(join).unwrap_or_default())
}

fn flatten<M: Module>(model: &M, gradients: GradientsParams) -> Result<Flat> {
    let mut flatten = Flatten {
        gradients,
        flat: Flat {
            numbers: Vec::new(),
            present: Vec::new(),
        },
        result: Ok(()),
    };
    model.visit(&mut flatten);
    flatten.result?;
    Ok(flatten.flat)
}

/// Converts `numbers` back to gradients; parameters that are not `present` get none.
pub(super) fn unflatten<M: Module>(
    model: &M,
    numbers: &[f32],
    present: &[bool],
) -> GradientsParams {
    let mut unflatten = Unflatten {
        gradients: GradientsParams::new(),
        numbers,
        present: present.iter(),
    };
    model.visit(&mut unflatten);
    unflatten.gradients
}

struct Flatten {
    gradients: GradientsParams,
    flat: Flat,
    result: Result<()>,
}

impl ModuleVisitor for Flatten {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weight = param.val();
        if !weight.is_require_grad() {
            return;
        }
        let count: usize = weight.dims().iter().product();
        let gradient = self.gradients.remove::<D>(param.id);
        self.flat.present.push(gradient.is_some());
        match gradient.map(|gradient| host::floats(gradient, "gradient")) {
            Some(Ok(numbers)) => self.flat.numbers.extend(numbers),
            Some(Err(error)) => self.result = Err(error),
            None => self
                .flat
                .numbers
                .resize(self.flat.numbers.len() + count, 0.0),
        }
    }
}

struct Unflatten<'a> {
    gradients: GradientsParams,
    numbers: &'a [f32],
    present: std::slice::Iter<'a, bool>,
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
        if self.present.next() == Some(&true) {
            let data = TensorData::new(own.to_vec(), weight.dims());
            let gradient = Tensor::<D>::from_data(data, &weight.inner().device());
            self.gradients.register(param.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_joins_neighbouring_sums_of_equal_size() {
        let join = |a: String, b: String| format!("({a}{b})");
        let sum = |count: u8| {
            let mut tree = Tree::default();
            for thing in 0..count {
                tree.push(char::from(b'a' + thing).to_string(), join);
                assert!(tree.sums.len() <= 4);
            }
            tree.finish(join)
        };
        assert_eq!(sum(0), None);
        assert_eq!(sum(1).unwrap(), "a");
        assert_eq!(sum(4).unwrap(), "((ab)(cd))");
        assert_eq!(sum(8).unwrap(), "(((ab)(cd))((ef)(gh)))");
    }

    #[test]
    fn a_tree_over_two_learners_equals_the_tree_over_all_shards() {
        // Eight shards, four on each of two learners.
        let numbers: Vec<f32> = (0..8).map(|i| 0.1 + 1e7 * (i % 3) as f32 / 3.0).collect();
        let sum = |numbers: &[f32]| {
            let mut tree = Tree::default();
            numbers.iter().for_each(|&x| tree.push(x, |a, b| a + b));
            tree.finish(|a, b| a + b).unwrap()
        };
        let halves = [sum(&numbers[..4]), sum(&numbers[4..])];
        assert_eq!(sum(&halves).to_bits(), sum(&numbers).to_bits());
        let in_turn: f32 = numbers.iter().sum();
        assert_ne!(in_turn.to_bits(), sum(&numbers).to_bits());
    }
}
