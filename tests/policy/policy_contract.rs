//! [`check_model`] accepts correct models and names the requirement that a wrong one breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, s};
use rlvr::policy::causal::{CausalConfig, CausalModel, LoraConfig};
use rlvr::policy::{KvCache, PolicyCache, PolicyModel, TokenBatch, check_model};

use crate::common::devices;

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

fn causal(device: &Device) -> CausalModel {
    config(false).init(3, device).unwrap()
}

#[test]
fn the_transformer_passes_check_model() {
    for (backend, device) in devices() {
        for device in [device.clone(), device.autodiff()] {
            for tied in [false, true] {
                let model = config(tied).init(7, &device).unwrap();
                check_model(&model).unwrap_or_else(|error| panic!("{backend} {tied}: {error}"));
                let checkpointed = model.clone().with_gradient_checkpointing(true);
                check_model(&checkpointed).unwrap_or_else(|error| panic!("{backend}: {error}"));
                let adapted = model.with_lora(&LoraConfig::default()).unwrap();
                check_model(&adapted).unwrap_or_else(|error| panic!("{backend} lora: {error}"));
            }
        }
    }
}

/// Rounds every weight to a type.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let to = self.0;
        param.map(|weight| {
            let weight = weight.inner().cast(to);
            weight.autodiff().set_require_grad(true)
        })
    }
}

#[test]
fn the_transformer_passes_check_model_in_half_and_double_precision() {
    let (backend, device) = devices().remove(0);
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let model = causal(&device.clone().autodiff()).map(&mut Cast(dtype));
        check_model(&model).unwrap_or_else(|error| panic!("{backend} {dtype:?}: {error}"));
    }
}

/// A violation of the contract.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    Dice,
    LooksAhead,
    MixesRows,
    SeesPadding,
    Forgets,
    SortsRows,
    AppendsInFront,
    DropsGradient,
    HalvesGradientOfCache,
    CountsOneTooMany,
    ReadsOn,
    NotANumber,
}

/// A model with one flaw.
#[derive(Module, Debug)]
struct Flawed {
    inner: CausalModel,
    #[module(skip)]
    flaw: Flaw,
    #[module(skip)]
    calls: Arc<AtomicU64>,
}

#[derive(Clone)]
struct FlawedCache {
    inner: KvCache,
    flaw: Flaw,
}

impl PolicyCache for FlawedCache {
    fn rows(&self) -> usize {
        self.inner.rows()
    }

    fn lengths(&self) -> &[usize] {
        self.inner.lengths()
    }

    fn select_rows(&mut self, rows: &[usize]) {
        let mut rows = rows.to_vec();
        if self.flaw == Flaw::SortsRows {
            rows.sort();
        }
        self.inner.select_rows(&rows);
    }

    fn append_rows(&mut self, other: &Self, rows: &[usize]) {
        if self.flaw == Flaw::AppendsInFront {
            let own = std::mem::replace(&mut self.inner, other.inner.clone());
            self.inner.select_rows(rows);
            let all: Vec<usize> = (0..own.rows()).collect();
            self.inner.append_rows(&own, &all);
            return;
        }
        self.inner.append_rows(&other.inner, rows);
    }
}

impl PolicyModel for Flawed {
    type Cache = FlawedCache;

    fn empty_cache(&self, rows: usize) -> FlawedCache {
        FlawedCache {
            inner: self.inner.empty_cache(rows),
            flaw: self.flaw,
        }
    }

    fn forward(&self, tokens: &TokenBatch, cache: &mut FlawedCache) -> rlvr::Result<Tensor<3>> {
        let before = cache.lengths().to_vec();
        let hidden = self.inner.forward(tokens, &mut cache.inner)?;
        let [rows, width, _] = hidden.dims();
        Ok(match self.flaw {
            Flaw::Dice => hidden + 0.01 * self.calls.fetch_add(1, Ordering::Relaxed) as f64,
            Flaw::LooksAhead => hidden.clone() + hidden.mean_dim(1),
            Flaw::MixesRows if rows > 1 => hidden.clone() + hidden.slice(s![..1, .., ..]) * 0.01,
            Flaw::SeesPadding => hidden * (1.0 + 0.01 * (width - tokens.lengths[rows - 1]) as f64),
            Flaw::Forgets => {
                let mut nothing = self.inner.empty_cache(rows);
                self.inner.forward(tokens, &mut nothing)?
            }
            Flaw::DropsGradient => hidden.detach(),
            Flaw::HalvesGradientOfCache if before.iter().any(|&read| read > 0) => {
                hidden.clone().detach() * 0.5 + hidden * 0.5
            }
            Flaw::NotANumber => hidden / 0.0,
            _ => hidden,
        })
    }

    fn unembedding(&self) -> Tensor<2> {
        self.inner.unembedding()
    }

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size() + usize::from(self.flaw == Flaw::CountsOneTooMany)
    }

    fn max_positions(&self) -> usize {
        let shorter = if self.flaw == Flaw::ReadsOn { 4 } else { 0 };
        self.inner.max_positions() - shorter
    }

    fn device(&self) -> Device {
        self.inner.device()
    }
}

#[test]
fn check_model_names_the_broken_requirement() {
    let flaws = [
        (
            Flaw::Dice,
            [
                "the same tokens have the same hidden states; row 0, token 0, component 0: ",
                "they may differ by",
            ],
        ),
        (
            Flaw::LooksAhead,
            [
                "a later token changes nothing before it; row 0, token 0, component ",
                "if the row is read alone",
            ],
        ),
        (
            Flaw::MixesRows,
            [
                "a row does not see other rows; row 1, token 0, component ",
                "they may differ by",
            ],
        ),
        (
            Flaw::SeesPadding,
            [
                "a row does not see padding; row 0, token 0, component ",
                "they may differ by",
            ],
        ),
        (
            Flaw::Forgets,
            [
                "reading token by token is the same as reading the whole row; row 0, token 1, component ",
                "they may",
            ],
        ),
        (
            Flaw::SortsRows,
            ["select_rows keeps the rows in the given order; ", "lengths"],
        ),
        (
            Flaw::AppendsInFront,
            ["append_rows appends the given rows; ", "lengths"],
        ),
        (
            Flaw::DropsGradient,
            [
                "everything is differentiable, the cache included; parameter `",
                "by its gradient 0.000000; they may",
            ],
        ),
        (
            Flaw::HalvesGradientOfCache,
            [
                "everything is differentiable, the cache included; gradient of `",
                "where prompts are shared",
            ],
        ),
        (
            Flaw::CountsOneTooMany,
            [
                "the unembedding is [D, V]; it has 11 columns, vocab_size() is 12",
                "",
            ],
        ),
        (
            Flaw::ReadsOn,
            [
                "a row longer than max_positions is an error; token 28 of a row was read",
                "",
            ],
        ),
        (
            Flaw::NotANumber,
            ["hidden states at tokens are finite; row 0, token 0: ", ""],
        ),
    ];
    for (backend, device) in devices() {
        let with = |flaw| Flawed {
            inner: causal(&device.clone().autodiff()),
            flaw,
            calls: Arc::default(),
        };
        check_model(&with(Flaw::None)).unwrap();
        for (flaw, parts) in flaws {
            let error = check_model(&with(flaw)).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{backend} {flaw:?}: {error}");
            }
        }
    }
}

#[test]
fn inputs_too_small_to_check_are_errors() {
    let (_, device) = devices().remove(0);
    for (vocabulary, positions, message) in [
        (1, 32, "invalid `vocab_size`: 1; expected at least 2 tokens"),
        (11, 3, "invalid `max_positions`: 3; expected at least 4"),
    ] {
        let config = CausalConfig {
            max_position_embeddings: positions,
            ..CausalConfig::new(vocabulary)
        };
        let error = check_model(&config.init(0, &device).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
    }
}
