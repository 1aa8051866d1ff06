//! Tests of the sharded optimizer, with parameter sizes that do not divide evenly and in half
//! precision.

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

/// Parameters whose sizes are not divisible by the number of learners; the last has a gradient in
/// some updates, on one learner only.
#[derive(Module, Debug)]
struct Model {
    a: Param<Tensor<2>>,
    b: Param<Tensor<1>>,
    c: Param<Tensor<1>>,
}

fn device() -> Device {
    Device::flex().autodiff()
}

/// Pseudo-random numbers.
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

/// The gradient of one shard, with some -0 values.
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

/// Returns each learner's weights (as bits), bytes of state and number of updates, after updates
/// with four shards on `size` learners and a save and load in between.
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
            // The gradient is clipped.
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
fn weights_are_bit_identical_for_every_number_of_learners() {
    for half in [false, true] {
        let alone = train(1, false, half).remove(0);
        assert_eq!(alone.2, 4);
        // 22 numbers, two moments, and master copies in half precision.
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
