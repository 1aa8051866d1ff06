//! Reading a model folder.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::Param;
use burn::nn::{Embedding, RmsNorm, RmsNormConfig};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::config::read_config;
use super::files::{TensorFiles, dtype};
use crate::policy::causal::{CausalConfig, CausalModel, Projection, WeightSource};
use crate::{Error, Result};

/// The options of [`load`](super::load()) and [`load_reward_model`](super::load_reward_model).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadOptions {
    /// The type that the weights are cast to. Default: that of the embedding on disk. On the CPU,
    /// f32 is the fastest.
    pub dtype: Option<FloatDType>,
}

impl LoadOptions {
    /// Returns options that cast the weights to f32.
    pub fn f32() -> Self {
        let dtype = Some(FloatDType::F32);
        Self { dtype }
    }
}

/// Loads the model in `folder`, from `config.json` and `model.safetensors` or shards with
/// `model.safetensors.index.json`.
///
/// On a device with gradients ([`Device::autodiff`]) all parameters are trained. Files are read
/// tensor by tensor, so that only the model and one tensor are in memory at a time.
///
/// ```no_run
/// use burn::tensor::Device;
/// use rlvr::policy::hf::{LoadOptions, load};
///
/// # #[cfg(feature = "flex")]
/// let policy = load(
///     "SmolLM2-135M-Instruct",
///     &LoadOptions::f32(),
///     &Device::flex().autodiff(),
/// )?;
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # Errors
/// Returns the errors of [`read_config`], [`Error::ModelFile`] if a file is broken, and
/// [`Error::Weights`] with the lists of tensors that are missing, unexpected, or of another shape or
/// type than in the configuration. A second copy of tied weights and the tables of positions in old
/// files are ignored.
pub fn load(
    folder: impl AsRef<Path>,
    options: &LoadOptions,
    device: &Device,
) -> Result<CausalModel> {
    let folder = folder.as_ref();
    let config = read_config(folder)?;
    let tied = config.tie_word_embeddings;
    read_weights(folder, &config, tied, options, device, |reader| {
        CausalModel::build(&config, reader)
    })
}

/// Calls `build` with the weights in `folder` and returns its result. If the embeddings are `tied`,
/// the folder may have an unembedding that the model does not read.
pub(super) fn read_weights<T>(
    folder: &Path,
    config: &CausalConfig,
    tied: bool,
    options: &LoadOptions,
    device: &Device,
    build: impl FnOnce(&mut Reader) -> T,
) -> Result<T> {
    let files = TensorFiles::open(folder)?;
    let on_disk = files
        .info("model.embed_tokens.weight")
        .and_then(|info| dtype(info.dtype));
    let dtype = match options.dtype {
        Some(dtype) => dtype.into(),
        None => on_disk.unwrap_or(DType::F32),
    };
    let unused = files.names().map(str::to_string).collect();
    let mut reader = Reader {
        files,
        dtype,
        device,
        norm_epsilon: config.rms_norm_eps,
        unused,
        missing: Vec::new(),
        mismatched: Vec::new(),
        broken: None,
    };
    let model = build(&mut reader);
    if let Some(error) = reader.broken {
        return Err(error);
    }
    let expected_surplus = |name: &String| {
        name.ends_with(".rotary_emb.inv_freq") || (tied && name == "lm_head.weight")
    };
    reader.unused.retain(|name| !expected_surplus(name));
    let lists = [&reader.missing, &reader.mismatched];
    if lists.iter().all(|list| list.is_empty()) && reader.unused.is_empty() {
        return Ok(model);
    }
    Err(Error::Weights {
        path: folder.to_path_buf(),
        missing: reader.missing,
        unexpected: reader.unused.into_iter().collect(),
        mismatched: reader.mismatched,
    })
}

/// Reads the tensors that the model requests from the files, and records all mismatches.
pub(super) struct Reader<'a> {
    files: TensorFiles,
    /// The type that tensors are cast to.
    pub dtype: DType,
    device: &'a Device,
    norm_epsilon: f64,
    unused: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<String>,
    /// The first file that could not be read.
    broken: Option<Error>,
}

impl Reader<'_> {
    /// Reads and casts the tensor called `name`. Returns `None` and records the reason if it is
    /// missing or does not match.
    fn take(&mut self, name: &str, shape: &[usize]) -> Option<TensorData> {
        if self.broken.is_some() {
            return None;
        }
        let Some(info) = self.files.info(name) else {
            self.missing.push(name.to_string());
            return None;
        };
        self.unused.remove(name);
        if info.shape != shape || dtype(info.dtype).is_none() {
            let (kind, found) = (info.dtype, &info.shape);
            let fault = format!("{name} is {kind:?} {found:?} instead of floats {shape:?}");
            self.mismatched.push(fault);
            return None;
        }
        match self.files.read(name) {
            Ok(data) => Some(data.convert_dtype(self.dtype)),
            Err(error) => {
                self.broken = Some(error);
                None
            }
        }
    }

    /// Reads the parameter called `name`. If it is missing, a placeholder is returned, and the
    /// model is not.
    fn vector(&mut self, name: &str, size: usize) -> Param<Tensor<1>> {
        let data = self.take(name, &[size]);
        Param::from_tensor(self.tensor(data))
    }

    fn tensor<const D: usize>(&self, data: Option<TensorData>) -> Tensor<D> {
        let options = (self.device, self.dtype);
        match data {
            Some(data) => Tensor::from_data(data, options),
            None => Tensor::zeros([1; D], options),
        }
    }
}

impl WeightSource for Reader<'_> {
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Projection {
        let data = self.take(&format!("{name}.weight"), &[outputs, inputs]);
        let weight = self.tensor(data.map(transposed));
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), outputs));
        Projection::new(Param::from_tensor(weight), bias)
    }

    fn embedding(&mut self, name: &str, tokens: usize, size: usize) -> Embedding {
        let data = self.take(&format!("{name}.weight"), &[tokens, size]);
        Embedding {
            weight: Param::from_tensor(self.tensor(data)),
        }
    }

    fn norm(&mut self, name: &str, size: usize) -> RmsNorm {
        let mut norm = RmsNormConfig::new(1)
            .with_epsilon(self.norm_epsilon)
            .init(self.device);
        norm.gamma = self.vector(&format!("{name}.weight"), size);
        norm
    }
}

/// Returns the transposed matrix.
pub(super) fn transposed(data: TensorData) -> TensorData {
    let (dtype, shape) = (data.dtype(), data.shape().to_vec());
    let (rows, columns) = (shape[0], shape[1]);
    let bytes = data.as_bytes();
    let mut out = vec![0; bytes.len()];
    match bytes.len() / (rows * columns).max(1) {
        2 => transpose::<2>(bytes, &mut out, rows, columns),
        4 => transpose::<4>(bytes, &mut out, rows, columns),
        _ => transpose::<8>(bytes, &mut out, rows, columns),
    }
    TensorData::from_bytes_vec(out, vec![columns, rows], dtype)
}

/// Transposes in square tiles, for locality in both matrices.
fn transpose<const SIZE: usize>(from: &[u8], to: &mut [u8], rows: usize, columns: usize) {
    const SIDE: usize = 32;
    let (from, to) = (from.as_chunks::<SIZE>().0, to.as_chunks_mut::<SIZE>().0);
    for top in (0..rows).step_by(SIDE) {
        for left in (0..columns).step_by(SIDE) {
            for row in top..(top + SIDE).min(rows) {
                for column in left..(left + SIDE).min(columns) {
                    to[column * rows + row] = from[row * columns + column];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_swaps_rows_and_columns() {
        for (rows, columns) in [(1, 1), (2, 3), (33, 70), (64, 32)] {
            let values: Vec<f32> = (0..rows * columns).map(|x| x as f32).collect();
            let data = TensorData::new(values, [rows, columns]);
            let turned = transposed(data.clone());
            assert_eq!(turned.shape().to_vec(), [columns, rows]);
            let turned_values = turned.as_slice::<f32>().unwrap();
            assert_eq!(turned_values[(columns - 1) * rows], (columns - 1) as f32);
            assert_eq!(transposed(turned), data);
        }
    }
}
