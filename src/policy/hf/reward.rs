//! Reward models: folders of `...ForSequenceClassification` classes with one label.

use std::path::Path;

use burn::nn::Linear;
use burn::tensor::{DType, Device};
use serde_json::{Map, Value, json};

use super::config::{self, Task, parse_fields, read_fields};
use super::load::{LoadOptions, read_weights};
use super::save::{SaveOptions, check, check_config, write};
use crate::policy::causal::{CausalConfig, CausalModel, Weight, WeightSource};
use crate::policy::{PolicyModel, ValueHead};
use crate::{Error, Result, host};

/// The name of the linear unit in the files.
const SCORE: &str = "score";

/// Loads the reward model in `folder`: `LlamaForSequenceClassification`, or the same class of
/// another supported architecture, with one label.
///
/// The logit of a text in `transformers` is the model's value after the last token, which
/// [`ModelReward`](crate::reward::ModelReward) uses. `transformers` takes the last token that is
/// not `pad_token_id`: if that is also the end-of-text token, `transformers` scores a text that
/// ends with it at the token before. The trunk has tied embeddings, since there is no unembedding
/// in the folder. The score is f32, whatever the type of the trunk.
///
/// ```no_run
/// use burn::tensor::Device;
/// use rlvr::policy::hf::{LoadOptions, load_reward_model};
/// use rlvr::prompt::hf::ChatTokenizer;
/// use rlvr::reward::ModelReward;
/// use std::sync::Arc;
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let folder = "Skywork-Reward-V2-Qwen3-0.6B";
/// let model = load_reward_model(folder, &LoadOptions::f32(), &Device::flex())?;
/// let reward = ModelReward::new(model, Arc::new(ChatTokenizer::from_folder(folder)?))
///     .with_conversation();
/// # let _ = reward;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Returns the errors of [`load`](super::load()), and an error if the number of labels is not one.
pub fn load_reward_model(
    folder: impl AsRef<Path>,
    options: &LoadOptions,
    device: &Device,
) -> Result<ValueHead<CausalModel>> {
    let folder = folder.as_ref();
    let fields = read_fields(folder)?;
    let config = parse_fields(folder, &fields, &[Task::Score])?;
    let labels = [
        (
            "num_labels",
            fields.get("num_labels").and_then(Value::as_u64),
        ),
        (
            "id2label",
            fields
                .get("id2label")
                .and_then(Value::as_object)
                .map(|map| map.len() as u64),
        ),
    ];
    if let Some((name, Some(labels))) = labels.into_iter().find(|(_, n)| n.is_some_and(|n| n != 1))
    {
        let reason = format!("`{name}` has {labels} labels; expected one: a reward is one number");
        return Err(Error::model_file(folder.join(config::FILE), reason));
    }
    let tied = config.tie_word_embeddings;
    let config = CausalConfig {
        tie_word_embeddings: true,
        ..config
    };
    read_weights(folder, &config, tied, options, device, |reader| {
        let trunk = CausalModel::build(&config, reader);
        reader.dtype = DType::F32;
        let score = reader.linear(SCORE, config.hidden_size, 1, false);
        let head = Linear {
            weight: score.weight,
            bias: None,
        };
        ValueHead { trunk, head }
    })
}

/// Writes `model` atomically into the folder `to`, as a model of the `...ForSequenceClassification`
/// class of its architecture with one label, whose logit is the value.
///
/// `pad_token` is the id of padding tokens in `transformers`; the default is that in the
/// configuration of [`SaveOptions::from`]. Choose a token that does not end a text; see
/// [`load_reward_model`]. [`SaveOptions::from`] may be the folder of a reward model or of the
/// language model that the trunk was made from. The score is written in the type of the trunk's
/// weights, as by `transformers`.
///
/// ```
/// use rlvr::policy::ValueHead;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::policy::hf::{LoadOptions, SaveOptions, load_reward_model, save_reward_model};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// # let root = std::env::temp_dir().join(format!("rlvr_save_reward_{}", std::process::id()));
/// # let folder = root.join("model");
/// let device = burn::tensor::Device::flex();
/// let config = CausalConfig { num_hidden_layers: 1, ..CausalConfig::new(32) };
/// let model = ValueHead::new(config.init(0, &device)?).without_bias();
/// save_reward_model(&model, &folder, Some(0), &SaveOptions::default())?;
/// let again = load_reward_model(&folder, &LoadOptions::default(), &device)?;
/// assert_eq!(again.head.weight.dims(), [128, 1]);
/// # std::fs::remove_dir_all(root).unwrap();
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Returns the errors of [`save`](super::save()), and an error if the head has a bias that is not
/// zero, or there is no padding token.
pub fn save_reward_model(
    model: &ValueHead<CausalModel>,
    to: impl AsRef<Path>,
    pad_token: Option<u32>,
    options: &SaveOptions,
) -> Result<()> {
    check(&model.trunk, options)?;
    if let Some(bias) = &model.head.bias {
        let bias = host::floats(bias.val().inner(), "the bias of the head")?;
        if let Some(bias) = bias.first().filter(|&&bias| bias != 0.0) {
            let expected =
                "0 or no bias, since `score` has none; train a head from ValueHead::without_bias";
            return Err(Error::config("model.head.bias", bias, expected));
        }
    }
    let fields = match &options.from {
        Some(from) => fields_of(model.trunk.config(), from)?,
        None => config::to_fields(model.trunk.config(), Task::Score)?,
    };
    let fields = with_label(fields, pad_token, model.trunk.vocab_size())?;
    let mut weights = model.trunk.named_weights();
    weights.retain(|(name, _)| name != "lm_head.weight");
    let score = Weight::Projection(&model.head.weight);
    weights.push((format!("{SCORE}.weight"), score));
    write(fields, &weights, to.as_ref(), options)
}

/// Returns the fields of the configuration in `from`, which is that of the trunk with either head,
/// changed to those of a reward model.
fn fields_of(trunk: &CausalConfig, from: &Path) -> Result<Map<String, Value>> {
    let mut fields = read_fields(from)?;
    let theirs = parse_fields(from, &fields, &Task::ALL)?;
    // The unembedding is not written, so tying does not matter.
    let theirs = CausalConfig {
        tie_word_embeddings: trunk.tie_word_embeddings,
        ..theirs
    };
    check_config(trunk, &theirs, from)?;
    let class = config::class(from, &fields, Task::Score)?;
    fields.insert("architectures".into(), json!([class]));
    Ok(fields)
}

/// Adds one label and the padding token to the fields.
fn with_label(
    mut fields: Map<String, Value>,
    pad_token: Option<u32>,
    vocabulary: usize,
) -> Result<Map<String, Value>> {
    let stored = fields.get("pad_token_id").and_then(Value::as_u64);
    let expected = format!("the id of the padding token, below {vocabulary}");
    match pad_token.map(u64::from).or(stored) {
        Some(id) if id < vocabulary as u64 => fields.insert("pad_token_id".into(), json!(id)),
        Some(id) => return Err(Error::config("pad_token", id, expected)),
        None => return Err(Error::config("pad_token", "none", expected)),
    };
    fields.insert("num_labels".into(), json!(1));
    fields.insert("id2label".into(), json!({"0": "LABEL_0"}));
    fields.insert("label2id".into(), json!({"LABEL_0": 0}));
    Ok(fields)
}
