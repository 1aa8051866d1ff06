//! Conversion between `config.json` and [`CausalConfig`].

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::policy::causal::{CausalConfig, RopeScaling};
use crate::{Error, Result};

/// The name of the file.
pub(super) const FILE: &str = "config.json";

/// The supported architectures. DeepSeek-R1's distilled models are `Qwen2` and `Llama`; SmolLM2 is
/// `Llama`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    /// Llama 2, 3 and models with the same layers.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3, dense.
    Qwen3,
    /// SmolLM3.
    SmolLm3,
}

/// The head on the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// An unembedding.
    CausalLm,
    /// One linear unit without a bias, `score`, as in reward models.
    Score,
}

impl Task {
    /// All tasks.
    pub(super) const ALL: [Self; 2] = [Self::Score, Self::CausalLm];

    /// Returns the name of the class of an architecture with this head.
    pub(super) fn class(self, architecture: &str) -> String {
        let end = match self {
            Self::CausalLm => "ForCausalLM",
            Self::Score => "ForSequenceClassification",
        };
        format!("{architecture}{end}")
    }
}

impl Architecture {
    /// All architectures, each with the prefix of its classes and its `model_type` in
    /// `config.json`.
    const NAMES: [(Self, &'static str, &'static str); 5] = [
        (Self::Llama, "Llama", "llama"),
        (Self::Mistral, "Mistral", "mistral"),
        (Self::Qwen2, "Qwen2", "qwen2"),
        (Self::Qwen3, "Qwen3", "qwen3"),
        (Self::SmolLm3, "SmolLM3", "smollm3"),
    ];

    /// Returns the architecture that `config` names.
    fn of(config: &Fields, tasks: &[Task]) -> Result<Self> {
        let class = match config.get("architectures") {
            Some(Value::Array(names)) => names.first().and_then(Value::as_str),
            _ => None,
        };
        let model_type = config.get("model_type").and_then(Value::as_str);
        let known = |(_, a, b): &&(Self, &str, &str)| match class {
            Some(class) => tasks.iter().any(|task| class == task.class(a)),
            None => model_type == Some(*b),
        };
        if let Some((architecture, ..)) = Self::NAMES.iter().find(known) {
            return Ok(*architecture);
        }
        let given = class.or(model_type).unwrap_or("not named");
        let classes = |task: &Task| Self::NAMES.map(|(_, name, _)| task.class(name)).join(", ");
        let supported: Vec<String> = tasks.iter().map(classes).collect();
        let expected = format!("one of {}", supported.join(", "));
        Err(config.invalid("architectures", given, expected))
    }

    /// The prefix of its classes.
    fn name(self) -> &'static str {
        let own = Self::NAMES
            .iter()
            .find(|(architecture, ..)| *architecture == self);
        own.map_or("", |(_, name, _)| name)
    }
}

/// Reads the configuration of the model in `folder` from its `config.json`.
///
/// Both forms of the file are supported: `rope_theta` and `rope_scaling` at the top level
/// (transformers 4), and `rope_parameters` (transformers 5). Missing keys have the defaults of the
/// architecture in `transformers`.
///
/// # Errors
/// Returns an error if the file is missing or broken, or the architecture or a setting is not
/// supported. The error names the setting and the supported values.
pub fn read_config(folder: impl AsRef<Path>) -> Result<CausalConfig> {
    let folder = folder.as_ref();
    parse_fields(folder, &read_fields(folder)?, &[Task::CausalLm])
}

/// Reads the fields of the configuration in `folder`.
pub(super) fn read_fields(folder: &Path) -> Result<Map<String, Value>> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    serde_json::from_str(&text).map_err(|reason| Error::model_file(&path, reason))
}

/// Converts the fields of the configuration in `folder`, whose class must be for one of `tasks`.
pub(super) fn parse_fields(
    folder: &Path,
    fields: &Map<String, Value>,
    tasks: &[Task],
) -> Result<CausalConfig> {
    let path = &folder.join(FILE);
    parse(&Fields { path, fields }, tasks)
}

/// Returns the class for `task` of the architecture that these fields name.
pub(super) fn class(folder: &Path, fields: &Map<String, Value>, task: Task) -> Result<String> {
    let path = &folder.join(FILE);
    let architecture = Architecture::of(&Fields { path, fields }, &Task::ALL)?;
    Ok(task.class(architecture.name()))
}

fn parse(config: &Fields, tasks: &[Task]) -> Result<CausalConfig> {
    let architecture = Architecture::of(config, tasks)?;
    use Architecture::*;
    if let Some(method) = config.get("quantization_config") {
        let method = method.get("quant_method").unwrap_or(method);
        let expected = "none: quantised weights are not read".to_string();
        return Err(config.invalid("quantization_config", method, expected));
    }
    let activation = config.text("hidden_act", "silu")?;
    if !["silu", "swish"].contains(&activation.as_str()) {
        return Err(config.invalid("hidden_act", activation, "silu".into()));
    }
    let layers = config.required("num_hidden_layers")?;
    let heads = config.required("num_attention_heads")?;
    let positions = config.count("max_position_embeddings")?.unwrap_or(2048);
    let attention_bias = config.flag("attention_bias", false)?;
    let (attention_bias, attention_output_bias) = match architecture {
        Llama | Qwen3 | SmolLm3 => (attention_bias, attention_bias),
        Qwen2 => (true, false),
        Mistral => (false, false),
    };
    let has_mlp_bias = matches!(architecture, Llama | SmolLm3);
    let (rope_theta, rope_scaling) = rope(config, architecture, positions)?;
    let unrotated_layers = match architecture {
        SmolLm3 => unrotated(config, layers)?,
        _ => Vec::new(),
    };
    let (sliding_window, windowed_layers) =
        windows(config, architecture, layers, &unrotated_layers)?;
    let parsed = CausalConfig {
        vocab_size: config.required("vocab_size")?,
        hidden_size: config.required("hidden_size")?,
        intermediate_size: config.required("intermediate_size")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: config.count("num_key_value_heads")?.unwrap_or(heads),
        head_dim: config.count("head_dim")?.or(match architecture {
            Qwen3 => Some(128),
            _ => None,
        }),
        max_position_embeddings: positions,
        rope_theta,
        rope_scaling,
        unrotated_layers,
        sliding_window,
        windowed_layers,
        rms_norm_eps: config.number("rms_norm_eps")?.unwrap_or(1e-6),
        attention_bias,
        attention_output_bias,
        mlp_bias: has_mlp_bias && config.flag("mlp_bias", false)?,
        qk_norm: architecture == Qwen3,
        tie_word_embeddings: config.flag("tie_word_embeddings", architecture == SmolLm3)?,
        initializer_range: None,
    };
    let valid = parsed.validate();
    valid.map_err(|reason| Error::model_file(config.path, reason))?;
    Ok(parsed)
}

/// Returns the fields of a `config.json` that [`read_config`] reads as `config`. The architecture
/// is the first of [`Architecture`] that supports `config`.
///
/// # Errors
/// Returns an error if no architecture supports `config`.
pub(super) fn to_fields(config: &CausalConfig, task: Task) -> Result<Map<String, Value>> {
    use Architecture::*;
    let layers = config.num_hidden_layers;
    let windowed = &config.windowed_layers;
    let all_windowed = windowed.len() == layers;
    let even_bias = config.attention_bias == config.attention_output_bias;
    let unrotated = !config.unrotated_layers.is_empty();
    let has = |architecture: &Architecture| match architecture {
        Llama => even_bias && windowed.is_empty() && !unrotated && !config.qk_norm,
        Mistral => {
            let bias = config.attention_bias || config.attention_output_bias || config.mlp_bias;
            all_windowed && !bias && !unrotated && !config.qk_norm
        }
        Qwen2 => {
            let bias = config.attention_bias && !config.attention_output_bias;
            bias && !config.mlp_bias && !unrotated && !config.qk_norm
        }
        Qwen3 => config.qk_norm && even_bias && !config.mlp_bias && !unrotated,
        SmolLm3 => even_bias && !config.qk_norm,
    };
    let known = Architecture::NAMES
        .iter()
        .find(|(architecture, ..)| has(architecture));
    let Some((architecture, name, model_type)) = known else {
        return Err(Error::config(
            "model",
            "a combination of biases, norms, windows and rotations",
            "one of a supported architecture of transformers",
        ));
    };
    let mut rope = serde_json::to_value(config.rope_scaling).unwrap_or_default();
    rope["rope_theta"] = json!(config.rope_theta);
    let mut fields = json!({
        "architectures": [task.class(name)],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_size(),
        "max_position_embeddings": config.max_position_embeddings,
        "rope_parameters": rope,
        "rms_norm_eps": config.rms_norm_eps,
        "hidden_act": "silu",
        "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tie_word_embeddings,
        "sliding_window": config.sliding_window.filter(|_| !windowed.is_empty()),
    });
    if !matches!(architecture, Llama | Mistral) {
        let kind = |layer: usize| match windowed.contains(&layer) {
            true => "sliding_attention",
            false => "full_attention",
        };
        fields["use_sliding_window"] = json!(!windowed.is_empty());
        fields["layer_types"] = (0..layers).map(kind).collect();
    }
    if *architecture == SmolLm3 {
        let rotates = |layer| u8::from(!config.unrotated_layers.contains(&layer));
        fields["no_rope_layers"] = (0..layers).map(rotates).collect();
    }
    match fields {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// Reads the base and the scaling of the rotary frequencies.
fn rope(
    config: &Fields,
    architecture: Architecture,
    positions: usize,
) -> Result<(f64, RopeScaling)> {
    let nested = match (config.get("rope_parameters"), config.get("rope_scaling")) {
        (Some(Value::Object(fields)), _) | (None, Some(Value::Object(fields))) => Some(fields),
        (None, None) => None,
        (Some(other), _) | (None, Some(other)) => {
            let expected = "an object or null".to_string();
            return Err(config.invalid("rope_parameters", other, expected));
        }
    };
    let empty = Map::new();
    let scaling = Fields {
        path: config.path,
        fields: nested.unwrap_or(&empty),
    };
    let usual = match architecture {
        Architecture::SmolLm3 => 2_000_000.0,
        _ => 10_000.0,
    };
    let theta = match scaling.number("rope_theta")? {
        Some(theta) => theta,
        None => config.number("rope_theta")?.unwrap_or(usual),
    };
    for fields in [config, &scaling] {
        if let Some(part) = fields.number("partial_rotary_factor")?
            && part != 1.0
        {
            let expected = "1: whole heads are rotated".to_string();
            return Err(config.invalid("partial_rotary_factor", part, expected));
        }
    }
    let kind = match scaling.get("rope_type") {
        Some(_) => scaling.text("rope_type", "default")?,
        None => scaling.text("type", "default")?,
    };
    let original = scaling.count("original_max_position_embeddings")?;
    let original_max_position_embeddings = original.unwrap_or(positions);
    let rope_scaling = match kind.as_str() {
        // Dynamic scaling applies only to rows longer than max_position_embeddings, which are not
        // supported.
        "default" | "dynamic" => RopeScaling::Unscaled,
        "linear" => RopeScaling::Linear {
            factor: scaling.needed("factor")?,
        },
        "llama3" => RopeScaling::Llama3 {
            factor: scaling.needed("factor")?,
            low_freq_factor: scaling.needed("low_freq_factor")?,
            high_freq_factor: scaling.needed("high_freq_factor")?,
            original_max_position_embeddings,
        },
        "yarn" => yarn(&scaling, positions, original_max_position_embeddings)?,
        other => {
            let expected = "one of default, dynamic, linear, llama3, yarn".to_string();
            return Err(config.invalid("rope_type", other, expected));
        }
    };
    Ok((theta, rope_scaling))
}

/// Reads the settings of YaRN, with the defaults of its authors.
fn yarn(scaling: &Fields, positions: usize, original: usize) -> Result<RopeScaling> {
    let factor = match scaling.number("factor")? {
        Some(factor) => factor,
        None => positions as f64 / original as f64,
    };
    let magnitude = |scale: f64| match factor > 1.0 {
        true => 0.1 * scale * factor.ln() + 1.0,
        false => 1.0,
    };
    let (own, all) = (
        scaling.number("mscale")?.filter(|&scale| scale != 0.0),
        scaling
            .number("mscale_all_dim")?
            .filter(|&scale| scale != 0.0),
    );
    let attention_factor = match (scaling.number("attention_factor")?, own, all) {
        (Some(given), ..) => given,
        (None, Some(own), Some(all)) => magnitude(own) / magnitude(all),
        _ => magnitude(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: scaling.number("beta_fast")?.unwrap_or(32.0),
        beta_slow: scaling.number("beta_slow")?.unwrap_or(1.0),
        attention_factor,
        truncate: scaling.flag("truncate", true)?,
    })
}

/// Reads SmolLM3's layers without rotation: a list with 0 for each of them, or an interval.
fn unrotated(config: &Fields, layers: usize) -> Result<Vec<usize>> {
    let Some(list) = config.get("no_rope_layers") else {
        let interval = config.count("no_rope_layer_interval")?.unwrap_or(4).max(1);
        let unrotated = (0..layers).filter(|layer| (layer + 1).is_multiple_of(interval));
        return Ok(unrotated.collect());
    };
    let rotates: Option<Vec<bool>> = list.as_array().and_then(|list| {
        let flag = |value: &Value| value.as_bool().or(value.as_u64().map(|number| number != 0));
        list.iter().map(flag).collect()
    });
    match rotates {
        Some(rotates) if rotates.len() == layers => {
            Ok((0..layers).filter(|&layer| !rotates[layer]).collect())
        }
        _ => {
            let expected = format!("{layers} numbers, 0 for a layer without rotation");
            Err(config.invalid("no_rope_layers", list, expected))
        }
    }
}

/// Reads the sliding window and the windowed layers.
fn windows(
    config: &Fields,
    architecture: Architecture,
    layers: usize,
    unrotated: &[usize],
) -> Result<(Option<usize>, Vec<usize>)> {
    use Architecture::*;
    let usual = match (architecture, config.fields.contains_key("sliding_window")) {
        (Mistral | Qwen2 | Qwen3, false) => Some(4096),
        _ => None,
    };
    let Some(window) = config.count("sliding_window")?.or(usual) else {
        return Ok((None, Vec::new()));
    };
    let used = match architecture {
        Llama => false,
        Mistral => true,
        Qwen2 | Qwen3 | SmolLm3 => config.flag("use_sliding_window", false)?,
    };
    if !used {
        return Ok((None, Vec::new()));
    }
    let windowed: Vec<usize> = match (architecture, config.get("layer_types")) {
        (Mistral, _) => (0..layers).collect(),
        (_, Some(types)) => {
            let types: Vec<Option<&str>> = match types.as_array() {
                Some(types) => types.iter().map(Value::as_str).collect(),
                None => Vec::new(),
            };
            let known = |kind: &Option<&str>| {
                [Some("full_attention"), Some("sliding_attention")].contains(kind)
            };
            if types.len() != layers || !types.iter().all(known) {
                let expected =
                    format!("{layers} times \"full_attention\" or \"sliding_attention\"");
                let given = format!("{types:?}");
                return Err(config.invalid("layer_types", given, expected));
            }
            let slides = |&layer: &usize| types[layer] == Some("sliding_attention");
            (0..layers).filter(slides).collect()
        }
        (SmolLm3, None) => unrotated.to_vec(),
        (_, None) => {
            let first = config.count("max_window_layers")?.unwrap_or(28);
            (first..layers).collect()
        }
    };
    Ok(match windowed.is_empty() {
        true => (None, windowed),
        false => (Some(window), windowed),
    })
}

/// The fields of an object in `config.json`. A field that is `null` counts as missing.
struct Fields<'a> {
    path: &'a Path,
    fields: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn invalid(&self, name: &str, given: impl std::fmt::Display, expected: String) -> Error {
        let reason = format!("`{name}` is {given}; expected {expected}");
        Error::model_file(self.path, reason)
    }

    /// Converts a field by `read`, if it exists.
    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let read = read(value).ok_or_else(|| self.invalid(name, value, expected.into()))?;
        Ok(Some(read))
    }

    fn count(&self, name: &str) -> Result<Option<usize>> {
        let whole = |value: &Value| usize::try_from(value.as_u64()?).ok();
        self.typed(name, "a whole number", whole)
    }

    fn required(&self, name: &str) -> Result<usize> {
        let count = self.count(name)?;
        count.ok_or_else(|| self.invalid(name, "missing", "a whole number".into()))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", Value::as_f64)
    }

    fn needed(&self, name: &str) -> Result<f64> {
        let number = self.number(name)?;
        number.ok_or_else(|| self.invalid(name, "missing", "a number".into()))
    }

    fn flag(&self, name: &str, usual: bool) -> Result<bool> {
        let flag = self.typed(name, "true or false", Value::as_bool)?;
        Ok(flag.unwrap_or(usual))
    }

    fn text(&self, name: &str, usual: &str) -> Result<String> {
        let text = self.typed(name, "a string", |v| v.as_str().map(str::to_string))?;
        Ok(text.unwrap_or_else(|| usual.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_as_they_were_written() {
        let base = CausalConfig {
            num_hidden_layers: 3,
            head_dim: Some(32),
            tie_word_embeddings: false,
            ..CausalConfig::new(40)
        };
        let yarn = RopeScaling::Yarn {
            factor: 4.0,
            original_max_position_embeddings: 64,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.25,
            truncate: false,
        };
        let windows = |layers: &[usize]| CausalConfig {
            sliding_window: Some(8),
            windowed_layers: layers.to_vec(),
            ..base.clone()
        };
        let cases = [
            (base.clone(), "llama"),
            (windows(&[0, 1, 2]), "mistral"),
            (windows(&[1]), "smollm3"),
            (
                CausalConfig {
                    attention_bias: true,
                    ..windows(&[2])
                },
                "qwen2",
            ),
            (
                CausalConfig {
                    qk_norm: true,
                    tie_word_embeddings: true,
                    rope_scaling: yarn,
                    ..base.clone()
                },
                "qwen3",
            ),
            (
                CausalConfig {
                    attention_bias: true,
                    attention_output_bias: true,
                    mlp_bias: true,
                    rope_theta: 500_000.0,
                    rope_scaling: RopeScaling::Linear { factor: 2.0 },
                    ..base.clone()
                },
                "llama",
            ),
            (
                CausalConfig {
                    unrotated_layers: vec![0, 2],
                    ..base.clone()
                },
                "smollm3",
            ),
        ];
        for (config, model_type) in cases {
            for (task, other) in [(Task::CausalLm, Task::Score), (Task::Score, Task::CausalLm)] {
                let fields = to_fields(&config, task).unwrap();
                assert_eq!(fields["model_type"], model_type);
                let read = |task| parse_fields(Path::new("model"), &fields, &[task]);
                assert_eq!(read(task).unwrap(), config, "{fields:?}");
                let message = read(other).unwrap_err().to_string();
                assert!(message.contains("`architectures` is"), "{message}");
            }
        }
        let unsupported = CausalConfig {
            qk_norm: true,
            mlp_bias: true,
            ..base
        };
        assert!(to_fields(&unsupported, Task::CausalLm).is_err());
    }
}
