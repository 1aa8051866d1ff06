//! Shapes of open models by name.

use super::shape::{AttentionShape, Experts, ModelShape};
use crate::{Error, Result};

/// The families of dense models, which differ in parameters outside the large matrices.
#[derive(Clone, Copy)]
enum Family {
    /// Two norms per block.
    Llama,
    /// Also biases on queries, keys and values.
    Qwen2,
    /// Also norms of the query and key heads.
    Qwen3,
}

use Family::{Llama, Qwen2, Qwen3};

/// Name, family, vocabulary, width, layers, query heads, key/value heads, head size, inner width,
/// whether the unembedding is tied.
type Dense = (&'static str, Family, [u64; 7], bool);

const DENSE: [Dense; 29] = [
    (
        "smollm2-135m",
        Llama,
        [49_152, 576, 30, 9, 3, 64, 1536],
        true,
    ),
    (
        "smollm2-360m",
        Llama,
        [49_152, 960, 32, 15, 5, 64, 2560],
        true,
    ),
    (
        "smollm2-1.7b",
        Llama,
        [49_152, 2048, 24, 32, 32, 64, 8192],
        true,
    ),
    (
        "smollm3-3b",
        Llama,
        [128_256, 2048, 36, 16, 4, 128, 11_008],
        true,
    ),
    (
        "llama-2-7b",
        Llama,
        [32_000, 4096, 32, 32, 32, 128, 11_008],
        false,
    ),
    (
        "llama-3.2-1b",
        Llama,
        [128_256, 2048, 16, 32, 8, 64, 8192],
        true,
    ),
    (
        "llama-3.2-3b",
        Llama,
        [128_256, 3072, 28, 24, 8, 128, 8192],
        true,
    ),
    (
        "llama-3.1-8b",
        Llama,
        [128_256, 4096, 32, 32, 8, 128, 14_336],
        false,
    ),
    (
        "llama-3.3-70b",
        Llama,
        [128_256, 8192, 80, 64, 8, 128, 28_672],
        false,
    ),
    (
        "mistral-7b-v0.3",
        Llama,
        [32_768, 4096, 32, 32, 8, 128, 14_336],
        false,
    ),
    (
        "qwen2.5-0.5b",
        Qwen2,
        [151_936, 896, 24, 14, 2, 64, 4864],
        true,
    ),
    (
        "qwen2.5-1.5b",
        Qwen2,
        [151_936, 1536, 28, 12, 2, 128, 8960],
        true,
    ),
    (
        "qwen2.5-3b",
        Qwen2,
        [151_936, 2048, 36, 16, 2, 128, 11_008],
        true,
    ),
    (
        "qwen2.5-7b",
        Qwen2,
        [152_064, 3584, 28, 28, 4, 128, 18_944],
        false,
    ),
    (
        "qwen2.5-14b",
        Qwen2,
        [152_064, 5120, 48, 40, 8, 128, 13_824],
        false,
    ),
    (
        "qwen2.5-32b",
        Qwen2,
        [152_064, 5120, 64, 40, 8, 128, 27_648],
        false,
    ),
    (
        "qwen2.5-72b",
        Qwen2,
        [152_064, 8192, 80, 64, 8, 128, 29_568],
        false,
    ),
    (
        "qwen3-0.6b",
        Qwen3,
        [151_936, 1024, 28, 16, 8, 128, 3072],
        true,
    ),
    (
        "qwen3-1.7b",
        Qwen3,
        [151_936, 2048, 28, 16, 8, 128, 6144],
        true,
    ),
    (
        "qwen3-4b",
        Qwen3,
        [151_936, 2560, 36, 32, 8, 128, 9728],
        true,
    ),
    (
        "qwen3-8b",
        Qwen3,
        [151_936, 4096, 36, 32, 8, 128, 12_288],
        false,
    ),
    (
        "qwen3-14b",
        Qwen3,
        [151_936, 5120, 40, 40, 8, 128, 17_408],
        false,
    ),
    (
        "qwen3-32b",
        Qwen3,
        [151_936, 5120, 64, 64, 8, 128, 25_600],
        false,
    ),
    (
        "r1-distill-qwen-1.5b",
        Qwen2,
        [151_936, 1536, 28, 12, 2, 128, 8960],
        false,
    ),
    (
        "r1-distill-qwen-7b",
        Qwen2,
        [152_064, 3584, 28, 28, 4, 128, 18_944],
        false,
    ),
    (
        "r1-distill-qwen-14b",
        Qwen2,
        [152_064, 5120, 48, 40, 8, 128, 13_824],
        false,
    ),
    (
        "r1-distill-qwen-32b",
        Qwen2,
        [152_064, 5120, 64, 40, 8, 128, 27_648],
        false,
    ),
    (
        "r1-distill-llama-8b",
        Llama,
        [128_256, 4096, 32, 32, 8, 128, 14_336],
        false,
    ),
    (
        "r1-distill-llama-70b",
        Llama,
        [128_256, 8192, 80, 64, 8, 128, 28_672],
        false,
    ),
];

/// Models that the crate plans for but does not load.
const MIXTURES: [&str; 4] = [
    "qwen3-30b-a3b",
    "qwen3-235b-a22b",
    "glm-4.5-air",
    "deepseek-v3",
];

fn dense((_, family, sizes, tied): Dense) -> ModelShape {
    let [
        vocab_size,
        hidden_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        intermediate_size,
    ] = sizes;
    ModelShape {
        vocab_size,
        hidden_size,
        intermediate_size,
        layers,
        heads,
        attention: AttentionShape::Grouped { kv_heads, head_dim },
        experts: None,
        tied,
        vectors_per_layer: 2 * hidden_size
            + match family {
                Llama => 0,
                Qwen2 => (heads + 2 * kv_heads) * head_dim,
                Qwen3 => 2 * head_dim,
            },
    }
}

fn mixture(name: &str) -> Option<ModelShape> {
    let qwen = |sizes, width, layers| ModelShape {
        experts: Some(Experts {
            count: 128,
            per_token: 8,
            shared: 0,
            width,
            layers,
        }),
        ..dense(("", Qwen3, sizes, false))
    };
    Some(match name {
        "qwen3-30b-a3b" => qwen([151_936, 2048, 48, 32, 4, 128, 6144], 768, 48),
        "qwen3-235b-a22b" => qwen([151_936, 4096, 94, 64, 4, 128, 12_288], 1536, 94),
        "glm-4.5-air" => ModelShape {
            experts: Some(Experts {
                count: 128,
                per_token: 8,
                shared: 1,
                width: 1408,
                layers: 45,
            }),
            ..dense(("", Qwen2, [151_552, 4096, 46, 96, 8, 128, 10_944], false))
        },
        "deepseek-v3" => ModelShape {
            vocab_size: 129_280,
            hidden_size: 7168,
            intermediate_size: 18_432,
            layers: 61,
            heads: 128,
            attention: AttentionShape::Latent {
                q_rank: Some(1536),
                kv_rank: 512,
                nope: 128,
                rope: 64,
                value: 128,
            },
            experts: Some(Experts {
                count: 256,
                per_token: 8,
                shared: 1,
                width: 2048,
                layers: 58,
            }),
            tied: false,
            vectors_per_layer: 2 * 7168 + 1536 + 512,
        },
        _ => return None,
    })
}

impl ModelShape {
    /// Returns the names that [`named`](Self::named) accepts.
    pub fn names() -> Vec<&'static str> {
        DENSE.iter().map(|row| row.0).chain(MIXTURES).collect()
    }

    /// Returns the shape of an open model by its name on the Hugging Face hub, in lower case and
    /// without the organisation and words such as `Instruct`: `qwen2.5-7b`, `r1-distill-qwen-1.5b`,
    /// `deepseek-v3`.
    ///
    /// # Errors
    /// [`Error::Config`] listing the names if there is no such model.
    pub fn named(name: &str) -> Result<Self> {
        let wanted = name.to_lowercase();
        if let Some(shape) = mixture(&wanted) {
            return Ok(shape);
        }
        let found = DENSE.iter().find(|row| row.0 == wanted);
        found.map(|row| dense(*row)).ok_or_else(|| {
            let expected = format!("a config.json, or one of {}", Self::names().join(", "));
            Error::config("model", name, expected)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameter counts from the publishers or files of the models.
    #[test]
    fn models_have_the_parameters_that_are_published() {
        for (name, parameters) in [
            ("smollm2-135m", 134_515_008),
            ("smollm2-360m", 361_821_120),
            ("smollm2-1.7b", 1_711_376_384),
            ("smollm3-3b", 3_075_098_624),
            ("llama-2-7b", 6_738_415_616),
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
            ("llama-3.1-8b", 8_030_261_248),
            ("llama-3.3-70b", 70_553_706_496),
            ("mistral-7b-v0.3", 7_248_023_552),
            ("qwen2.5-0.5b", 494_032_768),
            ("qwen2.5-1.5b", 1_543_714_304),
            ("qwen2.5-3b", 3_085_938_688),
            ("qwen2.5-7b", 7_615_616_512),
            ("qwen2.5-14b", 14_770_033_664),
            ("qwen2.5-32b", 32_763_876_352),
            ("qwen2.5-72b", 72_706_203_648),
            ("qwen3-0.6b", 596_049_920),
            ("qwen3-8b", 8_190_735_360),
            ("qwen3-14b", 14_768_307_200),
            ("qwen3-32b", 32_762_123_264),
            ("r1-distill-qwen-1.5b", 1_777_088_000),
            ("qwen3-30b-a3b", 30_532_122_624),
            ("qwen3-235b-a22b", 235_093_634_560),
        ] {
            let shape = ModelShape::named(name).unwrap();
            assert_eq!(shape.parameters(), parameters, "{name}");
        }
    }

    /// In billions: all parameters, and those that a token is multiplied by.
    #[test]
    fn mixtures_have_the_active_parameters_that_are_published() {
        for (name, all, active) in [
            ("llama-3.1-8b", 8.030, 7.505),
            ("qwen2.5-7b", 7.615, 7.070),
            ("qwen3-30b-a3b", 30.53, 3.04),
            ("qwen3-235b-a22b", 235.1, 21.6),
            ("glm-4.5-air", 106.9, 12.8),
            ("deepseek-v3", 671.03, 36.6),
        ] {
            let shape = ModelShape::named(name).unwrap();
            let close = |got: u64, want: f64| (got as f64 / (1e9 * want) - 1.0).abs() < 2e-3;
            assert!(
                close(shape.parameters(), all),
                "{name} {}",
                shape.parameters()
            );
            assert!(close(shape.active_parameters(), active), "{name}");
        }
    }

    #[test]
    fn every_name_is_found_and_others_list_them() {
        for name in ModelShape::names() {
            ModelShape::named(name).unwrap();
        }
        let unknown = ModelShape::named("gpt-2").unwrap_err().to_string();
        assert!(unknown.contains("smollm2-135m"), "{unknown}");
    }
}
