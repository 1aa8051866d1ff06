//! Training of weights in half precision: sums, averages and scales are as accurate as in f32.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor};
use rlvr::loss::{LossInput, PolicyObjective, StepCounts};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{
    DistilledTokens, Divergence, LogProbConfig, PolicyModel, ReferencePolicy, ReferenceSync,
    ScoredTokens, TokenBatch, ValueHead,
};
use rlvr::train::{Demonstration, SftConfig, TrainerConfig, global_norm, supervise};

use crate::common::toy::{self, Rl};
use crate::common::{assert_close, devices, floats};

/// Rounds every weight to a type.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let to = self.0;
        param.map(|weight| {
            let tracked = weight.is_require_grad();
            let on_tape = weight.is_autodiff();
            let weight = weight.inner().cast(to);
            match on_tape {
                true => weight.autodiff().set_require_grad(tracked),
                false => weight,
            }
        })
    }
}

fn cast(model: CausalModel, to: DType) -> CausalModel {
    model.map(&mut Cast(to))
}

/// Values and types of all parameters.
#[derive(Default)]
struct Weights(Vec<f64>, Vec<DType>);

impl ModuleVisitor for Weights {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.push(param.val().dtype());
        self.0.extend(floats(param.val().inner()));
    }
}

fn weights<M: Module>(model: &M) -> Weights {
    let mut all = Weights::default();
    model.visit(&mut all);
    all
}

/// `|a - b| / |b|`.
fn distance(a: &CausalModel, b: &CausalModel) -> f64 {
    let (a, b) = (weights(a).0, weights(b).0);
    let norm = |values: Vec<f64>| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    norm(a.iter().zip(&b).map(|(a, b)| a - b).collect()) / norm(b)
}

fn ppo(config: &TrainerConfig, seed: u64, dtype: DType, device: &Device) -> Rl {
    let policy = cast(toy::policy(seed, device), dtype);
    let critic = ValueHead::new(cast(toy::policy(1000 + seed, device), dtype));
    let builder = Rl::builder(policy, toy::tokenizer())
        .config(config.clone())
        .rewards(toy::rewards())
        .problems(toy::problems());
    builder.critic(critic).build().unwrap()
}

#[test]
fn a_critic_reads_hidden_states_in_half_precision() {
    let device = toy::device();
    for dtype in [DType::BF16, DType::F16] {
        let mut trainer = ppo(&toy::ppo_config(), 0, dtype, &device);
        for record in toy::steps(&mut trainer, 2) {
            assert!(record.get("value/loss").unwrap() > 0.0, "{dtype:?}");
        }
        assert!(
            weights(trainer.policy())
                .1
                .iter()
                .all(|&found| found == dtype)
        );
    }
}

/// Multiplies every weight.
struct Times(f32);

impl ModuleMapper for Times {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let factor = self.0;
        param.map(|weight| weight.mul_scalar(factor))
    }
}

#[test]
fn a_moving_average_in_half_precision_converges_to_a_constant_policy() {
    let device = toy::device();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for alpha in [0.01, 0.1, 0.6] {
            let start = cast(toy::policy(0, &device), dtype);
            let sync = ReferenceSync::MovingAverage { steps: 1, alpha };
            let mut reference = ReferencePolicy::new(&start, sync).unwrap();
            // The average with itself is unchanged.
            for step in 1..=20 {
                reference.after_step(step, &start);
            }
            assert_eq!(weights(reference.model()).0, weights(&start).0, "{dtype:?}");
            let policy = start.clone().valid().map(&mut Times(1.03));
            let before = distance(reference.model(), &policy);
            for step in 1..=300 {
                reference.after_step(step, &policy);
            }
            let exact = before * (1.0f64 - alpha).powi(300);
            // Rounded once, to the weights' own type.
            let rounding = match dtype {
                DType::F32 => 1e-6,
                _ => 2e-3,
            };
            let after = distance(reference.model(), &policy);
            assert!(
                after < exact + rounding,
                "{dtype:?} {alpha}: {before} -> {after}"
            );
            assert!(
                weights(reference.model())
                    .1
                    .iter()
                    .all(|&found| found == dtype)
            );
        }
    }
}

#[test]
fn the_gradient_does_not_depend_on_the_micro_batch_size() {
    let device = toy::device();
    let norm = |dtype, micro_batch| {
        let mut policy = cast(toy::policy(0, &device), dtype);
        let data = [Demonstration::new("ab", "ca")];
        let config = SftConfig {
            steps: 1,
            batch_size: 512,
            micro_batch,
            optimizer: toy::optimizer(1e-6),
            ..SftConfig::default()
        };
        let mut norm = 0.0;
        supervise(&mut policy, &toy::tokenizer(), &data, &config, |report| {
            norm = report.update.grad_norm;
            true
        })
        .unwrap();
        norm
    };
    let exact = norm(DType::F32, 512);
    for micro_batch in [1, 512] {
        let got = norm(DType::BF16, micro_batch);
        assert_close(
            got,
            exact,
            0.05,
            0.0,
            &format!("micro-batches of {micro_batch}"),
        );
    }
}

/// Counts the entries of the gradients of the blocks' matrices that are exactly zero.
struct Zeros<'a>(&'a GradientsParams, usize);

impl ModuleVisitor for Zeros<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 2
            && let Some(gradient) = self.0.get::<D>(param.id)
        {
            self.1 += floats(gradient).iter().filter(|&&x| x == 0.0).count();
        }
    }
}

#[test]
fn small_gradients_do_not_vanish_in_f16() {
    let device = toy::device();
    let config = CausalConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        max_position_embeddings: 64,
        tie_word_embeddings: false,
        ..CausalConfig::new(64)
    };
    let model = config.init(0, &device.clone().autodiff()).unwrap();
    let of = |dtype, blockwise| {
        let model = cast(model.clone(), dtype).with_gradient_checkpointing(blockwise);
        let ids: Vec<u32> = (0..32).map(|i| i * 37 % 64).collect();
        let batch = TokenBatch::from_rows(&[ids], &model.device()).unwrap();
        let pass = model.forward_pass(&batch.clone().into()).unwrap();
        let chunk = LogProbConfig {
            chunk: 8,
            ..LogProbConfig::default()
        };
        let scored = ScoredTokens::new(pass, model.unembedding(), batch.ids, &chunk).unwrap();
        let ones = Tensor::ones([1, 32], &device);
        let input = LossInput::new(scored.log_probs.clone(), ones.clone(), ones);
        // These are 32 tokens of a step of ten million.
        let counts = StepCounts {
            tokens: 10_000_000,
            sequences: 100_000,
        };
        let loss = PolicyObjective::dapo().loss(&input, counts).unwrap();
        let gradients = scored.backward(loss.loss, &model).unwrap();
        let mut zeros = Zeros(&gradients, 0);
        model.visit(&mut zeros);
        (global_norm(&gradients, &model).unwrap(), zeros.1)
    };
    let (norm, zeros) = of(DType::F32, false);
    for (dtype, blockwise) in [
        (DType::BF16, false),
        (DType::F16, false),
        (DType::F16, true),
    ] {
        let (half_norm, half_zeros) = of(dtype, blockwise);
        assert_close(half_norm, norm, 0.02, 0.0, &format!("{dtype:?}"));
        // Rows of tokens that do not occur are zero in every type.
        assert!(
            half_zeros <= zeros + 4,
            "{dtype:?}: {half_zeros} of {zeros}"
        );
    }
}

#[test]
fn small_gradients_of_a_divergence_do_not_vanish_in_f16() {
    // ndarray has no half precision.
    let (_, device) = devices().remove(0);
    let model = toy::policy(0, &device);
    let teacher = toy::policy(1, &device).valid().map(&mut Times(3.0));
    let of = |dtype, blockwise, divergence: &Divergence| {
        let model = cast(model.clone(), dtype).with_gradient_checkpointing(blockwise);
        let teacher = cast(teacher.clone(), dtype);
        let rows = TokenBatch::from_rows(&[[2u32, 3, 4, 5, 2, 3]], &device).unwrap();
        let taught = teacher.hidden_states(&rows.clone().into()).unwrap();
        let pass = model.forward_pass(&rows.into()).unwrap();
        let own = model.unembedding();
        let config = LogProbConfig {
            chunk: 4,
            ..LogProbConfig::default()
        };
        let unembedding = teacher.unembedding();
        let distilled =
            DistilledTokens::new(pass, own, taught, unembedding, divergence, &config).unwrap();
        assert_eq!(distilled.divergences.dtype(), DType::F32);
        let value: f64 = floats(distilled.divergences.clone()).iter().sum();
        // These are six tokens of a step of ten million.
        let loss = distilled.divergences.clone().sum().mul_scalar(1e-7);
        let gradients = distilled.backward(loss, &model).unwrap();
        (value, global_norm(&gradients, &model).unwrap())
    };
    for divergence in [
        Divergence::Jsd { beta: 1.0 },
        Divergence::Jsd { beta: 0.5 },
        Divergence::TopK { k: 2, tail: true },
    ] {
        let (value, norm) = of(DType::F32, false, &divergence);
        assert!(value > 0.1 && norm > 0.0, "{divergence:?} {value} {norm}");
        for (dtype, blockwise) in [
            (DType::F32, true),
            (DType::BF16, false),
            (DType::F16, false),
            (DType::F16, true),
        ] {
            let (half_value, half_norm) = of(dtype, blockwise, &divergence);
            let what = format!("{divergence:?} {dtype:?} {blockwise}");
            assert_close(half_value, value, 0.03, 0.0, &what);
            assert_close(half_norm, norm, 0.03, 0.0, &what);
        }
    }
}

#[test]
fn a_resumed_run_in_half_precision_equals_an_uninterrupted_one() {
    // ndarray has no half precision.
    let (backend, device) = devices().remove(0);
    for dtype in [DType::BF16, DType::F16] {
        let config = TrainerConfig {
            measure_kl: true,
            reference_sync: ReferenceSync::MovingAverage {
                steps: 1,
                alpha: 0.05,
            },
            ..toy::ppo_config()
        };
        let folder = tempfile::tempdir().unwrap();
        let mut straight = ppo(&config, 0, dtype, &device);
        toy::steps(&mut straight, 3);
        let saved = straight.save_checkpoint(folder.path(), 1).unwrap();
        let mut resumed = ppo(&config, 7, dtype, &device);
        resumed.load_checkpoint(&saved).unwrap();
        for _ in 0..2 {
            let (a, b) = (straight.step().unwrap(), resumed.step().unwrap());
            for name in ["kl", "grad_norm", "value/loss"] {
                assert_eq!(a.get(name), b.get(name), "{backend} {dtype:?} {name}");
            }
            assert_eq!(
                weights(straight.policy()).0,
                weights(resumed.policy()).0,
                "{backend} {dtype:?}"
            );
        }
    }
}

#[test]
fn a_checkpoint_is_read_in_the_type_of_the_trainer() {
    let device = toy::device();
    let folder = tempfile::tempdir().unwrap();
    let saved = ppo(&toy::ppo_config(), 0, DType::BF16, &device)
        .save_checkpoint(folder.path(), 1)
        .unwrap();
    let mut trainer = ppo(&toy::ppo_config(), 1, DType::F32, &device);
    trainer.load_checkpoint(&saved).unwrap();
    let loaded = weights(trainer.policy());
    assert!(loaded.1.iter().all(|&found| found == DType::F32));
    let policy = cast(toy::policy(0, &device), DType::BF16);
    assert_eq!(loaded.0, weights(&policy).0);
    trainer.step().unwrap();
}
