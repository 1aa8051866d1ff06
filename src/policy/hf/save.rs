//! Writing a model folder.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, FloatDType, TensorData};
use safetensors::{Dtype, View};
use serde_json::{Map, Value, json};

use super::config::{self, Task};
use super::files::{INDEX, SINGLE};
use crate::folder::write_whole;
use crate::policy::causal::{CausalConfig, CausalModel, Weight};
use crate::{Error, Result};

/// The options of [`save`] and [`save_reward_model`](super::save_reward_model).
#[derive(Clone, Debug, PartialEq)]
pub struct SaveOptions {
    /// The folder that the model was made from. Its tokenizer, chat template, generation settings
    /// and licence are copied, and its `config.json` except for the type of the weights. Default:
    /// none; the folder then has only the weights and a `config.json` of the model's configuration.
    pub from: Option<PathBuf>,
    /// The type that the weights are rounded to. Default: their own.
    pub dtype: Option<FloatDType>,
    /// The most bytes of tensors in a file; larger models are written in shards. Default 5 GB.
    pub max_shard_size: u64,
    /// Whether a folder that is not empty may be replaced. Default false.
    pub replace: bool,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            from: None,
            dtype: None,
            max_shard_size: 5_000_000_000,
            replace: false,
        }
    }
}

impl SaveOptions {
    /// Returns the default options for a model that was made from the folder `from`.
    pub fn from_folder(from: impl Into<PathBuf>) -> Self {
        Self {
            from: Some(from.into()),
            ..Self::default()
        }
    }
}

/// Writes `model` atomically into the folder `to`, in the format of `transformers`.
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::policy::hf::{LoadOptions, SaveOptions, load, save};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// # let root = std::env::temp_dir().join(format!("rlvr_save_{}", std::process::id()));
/// # let folder = root.join("model");
/// let device = burn::tensor::Device::flex();
/// let config = CausalConfig { num_hidden_layers: 1, ..CausalConfig::new(32) };
/// let model = config.init(0, &device)?;
/// save(&model, &folder, &SaveOptions::default())?;
/// let again = load(&folder, &LoadOptions::default(), &device)?;
/// assert_eq!(again.config().hidden_size, model.config().hidden_size);
/// # std::fs::remove_dir_all(root).unwrap();
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Returns an error if the model has adapters (use [`CausalModel::merge_lora`] first, or
/// [`save_adapters`](super::save_adapters) instead), its configuration is not that in
/// [`SaveOptions::from`], no supported architecture has its shape, `to` is not empty and
/// [`SaveOptions::replace`] is false, or a file cannot be written.
pub fn save(model: &CausalModel, to: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
    check(model, options)?;
    let fields = match &options.from {
        Some(from) => {
            let fields = config::read_fields(from)?;
            let theirs = config::parse_fields(from, &fields, &[Task::CausalLm])?;
            check_config(model.config(), &theirs, from)?;
            fields
        }
        None => config::to_fields(model.config(), Task::CausalLm)?,
    };
    write(fields, &model.named_weights(), to.as_ref(), options)
}

/// Rejects a model with adapters, and invalid options.
pub(super) fn check(model: &CausalModel, options: &SaveOptions) -> Result<()> {
    if model.has_adapters() {
        return Err(Error::config(
            "model",
            "a model with adapters",
            "one without: merge_lora(), or write them with save_adapters",
        ));
    }
    match options.max_shard_size {
        0 => Err(Error::config("max_shard_size", 0, "at least 1 byte")),
        _ => Ok(()),
    }
}

/// Writes a folder with these fields and weights, of which the embedding is the first.
pub(super) fn write(
    fields: Map<String, Value>,
    weights: &[(String, Weight)],
    to: &Path,
    options: &SaveOptions,
) -> Result<()> {
    let stored: DType = match (options.dtype, weights.first()) {
        (Some(dtype), _) => dtype.into(),
        (None, Some((_, Weight::Embedding(matrix)))) => matrix.dtype(),
        (None, _) => DType::F32,
    };
    write_whole(to, options.replace, |folder| {
        write_config(fields, folder, stored)?;
        if let Some(from) = &options.from {
            copy_companions(from, folder)?;
        }
        write_tensors(weights, folder, stored, options.max_shard_size)
    })
}

/// Returns an error if `theirs`, the configuration in `from`, is not `ours`, the model's.
pub(super) fn check_config(ours: &CausalConfig, theirs: &CausalConfig, from: &Path) -> Result<()> {
    // `head_dim` may be explicit or not, and `initializer_range` does not matter.
    let shape = |config: &CausalConfig| CausalConfig {
        head_dim: Some(config.head_size()),
        initializer_range: None,
        ..config.clone()
    };
    let (theirs, ours) = (shape(theirs), shape(ours));
    if ours == theirs {
        return Ok(());
    }
    let fields = |config| serde_json::to_value(config).unwrap_or_default();
    let (theirs, ours) = (fields(theirs), fields(ours));
    let differing = ours.as_object().into_iter().flatten();
    let differing: Vec<String> = differing
        .filter(|(name, value)| theirs[*name] != **value)
        .map(|(name, value)| {
            format!(
                "`{name}` is {}, but that of the model is {value}",
                theirs[name]
            )
        })
        .collect();
    let reason = format!("describes another model: {}", differing.join("; "));
    Err(Error::model_file(from.join(config::FILE), reason))
}

/// Writes `config.json`, with the type of the weights in the files.
fn write_config(mut fields: Map<String, Value>, folder: &Path, stored: DType) -> Result<()> {
    let name = match stored {
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        _ => "float32",
    };
    // transformers 5 calls it dtype, transformers 4 torch_dtype.
    let key = match fields.contains_key("torch_dtype") {
        true => "torch_dtype",
        false => "dtype",
    };
    fields.insert(key.into(), name.into());
    write_json(&folder.join(config::FILE), &Value::Object(fields))
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = format!("{value:#}\n");
    fs::write(path, text).map_err(|e| Error::io(path, e))
}

/// Copies the other files of a model: tokenizer, chat template, generation settings, licence.
fn copy_companions(from: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let path = entry.map_err(|e| Error::io(from, e))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let belongs = [".json", ".jinja", ".txt", ".model"]
            .iter()
            .any(|end| name.ends_with(end))
            || name.to_uppercase().starts_with("LICENSE");
        let weights = name == config::FILE || name.ends_with(".index.json");
        if belongs && !weights && path.is_file() {
            fs::copy(&path, folder.join(name)).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}

fn write_tensors(
    weights: &[(String, Weight)],
    folder: &Path,
    stored: DType,
    limit: u64,
) -> Result<()> {
    let tensors: Vec<Stored> = weights
        .iter()
        .map(|(name, weight)| Stored::new(name.clone(), *weight, stored))
        .collect::<Result<_>>()?;
    let total: u64 = tensors.iter().map(Stored::bytes).sum();
    let mut shards: Vec<Vec<Stored>> = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        let bytes = tensor.bytes();
        if size > 0 && size + bytes > limit {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    if let [only] = shards.as_slice() {
        return write_file(only, &folder.join(SINGLE));
    }
    let mut map = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        write_file(shard, &folder.join(&name))?;
        map.extend(
            shard
                .iter()
                .map(|tensor| (tensor.name.clone(), name.clone())),
        );
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map});
    write_json(&folder.join(INDEX), &index)
}

/// A tensor to be written, which is read from the device only then.
pub(super) struct Stored<'a> {
    pub name: String,
    weight: Weight<'a>,
    shape: Vec<usize>,
    dtype: DType,
    file_dtype: Dtype,
}

impl<'a> Stored<'a> {
    pub(super) fn new(name: String, weight: Weight<'a>, dtype: DType) -> Result<Self> {
        let file_dtype = match dtype {
            DType::F32 => Dtype::F32,
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            DType::F64 => Dtype::F64,
            other => {
                let expected = "f32, bf16 or f16";
                return Err(Error::config("dtype", format!("{other:?}"), expected));
            }
        };
        let shape = match weight {
            Weight::Projection(matrix) => {
                let [inputs, outputs] = matrix.dims();
                vec![outputs, inputs]
            }
            Weight::Embedding(matrix) => matrix.dims().to_vec(),
            Weight::Vector(vector) => vector.dims().to_vec(),
        };
        Ok(Self {
            name,
            weight,
            shape,
            dtype,
            file_dtype,
        })
    }

    fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.file_dtype.bitsize() / 8) as u64
    }
}

impl View for &Stored<'_> {
    fn dtype(&self) -> Dtype {
        self.file_dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data: TensorData = match self.weight {
            Weight::Projection(matrix) => matrix.val().inner().transpose().into_data(),
            Weight::Embedding(matrix) => matrix.val().inner().into_data(),
            Weight::Vector(vector) => vector.val().inner().into_data(),
        };
        Cow::Owned(data.convert_dtype(self.dtype).into_bytes().to_vec())
    }

    fn data_len(&self) -> usize {
        self.bytes() as usize
    }
}

/// Writes a safetensors file with the metadata that `transformers` requires.
pub(super) fn write_file(tensors: &[Stored], path: &Path) -> Result<()> {
    // safetensors writes by way of a temporary file that only its owner can read; give the file the
    // usual permissions instead.
    let usual = fs::File::create(path)
        .and_then(|file| file.metadata())
        .map_err(|e| Error::io(path, e))?
        .permissions();
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let views = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor));
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|reason| Error::model_file(path, reason))?;
    fs::set_permissions(path, usual).map_err(|e| Error::io(path, e))
}
