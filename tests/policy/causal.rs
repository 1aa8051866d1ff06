//! The causal transformer: one forward pass for prefill, decoding and training, chunked log-probs
//! with the exact gradient, reference and critic.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{
    ForwardPass, KvCache, LogProbConfig, PolicyCache, PolicyModel, PrefixedBatch, ReferencePolicy,
    ReferenceSync, ScoredTokens, TokenBatch, ValueHead, ValueModel, logits_log_probs,
    squared_probabilities, token_log_probs,
};

use crate::common;
use crate::common::{assert_close, devices, floats, ids};

/// A small model with every optional part: grouped heads, biases, head norms.
fn config(tied: bool) -> CausalConfig {
    CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 32,
        attention_bias: true,
        qk_norm: true,
        tie_word_embeddings: tied,
        ..CausalConfig::new(11)
    }
}

/// The hidden states of `rows`, each computed alone in one pass: the reference for every other way.
fn alone(model: &CausalModel, rows: &[Vec<u32>]) -> Vec<Vec<f64>> {
    rows.iter()
        .map(|row| {
            let batch = TokenBatch::from_rows(&[row], &model.device()).unwrap();
            floats(model.forward(&batch, &mut model.empty_cache(1)).unwrap())
        })
        .collect()
}

/// Compares row `b` of `hidden` from token `from` on with the hidden states of the whole row.
fn assert_rows(
    hidden: Tensor<3>,
    lengths: &[usize],
    from: &[usize],
    whole: &[Vec<f64>],
    what: &str,
) {
    let [_, width, size] = hidden.dims();
    let got = floats(hidden);
    for (b, whole) in whole.iter().enumerate() {
        for t in 0..lengths[b] {
            for d in 0..size {
                let got = got[(b * width + t) * size + d];
                let want = whole[(from[b] + t) * size + d];
                assert_close(got, want, 1e-4, 1e-5, &format!("{what} row {b} token {t}"));
            }
        }
    }
}

fn ragged() -> Vec<Vec<u32>> {
    vec![
        vec![1, 2, 3, 4, 5, 6],
        vec![7, 8, 9],
        vec![10, 1, 2, 3],
        vec![4],
    ]
}

#[test]
fn ragged_rows_do_not_see_each_other_or_their_padding() {
    for (backend, device) in devices() {
        let model = config(true).init(1, &device).unwrap();
        let rows = ragged();
        let batch = TokenBatch::from_rows(&rows, &device).unwrap();
        let hidden = model.forward(&batch, &mut model.empty_cache(4)).unwrap();
        assert_rows(
            hidden,
            &batch.lengths,
            &[0; 4],
            &alone(&model, &rows),
            backend,
        );
    }
}

#[test]
fn hidden_states_do_not_depend_on_how_the_sequence_is_split() {
    for (backend, device) in devices() {
        // Both ways of growing the cache: in place, and by concatenation with autodiff.
        for device in [device.clone(), device.autodiff()] {
            let model = config(true).init(2, &device).unwrap();
            let rows = ragged();
            let whole = alone(&model, &rows);
            // The first piece is ragged, so later pieces have padding in the middle of the cache.
            let cuts: [usize; 4] = [3, 1, 2, 1];
            let mut cache = model.empty_cache(4);
            let heads: Vec<_> = rows
                .iter()
                .zip(cuts)
                .map(|(row, cut)| &row[..cut])
                .collect();
            let batch = TokenBatch::from_rows(&heads, &device).unwrap();
            let hidden = model.forward(&batch, &mut cache).unwrap();
            assert_rows(
                hidden,
                &cuts,
                &[0; 4],
                &whole,
                &format!("{backend} prefill"),
            );
            let tails: Vec<_> = rows
                .iter()
                .zip(cuts)
                .map(|(row, cut)| &row[cut..])
                .collect();
            let batch = TokenBatch::from_rows(&tails, &device).unwrap();
            let hidden = model.forward(&batch, &mut cache).unwrap();
            assert_rows(
                hidden,
                &batch.lengths,
                &cuts,
                &whole,
                &format!("{backend} rest"),
            );
            assert_eq!(cache.lengths(), [6, 3, 4, 1]);
        }
    }
}

#[test]
fn decoding_with_rows_that_are_removed_and_repeated() {
    for (backend, device) in devices() {
        let model = config(false).init(3, &device).unwrap();
        let rows = [vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9, 10, 1, 2]];
        let whole = alone(&model, &rows);
        let mut cache = model.empty_cache(2);
        let first = TokenBatch::from_rows(&[&rows[0][..2], &rows[1][..1]], &device).unwrap();
        model.forward(&first, &mut cache).unwrap();
        // Row 1 goes to the front and is doubled.
        cache.select_rows(&[1, 0, 1]);
        let mut read = [1, 2, 1];
        let order = [1, 0, 1];
        for _ in 0..4 {
            let next: Vec<_> = order
                .iter()
                .zip(read)
                .map(|(&row, at)| [rows[row][at]])
                .collect();
            let batch = TokenBatch::from_rows(&next, &device).unwrap();
            let hidden = model.forward(&batch, &mut cache).unwrap();
            let wholes: Vec<_> = order.iter().map(|&row| whole[row].clone()).collect();
            assert_rows(hidden, &[1; 3], &read, &wholes, backend);
            read = read.map(|at| at + 1);
        }
    }
}

#[test]
fn caches_can_be_concatenated_and_clones_are_independent() {
    for (backend, device) in devices() {
        // Without autodiff, where a cache may keep its rows separately, and with it.
        for device in [device.clone(), device.autodiff()] {
            let model = config(false).init(3, &device).unwrap();
            let rows = [
                vec![1, 2, 3, 4, 5, 6, 7],
                vec![7, 8, 9, 10, 1, 2, 3],
                vec![5, 5, 1, 3, 2, 2, 4],
            ];
            let whole = alone(&model, &rows);
            let batch = |pieces: &[&[u32]]| TokenBatch::from_rows(pieces, &device).unwrap();
            let mut cache = model.empty_cache(0);
            let mut first = model.empty_cache(2);
            let prompts = batch(&[&rows[0][..3], &rows[1][..1]]);
            model.forward(&prompts, &mut first).unwrap();
            // Rows 1, 0 and 1.
            cache.append_rows(&first, &[1, 0, 1]);
            assert_eq!((cache.rows(), cache.lengths()), (3, &[1, 3, 1][..]));
            let pieces = [&rows[1][1..3], &rows[0][3..4], &rows[1][1..2]];
            let pieces: Vec<&[u32]> = pieces.iter().map(|piece| &piece[..]).collect();
            let hidden = model.forward(&batch(&pieces), &mut cache).unwrap();
            let wholes = [whole[1].clone(), whole[0].clone(), whole[1].clone()];
            assert_rows(hidden, &[2, 1, 1], &[1, 3, 1], &wholes, backend);
            // Row 2 joins, after which the second of them leaves.
            let mut second = model.empty_cache(1);
            let read = batch(&[&rows[2][..5]]);
            model.forward(&read, &mut second).unwrap();
            cache.append_rows(&second, &[0]);
            cache.select_rows(&[0, 2, 3]);
            assert_eq!(cache.lengths(), [3, 2, 5]);
            let wholes = [whole[1].clone(), whole[1].clone(), whole[2].clone()];
            let mut other = cache.clone();
            let pieces: [&[u32]; 3] = [&rows[1][3..5], &rows[1][2..5], &rows[2][5..6]];
            let hidden = model.forward(&batch(&pieces), &mut cache).unwrap();
            assert_rows(hidden, &[2, 3, 1], &[3, 2, 5], &wholes, backend);
            // The clone has none of these tokens, and its new tokens do not change the first cache.
            let pieces: [&[u32]; 3] = [&[9, 9, 9], &[9, 9, 9], &[9]];
            model.forward(&batch(&pieces), &mut other).unwrap();
            let pieces: [&[u32]; 3] = [&rows[1][5..6], &rows[1][5..6], &rows[2][6..7]];
            let hidden = model.forward(&batch(&pieces), &mut cache).unwrap();
            assert_rows(hidden, &[1; 3], &[5, 5, 6], &wholes, backend);
            // A concatenated cache can be concatenated again, and used by a model with autodiff.
            let mut all = model.empty_cache(1);
            let read = batch(&[&rows[0][..2]]);
            model.forward(&read, &mut all).unwrap();
            all.append_rows(&cache, &[2, 0]);
            assert_eq!(all.lengths(), [2, 7, 6]);
            let pieces: [&[u32]; 3] = [&rows[0][2..], &[], &rows[1][6..]];
            let hidden = model.forward(&batch(&pieces), &mut all).unwrap();
            let wholes = [whole[0].clone(), whole[2].clone(), whole[1].clone()];
            assert_rows(hidden, &[5, 0, 1], &[2, 7, 6], &wholes, backend);
        }
    }
}

#[test]
fn appending_to_an_empty_cache_equals_selecting_bit_for_bit() {
    for (backend, device) in devices() {
        let windowed = CausalConfig {
            sliding_window: Some(7),
            windowed_layers: vec![1],
            max_position_embeddings: 64,
            ..config(true)
        };
        let model = windowed.init(3, &device).unwrap();
        // Longer than the sums of a vector register, and ragged.
        let prompts: Vec<Vec<u32>> = [23, 1, 14]
            .map(|length| (0..length).map(|at| at * 3 % 11).collect())
            .to_vec();
        let batch = TokenBatch::from_rows(&prompts, &device).unwrap();
        let mut selected = model.empty_cache(3);
        model.forward(&batch, &mut selected).unwrap();
        let mut joined = model.empty_cache(0);
        joined.append_rows(&selected, &[0, 0, 1, 2]);
        selected.select_rows(&[0, 0, 1, 2]);
        for step in 0..20 {
            if step == 10 {
                joined.select_rows(&[1, 2, 3]);
                selected.select_rows(&[1, 2, 3]);
            }
            let next: Vec<[u32; 1]> = (0..selected.rows() as u32)
                .map(|row| [(row + step) % 11])
                .collect();
            let batch = TokenBatch::from_rows(&next, &device).unwrap();
            let read = |cache| floats(model.forward(&batch, cache).unwrap());
            assert_eq!(read(&mut joined), read(&mut selected), "{backend} {step}");
        }
    }
}

#[test]
fn cached_rows_can_be_continued_by_a_model_with_autodiff() {
    let (_, device) = devices().remove(0);
    let plain = config(false).init(3, &device).unwrap();
    let taped = config(false).init(3, &device.clone().autodiff()).unwrap();
    let rows = [vec![1, 2, 3, 4, 5], vec![7, 8, 9, 1, 2]];
    let whole = alone(&plain, &rows);
    let mut first = plain.empty_cache(2);
    let prompts = TokenBatch::from_rows(&[&rows[0][..3], &rows[1][..1]], &device).unwrap();
    plain.forward(&prompts, &mut first).unwrap();
    let mut cache = plain.empty_cache(0);
    cache.append_rows(&first, &[0, 1]);
    for (pieces, read) in [
        ([&rows[0][3..4], &rows[1][1..3]], [3, 1]),
        ([&rows[0][4..], &rows[1][3..]], [4, 3]),
    ] {
        let batch = TokenBatch::from_rows(&pieces, &taped.device()).unwrap();
        let hidden = taped.forward(&batch, &mut cache).unwrap();
        assert!(hidden.is_autodiff());
        assert_rows(hidden, &batch.lengths, &read, &whole, "taped");
    }
}

#[test]
fn wrong_sizes_are_errors_that_name_the_expected_size() {
    let (_, device) = devices().remove(0);
    let model = config(true).init(0, &device).unwrap();
    let batch = TokenBatch::from_rows(&[vec![1u32; 33]], &device).unwrap();
    let long = model
        .forward(&batch, &mut model.empty_cache(1))
        .unwrap_err();
    assert!(
        long.to_string().contains("33") && long.to_string().contains("32"),
        "{long}"
    );
    let rows = model
        .forward(&batch, &mut model.empty_cache(2))
        .unwrap_err();
    assert!(
        rows.to_string().contains("token rows: got 1, expected 2"),
        "{rows}"
    );
    assert!(TokenBatch::from_rows(&[Vec::<u32>::new()], &device).is_err());
    for (wrong, field) in [
        (CausalConfig::default(), "vocab_size"),
        (
            CausalConfig {
                num_key_value_heads: 3,
                ..config(true)
            },
            "num_key_value_heads",
        ),
        (
            CausalConfig {
                head_dim: Some(5),
                ..config(true)
            },
            "head_dim",
        ),
        (
            CausalConfig {
                hidden_size: 18,
                ..config(true)
            },
            "hidden_size",
        ),
        (
            CausalConfig {
                rope_theta: 0.0,
                ..config(true)
            },
            "rope_theta",
        ),
    ] {
        let message = wrong.init(0, &device).unwrap_err().to_string();
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn the_same_seed_gives_the_same_weights_on_every_backend() {
    let all = devices();
    let weights = |device: &Device, seed| {
        let model = config(false).init(seed, device).unwrap();
        floats(model.layers[1].mlp.up_proj.weight.val())
    };
    let first = weights(&all[0].1, 5);
    for (_, device) in &all {
        assert_eq!(weights(device, 5), first);
    }
    assert_ne!(weights(&all[0].1, 6), first);
}

// ---- log-probs -------------------------------------------------------------------------------

/// Every gradient of a model, parameter by parameter.
struct Collect<'a>(&'a GradientsParams, Vec<(String, Vec<f64>)>, Vec<String>);

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.2.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.2.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.0.get::<D>(param.id).map(floats).unwrap_or_default();
        self.1.push((self.2.join("."), gradient));
    }
}

fn gradients(model: &CausalModel, of: &GradientsParams) -> Vec<(String, Vec<f64>)> {
    let mut collect = Collect(of, Vec::new(), Vec::new());
    model.visit(&mut collect);
    collect.1
}

#[test]
fn chunked_log_probs_have_the_value_and_the_gradient_of_the_plain_formula() {
    let rows = [
        vec![1, 2, 3, 4, 5],
        vec![6, 7, 8, 9, 10],
        vec![2, 4, 6, 8, 10],
    ];
    let targets = [
        vec![2, 3, 4, 5, 6],
        vec![7, 8, 9, 10, 1],
        vec![4, 6, 8, 10, 0],
    ];
    for (backend, device) in devices() {
        for tied in [true, false] {
            let model = config(tied).init(4, &device.clone().autodiff()).unwrap();
            let batch = TokenBatch::from_rows(&rows, &device).unwrap();
            let targets = ids(&targets, &device);
            let temperature = 0.7;
            // A loss with a different gradient for every token, through log-probs and entropies.
            let pulls: Vec<Vec<f64>> = (0..3)
                .map(|b| (0..5).map(|t| (b * 5 + t) as f64 * 0.3 - 2.0).collect())
                .collect();
            let pulls = common::matrix(&pulls, &device);
            let loss = |log_probs: Tensor<2>, entropies: Tensor<2>| {
                (log_probs.exp() * pulls.clone()).sum() + entropies.square().mean()
            };

            let hidden = model.forward(&batch, &mut model.empty_cache(3)).unwrap();
            let logits = hidden.reshape([15, 16]).matmul(model.unembedding());
            let plain = logits_log_probs(logits, targets.clone().reshape([15]), temperature);
            let plain_loss = loss(
                plain.log_probs.clone().reshape([3, 5]),
                plain.entropies.reshape([3, 5]),
            );
            let want_loss = floats(plain_loss.clone())[0];
            let want_log_probs = floats(plain.log_probs);
            let grads = GradientsParams::from_grads(plain_loss.backward(), &model);
            let want = gradients(&model, &grads);
            assert!(want.iter().all(|(_, gradient)| !gradient.is_empty()));

            for chunk in [1, 4, 15, 100] {
                let config = LogProbConfig { temperature, chunk };
                let hidden = model.forward(&batch, &mut model.empty_cache(3)).unwrap();
                let free = token_log_probs(
                    hidden.clone(),
                    model.unembedding(),
                    targets.clone(),
                    &config,
                );
                let scored =
                    ScoredTokens::new(hidden, model.unembedding(), targets.clone(), &config)
                        .unwrap();
                for got in [&free.unwrap().log_probs, &scored.log_probs] {
                    for (got, want) in floats(got.clone()).iter().zip(&want_log_probs) {
                        assert_close(*got, *want, 1e-5, 1e-6, backend);
                    }
                }
                let got_loss = loss(scored.log_probs.clone(), scored.entropies.clone());
                assert_close(floats(got_loss.clone())[0], want_loss, 1e-5, 1e-6, backend);
                let got = gradients(&model, &scored.backward(got_loss, &model).unwrap());
                for ((name, got), (_, want)) in got.iter().zip(&want) {
                    assert_eq!(got.len(), want.len(), "{name}");
                    for (got, want) in got.iter().zip(want) {
                        let what = format!("{backend} tied {tied} chunk {chunk} {name}");
                        assert_close(*got, *want, 1e-3, 1e-5, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn gradient_checkpointing_on_the_device_changes_nothing() {
    let (backend, plain) = devices().remove(0);
    let targets = ids(&[vec![2, 3, 4, 5]], &plain);
    let gradients_on = |device: Device| {
        let model = config(true).init(4, &device).unwrap();
        let batch = TokenBatch::from_rows(&[[1u32, 2, 3, 4]], &model.device()).unwrap();
        let hidden = model.forward(&batch, &mut model.empty_cache(1)).unwrap();
        let config = LogProbConfig::default();
        let scored =
            ScoredTokens::new(hidden, model.unembedding(), targets.clone(), &config).unwrap();
        let input = rlvr::loss::LossInput {
            entropies: Some(scored.entropies.clone()),
            ..rlvr::loss::LossInput::new(
                scored.log_probs.clone(),
                Tensor::ones([1, 4], &device),
                Tensor::ones([1, 4], &device),
            )
        };
        let objective = rlvr::loss::PolicyObjective::dapo().with_entropy_coef(0.01);
        let counts = rlvr::loss::StepCounts::of(&[4]);
        let loss = objective.loss(&input, counts).unwrap();
        gradients(&model, &scored.backward(loss.loss, &model).unwrap())
    };
    let want = gradients_on(plain.clone().autodiff());
    let got = gradients_on(plain.autodiff().gradient_checkpointing());
    for ((name, got), (_, want)) in got.iter().zip(&want) {
        assert!(
            want.iter().any(|&g| g != 0.0) || name.contains("bias") || name.contains("norm"),
            "{name}"
        );
        for (got, want) in got.iter().zip(want) {
            assert_close(*got, *want, 1e-5, 1e-7, &format!("{backend} {name}"));
        }
    }
}

#[test]
fn a_shared_prefix_has_the_gradient_of_reading_it_every_time() {
    let (backend, device) = devices().remove(0);
    let model = config(true).init(6, &device.clone().autodiff()).unwrap();
    let prefix = [1u32, 2, 3];
    let tails = [vec![4u32, 5], vec![6, 7], vec![8, 9]];
    let pull = |hidden: Tensor<3>| hidden.square().sum();

    let mut cache = model.empty_cache(1);
    model
        .forward(
            &TokenBatch::from_rows(&[prefix], &device).unwrap(),
            &mut cache,
        )
        .unwrap();
    cache.select_rows(&[0, 0, 0]);
    let batch = TokenBatch::from_rows(&tails, &device).unwrap();
    let shared = pull(model.forward(&batch, &mut cache).unwrap());

    let whole: Vec<Vec<u32>> = tails
        .iter()
        .map(|tail| [&prefix[..], tail].concat())
        .collect();
    let batch = TokenBatch::from_rows(&whole, &device).unwrap();
    let hidden = model.forward(&batch, &mut model.empty_cache(3)).unwrap();
    let repeated = pull(hidden.slice([0..3, 3..5]));

    assert_close(
        floats(shared.clone())[0],
        floats(repeated.clone())[0],
        1e-5,
        1e-6,
        backend,
    );
    let of = |loss: Tensor<1>| {
        gradients(
            &model,
            &GradientsParams::from_grads(loss.backward(), &model),
        )
    };
    for ((name, got), (_, want)) in of(shared).iter().zip(of(repeated)) {
        for (got, want) in got.iter().zip(&want) {
            assert_close(*got, *want, 1e-3, 1e-4, name);
        }
    }
}

// ---- reference and critic ----------------------------------------------------------------------

#[test]
fn the_reference_is_updated_on_schedule() {
    let (_, device) = devices().remove(0);
    let start = config(true).init(0, &device).unwrap();
    // Other weights and other parameter ids, as after reading a file.
    let moved = config(true).init(1, &device).unwrap();
    let weight = |model: &CausalModel| {
        floats(model.norm.gamma.val() + model.embed_tokens.weight.val().mean())[0]
    };
    let (a, b) = (weight(&start), weight(&moved));
    assert!((a - b).abs() > 1e-6);

    let mut never = ReferencePolicy::new(&start, ReferenceSync::Never).unwrap();
    assert!(!never.after_step(400, &moved));
    assert_eq!(weight(never.model()), a);

    let mut every = ReferencePolicy::new(&start, ReferenceSync::Every { steps: 3 }).unwrap();
    assert!(!every.after_step(2, &moved));
    assert_eq!(weight(every.model()), a);
    assert!(every.after_step(3, &moved));
    assert_eq!(weight(every.model()), b);

    let sync = ReferenceSync::MovingAverage {
        steps: 1,
        alpha: 0.25,
    };
    let mut average = ReferencePolicy::new(&start, sync).unwrap();
    assert!(average.after_step(1, &moved));
    assert_close(
        weight(average.model()),
        0.75 * a + 0.25 * b,
        1e-5,
        1e-7,
        "blend",
    );

    let wrong = ReferenceSync::MovingAverage {
        steps: 1,
        alpha: 1.5,
    };
    assert!(
        ReferencePolicy::new(&start, wrong)
            .unwrap_err()
            .to_string()
            .contains("alpha")
    );
}

#[test]
fn a_fresh_critic_is_zero_and_its_gradient_reaches_the_trunk_once_the_head_moves() {
    let (_, device) = devices().remove(0);
    let trunk = config(true).init(0, &device.clone().autodiff()).unwrap();
    let critic = ValueHead::new(trunk);
    let batch = TokenBatch::from_rows(&ragged(), &device).unwrap();
    let values = critic.values(&batch.into()).unwrap();
    assert_eq!(values.dims(), [4, 6]);
    assert!(floats(values.clone()).iter().all(|&v| v == 0.0));
    let loss = (values - 1.0).square().mean();
    let grads = GradientsParams::from_grads(loss.backward(), &critic);
    let head = grads.get::<2>(critic.head.weight.id).unwrap();
    assert!(floats(head).iter().any(|&g| g.abs() > 1e-6));
}

/// A trunk that is trained by [`PolicyModel::forward_pass`] alone.
#[derive(Module, Debug)]
struct Recomputed {
    inner: CausalModel,
}

impl PolicyModel for Recomputed {
    crate::passed_on_to_inner!();

    fn forward(&self, tokens: &TokenBatch, cache: &mut KvCache) -> rlvr::Result<Tensor<3>> {
        let hidden = self.inner.forward(tokens, cache)?;
        assert!(!hidden.is_tracked(), "the whole trunk is recorded");
        Ok(hidden)
    }

    fn forward_pass(&self, batch: &PrefixedBatch) -> rlvr::Result<ForwardPass> {
        self.inner.forward_pass(batch)
    }
}

#[test]
fn a_critic_is_trained_by_the_forward_pass_of_its_trunk() {
    let (backend, device) = devices().remove(0);
    let trunk = config(true).init(0, &device.autodiff()).unwrap();
    let with_head = |trunk: CausalModel| {
        let mut critic = ValueHead::new(trunk);
        let ramp = Tensor::<1, burn::tensor::Int>::arange(0..16, &critic.device()).float();
        critic.head.weight = Param::from_tensor((ramp * 0.1 - 0.7).reshape([16, 1]));
        critic
    };
    let batch = PrefixedBatch {
        prefixes: Some(TokenBatch::from_rows(&[[1u32, 2, 3]], &trunk.device()).unwrap()),
        prefix_of: vec![0; 4],
        rows: TokenBatch::from_rows(&ragged(), &trunk.device()).unwrap(),
    };
    let mask = |values: &Tensor<2>| {
        let rows: Vec<Vec<f64>> = ragged()
            .iter()
            .map(|row| {
                (0..6)
                    .map(|t| if t < row.len() { 1.0 } else { 0.0 })
                    .collect()
            })
            .collect();
        common::matrix(&rows, &values.device().inner())
    };
    let loss = |values: Tensor<2>| ((values.clone() - 1.0).square() * mask(&values)).sum();

    let kept = with_head(trunk.clone());
    let whole = loss(kept.values(&batch).unwrap());
    let want = GradientsParams::from_grads(whole.backward(), &kept);
    let want = gradients(&kept.trunk, &want);
    for checkpointing in [false, true] {
        let trunk = trunk.clone().with_gradient_checkpointing(checkpointing);
        let critic = with_head(trunk);
        let pass = critic.value_pass(&batch).unwrap();
        let loss = loss(pass.values.clone());
        let got = gradients(&critic.trunk, &pass.backward(loss, &critic).unwrap());
        for ((name, got), (_, want)) in got.iter().zip(&want) {
            assert_eq!(got.len(), want.len(), "{name}");
            for (got, want) in got.iter().zip(want) {
                let what = format!("{backend} {checkpointing} {name}");
                assert_close(*got, *want, 1e-4, 1e-5, &what);
            }
        }
    }
    let inner = trunk.with_gradient_checkpointing(true);
    let mut critic = ValueHead::new(Recomputed { inner });
    critic.head.weight = critic
        .head
        .weight
        .map(|weight| weight.ones_like().require_grad());
    let pass = critic.value_pass(&batch).unwrap();
    let loss = loss(pass.values.clone());
    assert!(!pass.backward(loss, &critic).unwrap().is_empty());
}

#[test]
fn padding_does_not_reach_the_gradient() {
    for (backend, device) in devices() {
        let on_tape = device.clone().autodiff();
        let targets = ids(&[vec![1, 2, 0], vec![1, 2, 3]], &device);
        let mask = common::matrix(&[vec![1.0, 1.0, 0.0], vec![1.0; 3]], &device);
        #[derive(Module, Debug)]
        struct Unembedding {
            matrix: Param<Tensor<2>>,
        }
        let matrix = Param::from_tensor(Tensor::<2>::ones([4, 5], &on_tape));
        let model = Unembedding { matrix };
        let gradient = |padding: f32| {
            let mut hidden: Vec<f32> = (0..24).map(|x| 0.1 * x as f32).collect();
            hidden[8..12].fill(padding);
            let data = burn::tensor::TensorData::new(hidden, [2, 3, 4]);
            let hidden = Tensor::<3>::from_data(data, &on_tape).require_grad();
            let config = LogProbConfig::default();
            let matrix = model.matrix.val();
            let scored = ScoredTokens::new(hidden, matrix, targets.clone(), &config).unwrap();
            let input = rlvr::loss::LossInput::new(
                scored.log_probs.clone(),
                Tensor::ones([2, 3], &device),
                mask.clone(),
            );
            let counts = rlvr::loss::StepCounts::of(&[2, 3]);
            let loss = rlvr::loss::PolicyObjective::dapo()
                .loss(&input, counts)
                .unwrap();
            let gradients = scored.backward(loss.loss, &model).unwrap();
            floats(gradients.get::<2>(model.matrix.id).unwrap())
        };
        let want = gradient(0.5);
        assert!(want.iter().any(|&g| g != 0.0));
        assert_eq!(gradient(f32::NAN), want, "{backend}");
        assert_eq!(gradient(f32::INFINITY), want, "{backend}");
    }
}

#[test]
fn squared_probabilities_match_the_softmax_for_any_chunk_size() {
    // Two rows of two tokens; the unembedding is the identity, so that hidden states are logits.
    let logits = [
        [0.0, 0.0, 0.0],
        [1.0, -2.0, 0.5],
        [1e4, 0.0, -1e4],
        [-3.0, 1e4, 1e4],
    ];
    let flat: Vec<f32> = logits.concat().into_iter().map(|x: f64| x as f32).collect();
    for (backend, device) in devices() {
        let data = burn::tensor::TensorData::new(flat.clone(), [2, 2, 3]);
        let hidden = Tensor::<3>::from_data(data, &device);
        for temperature in [1.0, 0.5] {
            for chunk in [1, 3, 100] {
                let config = LogProbConfig { temperature, chunk };
                let unembedding = Tensor::<2>::eye(3, &device);
                let got = squared_probabilities(hidden.clone(), unembedding, &config).unwrap();
                assert_eq!(got.dims(), [2, 2]);
                for (got, row) in floats(got).into_iter().zip(logits) {
                    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let p = row.map(|x| ((x - top) / temperature).exp());
                    let sum: f64 = p.iter().sum();
                    let want = p.iter().map(|p| (p / sum) * (p / sum)).sum();
                    assert_close(got, want, 1e-5, 1e-7, backend);
                }
            }
        }
        let narrow = Tensor::<2>::eye(4, &device);
        let error = squared_probabilities(hidden, narrow, &LogProbConfig::default());
        assert!(error.unwrap_err().to_string().contains("unembedding"));
    }
}
