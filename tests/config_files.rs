//! Configuration files of release 0.1 are read for as long as the format lives: same fields, same defaults, and a
//! misspelt field is refused by its name instead of being ignored.

use std::fmt::Debug;

use rlvr::advantage::{Estimator, Gae, Group};
use rlvr::loss::{
    AdaptiveEntropy, Aggregation, KlEstimator, KlPenalty, PolicyObjective, PpoClip, RatioLevel,
    Surrogate, ValueLossConfig,
};
use rlvr::policy::ReferenceSync;
use rlvr::policy::causal::{CausalConfig, LoraConfig, LoraTarget, RopeScaling};
use rlvr::rollout::{GenerationConfig, SamplingConfig};
use rlvr::train::{
    AdaptiveTarget, CriticConfig, Decay, DynamicSampling, EvaluationConfig, Exhausted, KlInReward,
    OptimizerConfig, Schedule, SftConfig, TrainerConfig,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn file() -> String {
    let path = "tests/golden/trainer_config_0_1.json";
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn sampling() -> SamplingConfig {
    SamplingConfig {
        temperature: 0.8,
        top_k: Some(40),
        top_p: Some(0.95),
        min_p: Some(0.05),
    }
}

/// The file, in Rust. Every struct is written out whole: a new field fails to compile here and asks for its default.
fn trainer_config() -> TrainerConfig {
    TrainerConfig {
        seed: 11,
        problems_per_step: 12,
        group_size: 6,
        generation: GenerationConfig {
            sampling: sampling(),
            max_new_tokens: 100,
            stop_tokens: vec![1, 7],
            max_rows: 256,
        },
        objective: PolicyObjective {
            surrogate: Surrogate::PpoClip(PpoClip {
                low: 0.1,
                high: 0.3,
                delta: Some(4.0),
                dual_clip: Some(3.0),
            }),
            ratio_level: RatioLevel::Sequence,
            aggregation: Aggregation::Constant { length: 100 },
            kl: Some(KlPenalty {
                coef: 0.02,
                estimator: KlEstimator::K2,
                // From here on not in a file of 0.1.
                straight_through: false,
                log_ratio_clamp: None,
                value_clamp: None,
                importance_corrected: false,
                aggregation: None,
            }),
            entropy_coef: 0.01,
            // Not in a file of 0.1.
            log_ratio_clamp: None,
            entropy_aggregation: None,
            top_entropy: None,
            off_policy_mask: None,
            sampler_correction: None,
        },
        advantage: Estimator::Gae(Gae {
            gamma: 0.99,
            lambda: 0.9,
            whiten: false,
            whiten_epsilon: 1e-6,
        }),
        // Not in a file of 0.1.
        dynamic_sampling: None,
        optimizer: OptimizerConfig {
            schedule: Schedule {
                peak: 3e-5,
                warmup: 10,
                decay: Decay::Cosine {
                    updates: 1000,
                    floor: 0.1,
                },
            },
            beta_1: 0.8,
            beta_2: 0.95,
            epsilon: 1e-7,
            weight_decay: 0.1,
            max_grad_norm: Some(0.5),
        },
        passes: 2,
        updates_per_pass: 3,
        micro_batch: 32,
        logit_chunk: 512,
        reference_sync: ReferenceSync::MovingAverage {
            steps: 100,
            alpha: 0.6,
        },
        measure_kl: true,
        // Not in a file of 0.1.
        adaptive_kl: None,
        adaptive_entropy: None,
        kl_in_reward: Some(KlInReward {
            penalty: KlPenalty::new(0.05, KlEstimator::K1),
            adaptive: Some(AdaptiveTarget {
                target: 0.1,
                horizon: 10_000.0,
            }),
        }),
        mask_truncated: true,
        critic: CriticConfig {
            optimizer: OptimizerConfig {
                schedule: Schedule {
                    peak: 2e-5,
                    warmup: 5,
                    decay: Decay::Linear {
                        updates: 500,
                        floor: 0.0,
                    },
                },
                beta_1: 0.7,
                beta_2: 0.9,
                epsilon: 1e-6,
                weight_decay: 0.2,
                max_grad_norm: None,
            },
            value_loss: ValueLossConfig {
                clip_range: None,
                aggregation: Aggregation::SequenceMeanTokenMean,
            },
            warmup_steps: 20,
        },
    }
}

/// The paths of the numbers, words and lists that are the same in `a` and `b`.
fn leaves_that_agree(a: &Value, b: &Value, path: &str, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                if let Some(other) = b.get(key) {
                    leaves_that_agree(value, other, &format!("{path}.{key}"), found);
                }
            }
        }
        _ if a == b => found.push(path.to_string()),
        _ => {}
    }
}

/// Round trip, minimal file, and every field refused when it is misspelt.
fn holds<T>(full: &T, minimal: &str, expected: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let text = serde_json::to_string_pretty(full).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), full);
    assert_eq!(&serde_json::from_str::<T>(minimal).unwrap(), expected);
    let whole: Value = serde_json::from_str(&text).unwrap();
    for field in whole.as_object().unwrap().keys() {
        // Left out, the field has its default; misspelt, it is refused under the name that was written.
        let mut misspelt = whole.clone();
        let fields = misspelt.as_object_mut().unwrap();
        let value = fields.remove(field).unwrap();
        let short = serde_json::from_value::<T>(Value::Object(fields.clone())).unwrap();
        assert_ne!(&short, full, "`{field}` makes no difference");
        fields.insert(format!("{field}s"), value);
        let error = serde_json::from_value::<T>(misspelt)
            .unwrap_err()
            .to_string();
        let named = error.contains(&format!("unknown field `{field}s`"));
        assert!(named, "{field}: {error}");
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
}

#[test]
fn the_trainer_file_of_0_1_means_what_it_meant() {
    let read: TrainerConfig = serde_json::from_str(&file()).unwrap();
    assert_eq!(read, trainer_config());
}

#[test]
fn the_trainer_file_leaves_no_field_at_its_default() {
    // A field at its default would read the same if it were ignored.
    let full: Value = serde_json::from_str(&file()).unwrap();
    let default = serde_json::to_value(TrainerConfig::default()).unwrap();
    let mut same = Vec::new();
    leaves_that_agree(&full, &default, "", &mut same);
    assert!(same.is_empty(), "{same:?}");
}

#[test]
fn an_empty_trainer_file_is_the_defaults_and_misspelt_fields_are_refused() {
    let later = TrainerConfig {
        dynamic_sampling: Some(DynamicSampling::default()),
        adaptive_kl: Some(AdaptiveTarget {
            target: 0.2,
            horizon: 5_000.0,
        }),
        adaptive_entropy: Some(AdaptiveEntropy::default()),
        ..trainer_config()
    };
    holds(&later, "{}", &TrainerConfig::default());
    let full = DynamicSampling {
        reward: Some("accuracy".into()),
        max_rounds: 4,
        exhausted: Exhausted::KeepFlat,
    };
    holds(&full, "{}", &DynamicSampling::default());
}

#[test]
fn the_defaults_of_0_1_are_what_they_were() {
    // The numbers of the documentation: a changed default changes what old files mean.
    let default = TrainerConfig::default();
    assert_eq!(
        (default.seed, default.problems_per_step, default.group_size),
        (0, 16, 8)
    );
    assert_eq!((default.passes, default.updates_per_pass), (1, 1));
    assert_eq!((default.micro_batch, default.logit_chunk), (64, 1024));
    assert_eq!(default.objective, PolicyObjective::grpo());
    assert_eq!(default.advantage, Estimator::Group(Group::default()));
    assert_eq!(default.dynamic_sampling, None);
    assert_eq!(default.reference_sync, ReferenceSync::Never);
    assert!(!default.measure_kl && !default.mask_truncated);
    assert_eq!(default.kl_in_reward, None);
    let generation = default.generation;
    assert_eq!((generation.max_new_tokens, generation.max_rows), (64, 512));
    assert!(generation.stop_tokens.is_empty());
    let OptimizerConfig {
        schedule,
        beta_1,
        beta_2,
        epsilon,
        weight_decay,
        max_grad_norm,
    } = default.optimizer;
    assert_eq!(schedule, Schedule::constant(1e-6));
    assert_eq!((beta_1, beta_2, epsilon), (0.9, 0.999, 1e-8));
    assert_eq!((weight_decay, max_grad_norm), (0.0, Some(1.0)));
    let CriticConfig {
        optimizer,
        value_loss,
        warmup_steps,
    } = default.critic;
    assert_eq!(optimizer, OptimizerConfig::new(Schedule::constant(1e-5)));
    assert_eq!(value_loss.clip_range, Some(0.2));
    assert_eq!(value_loss.aggregation, Aggregation::TokenMean);
    assert_eq!(warmup_steps, 0);
}

#[test]
fn a_misspelt_field_is_refused_however_deep_it_stands() {
    for (place, key) in [
        ("/generation", "max_new_token"),
        ("/generation/sampling", "top-k"),
        ("/objective", "entropy"),
        ("/objective/surrogate/ppo_clip", "clip_high"),
        ("/objective/aggregation/constant", "len"),
        ("/objective/kl", "beta"),
        ("/advantage", "lamda"),
        ("/optimizer", "lr"),
        ("/optimizer/schedule", "warm_up"),
        ("/optimizer/schedule/decay/cosine", "steps"),
        ("/reference_sync/moving_average", "every"),
        ("/kl_in_reward", "adaptiv"),
        ("/kl_in_reward/penalty", "kind"),
        ("/kl_in_reward/adaptive", "goal"),
        ("/critic", "warmup"),
        ("/critic/optimizer", "beta1"),
        ("/critic/value_loss", "range"),
    ] {
        let mut value: Value = serde_json::from_str(&file()).unwrap();
        let at = value.pointer_mut(place).unwrap().as_object_mut().unwrap();
        at.insert(key.into(), 1.into());
        let error = serde_json::from_value::<TrainerConfig>(value).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("`{key}`")), "{place}: {error}");
    }
    for (field, word) in [
        (
            r#"{"objective": {"surrogate": {"pppo": {}}, "aggregation": "token_mean"}}"#,
            "pppo",
        ),
        (r#"{"advantage": {"estimator": "grup"}}"#, "grup"),
        (r#"{"reference_sync": "sometimes"}"#, "sometimes"),
    ] {
        let error = serde_json::from_str::<TrainerConfig>(field).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn every_estimator_and_schedule_has_its_word() {
    let words = [
        "group",
        "group_mean",
        "leave_one_out",
        "lite_ppo",
        "gae",
        "reinforce_plus_plus",
        "reinforce_plus_plus_baseline",
        "remax",
        "opo",
        "gpg",
        "pass_at_k",
        "gdpo",
        "optimal_token_baseline",
        "max_rl",
    ];
    assert_eq!(words.len(), Estimator::all().len());
    for (word, advantage) in words.into_iter().zip(Estimator::all()) {
        let text = format!(r#"{{"advantage": {{"estimator": "{word}"}}}}"#);
        let read: TrainerConfig = serde_json::from_str(&text).unwrap();
        assert_eq!(read.advantage, advantage);
    }
    for (word, sync) in [
        (r#""never""#, ReferenceSync::Never),
        (
            r#"{"every": {"steps": 3}}"#,
            ReferenceSync::Every { steps: 3 },
        ),
    ] {
        assert_eq!(serde_json::from_str::<ReferenceSync>(word).unwrap(), sync);
    }
    for (word, aggregation) in [
        ("token_mean", Aggregation::TokenMean),
        (
            "sequence_mean_token_mean",
            Aggregation::SequenceMeanTokenMean,
        ),
        ("sequence_mean_token_sum", Aggregation::SequenceMeanTokenSum),
    ] {
        let text = format!("\"{word}\"");
        assert_eq!(
            serde_json::from_str::<Aggregation>(&text).unwrap(),
            aggregation
        );
    }
    let reinforce = serde_json::from_str::<Surrogate>(r#"{"reinforce": {}}"#).unwrap();
    assert!(matches!(reinforce, Surrogate::Reinforce(_)));
}

#[test]
fn the_model_file_of_0_1_means_what_it_meant() {
    let text = r#"{
        "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 512, "rope_theta": 1000000.0, "rms_norm_eps": 1e-5,
        "attention_bias": true, "qk_norm": true, "tie_word_embeddings": false, "initializer_range": 0.02,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        },
        "unrotated_layers": [2], "sliding_window": 32, "windowed_layers": [0, 1],
        "attention_output_bias": true, "mlp_bias": true
    }"#;
    let full = CausalConfig {
        vocab_size: 100,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 3,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: Some(16),
        max_position_embeddings: 512,
        rope_theta: 1e6,
        rope_scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        },
        unrotated_layers: vec![2],
        sliding_window: Some(32),
        windowed_layers: vec![0, 1],
        rms_norm_eps: 1e-5,
        attention_bias: true,
        attention_output_bias: true,
        mlp_bias: true,
        qk_norm: true,
        tie_word_embeddings: false,
        initializer_range: Some(0.02),
    };
    assert_eq!(serde_json::from_str::<CausalConfig>(text).unwrap(), full);
    holds(&full, r#"{"vocab_size": 9}"#, &CausalConfig::new(9));
}

#[test]
fn the_examination_file_of_0_1_means_what_it_meant() {
    let text = r#"{
        "samples": 8, "k": [2, 8], "reward": "exact", "seed": 3,
        "sampling": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
    }"#;
    let full = EvaluationConfig {
        samples: 8,
        k: vec![2, 8],
        sampling: sampling(),
        reward: "exact".into(),
        seed: 3,
    };
    assert_eq!(
        serde_json::from_str::<EvaluationConfig>(text).unwrap(),
        full
    );
    let expected = EvaluationConfig {
        samples: 0,
        k: Vec::new(),
        sampling: SamplingConfig::default(),
        reward: "accuracy".into(),
        seed: 0,
    };
    holds(&full, "{}", &expected);
}

#[test]
fn the_sampling_file_of_0_1_means_what_it_meant() {
    let text = r#"{"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}"#;
    assert_eq!(
        serde_json::from_str::<SamplingConfig>(text).unwrap(),
        sampling()
    );
    let expected = SamplingConfig {
        temperature: 1.0,
        top_k: None,
        top_p: None,
        min_p: None,
    };
    holds(&sampling(), "{}", &expected);
}

#[test]
fn the_supervised_file_of_0_1_means_what_it_meant() {
    let text = r#"{
        "steps": 100, "batch_size": 16, "micro_batch": 4, "logit_chunk": 128, "seed": 4,
        "optimizer": {"schedule": {"peak": 0.001, "decay": {"linear": {"updates": 100, "floor": 0.5}}}}
    }"#;
    let schedule = Schedule::constant(1e-3).with_decay(Decay::Linear {
        updates: 100,
        floor: 0.5,
    });
    let full = SftConfig {
        steps: 100,
        batch_size: 16,
        micro_batch: 4,
        logit_chunk: 128,
        optimizer: OptimizerConfig::new(schedule),
        seed: 4,
    };
    assert_eq!(serde_json::from_str::<SftConfig>(text).unwrap(), full);
    let expected = SftConfig {
        steps: 250,
        batch_size: 64,
        micro_batch: 64,
        logit_chunk: 1024,
        optimizer: OptimizerConfig::default(),
        seed: 0,
    };
    holds(&full, "{}", &expected);
}

#[test]
fn the_adapters_file_of_0_1_means_what_it_meant() {
    let text = r#"{
        "rank": 4, "alpha": 8.0, "rank_stabilized": true, "targets": ["q_proj", "down_proj"], "seed": 5
    }"#;
    let full = LoraConfig {
        rank: 4,
        alpha: 8.0,
        rank_stabilized: true,
        targets: vec![LoraTarget::QProj, LoraTarget::DownProj],
        seed: 5,
    };
    assert_eq!(serde_json::from_str::<LoraConfig>(text).unwrap(), full);
    let expected = LoraConfig {
        rank: 16,
        alpha: 32.0,
        rank_stabilized: false,
        targets: LoraTarget::ALL.to_vec(),
        seed: 0,
    };
    holds(&full, "{}", &expected);
}
