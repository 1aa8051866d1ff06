//! The safetensors files of a folder: one file, or several with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::{Error, Result};

/// The name of the file of a model that is not sharded.
pub(super) const SINGLE: &str = "model.safetensors";
/// The name of the index of a sharded model.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// The most bytes of a header.
const LONGEST_HEADER: u64 = 100_000_000;

/// The open safetensors files of a folder. Tensors are read one at a time.
#[derive(Debug)]
pub(super) struct TensorFiles {
    files: Vec<TensorFile>,
    /// The index of the file of each tensor, and its place there.
    places: BTreeMap<String, (usize, TensorInfo)>,
}

#[derive(Debug)]
struct TensorFile {
    path: PathBuf,
    file: File,
    /// The end of the header, where the numbers begin, in bytes.
    start: u64,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFiles {
    /// Opens the files of the model in `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.exists() {
            return Self::of(&[single]);
        }
        if !index.exists() {
            let reason = format!("has neither {SINGLE} nor {INDEX}{}", other_weights(folder));
            return Err(Error::model_file(folder, reason));
        }
        let text = fs::read_to_string(&index).map_err(|e| Error::io(&index, e))?;
        let map: Index =
            serde_json::from_str(&text).map_err(|reason| Error::model_file(&index, reason))?;
        let names: BTreeSet<&String> = map.weight_map.values().collect();
        for name in &names {
            let inside = Path::new(name)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if !inside {
                let reason =
                    format!("has the file name {name:?}; expected a file inside the folder");
                return Err(Error::model_file(&index, reason));
            }
        }
        let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
        let files = Self::of(&paths)?;
        for (tensor, file) in &map.weight_map {
            let place = files
                .places
                .get(tensor)
                .map(|(at, _)| &files.files[*at].path);
            if place != Some(&folder.join(file)) {
                let reason = format!("maps the tensor {tensor} to {file}, which does not have it");
                return Err(Error::model_file(&index, reason));
            }
        }
        Ok(files)
    }

    /// Opens these files.
    pub(super) fn of(paths: &[PathBuf]) -> Result<Self> {
        let mut all = Self {
            files: Vec::new(),
            places: BTreeMap::new(),
        };
        for path in paths {
            let (file, metadata) = open(path)?;
            for (name, info) in metadata.tensors() {
                let place = (all.files.len(), info.clone());
                if let Some((before, _)) = all.places.insert(name.clone(), place) {
                    let before = all.files[before].path.display();
                    let reason = format!("has the tensor {name}, which {before} has too");
                    return Err(Error::model_file(path, reason));
                }
            }
            all.files.push(file);
        }
        Ok(all)
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The shape and type of the tensor called `name`, if it exists.
    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).map(|(_, info)| info)
    }

    /// Reads the tensor called `name`, in its type on disk, which must be one that [`dtype`]
    /// supports.
    pub(super) fn read(&mut self, name: &str) -> Result<TensorData> {
        let Some((at, info)) = self.places.get(name) else {
            return Err(Error::model_file(SINGLE, format!("has no tensor {name}")));
        };
        let file = &mut self.files[*at];
        let Some(dtype) = dtype(info.dtype) else {
            let reason = format!("{name} holds {:?}; expected F32, BF16 or F16", info.dtype);
            return Err(Error::model_file(&file.path, reason));
        };
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        file.file
            .seek(SeekFrom::Start(file.start + from as u64))
            .and_then(|_| file.file.read_exact(&mut bytes))
            .map_err(|e| Error::io(&file.path, e))?;
        Ok(TensorData::from_bytes_vec(bytes, info.shape.clone(), dtype))
    }
}

/// Returns the names and shapes of the tensors of a model, or of adapters, in `folder`. Reads only
/// the headers.
#[cfg(feature = "remote")]
pub(crate) fn tensor_shapes(folder: &Path) -> Result<BTreeMap<String, Vec<usize>>> {
    let adapters = folder.join(super::peft::TENSORS);
    let files = match adapters.exists() {
        true => TensorFiles::of(&[adapters])?,
        false => TensorFiles::open(folder)?,
    };
    let places = files.places.into_iter();
    Ok(places.map(|(name, (_, info))| (name, info.shape)).collect())
}

/// Returns the type of floats of a tensor in a file, if it is supported.
pub(super) fn dtype(stored: Dtype) -> Option<DType> {
    match stored {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
        _ => None,
    }
}

/// Opens a safetensors file: eight bytes with the length of the header, the header in JSON, and the
/// numbers. Checks that the header matches the length of the file.
fn open(path: &Path) -> Result<(TensorFile, Metadata)> {
    let invalid = |reason: String| Error::model_file(path, reason);
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let total = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| {
        invalid(format!(
            "has {total} bytes, so it is not a safetensors file"
        ))
    })?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > total - 8 {
        let reason = format!("declares a header of {length} bytes in a file of {total} bytes");
        return Err(invalid(reason));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)
        .map_err(|e| Error::io(path, e))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|reason| invalid(format!("its header is broken: {reason}")))?;
    let start = 8 + length;
    let end = start + metadata.data_len() as u64;
    if end != total {
        let reason =
            format!("has {total} bytes, but its header describes {end}; it may be truncated");
        return Err(invalid(reason));
    }
    let path = path.to_path_buf();
    Ok((TensorFile { path, file, start }, metadata))
}

/// Returns a hint if the folder has weights in an unsupported format.
fn other_weights(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else {
        return "; it is not a readable folder".into();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            [".bin", ".pth", ".pt", ".gguf"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .collect();
    names.sort();
    match names.is_empty() {
        true => String::new(),
        false => format!("; convert {} to safetensors first", names.join(", ")),
    }
}
