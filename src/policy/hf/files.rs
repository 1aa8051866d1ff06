//! The tensors of a folder: one safetensors file, or several with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use burn::tensor::{DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::{Error, Result};

/// The only file, if there is one.
pub(super) const SINGLE: &str = "model.safetensors";
/// What says where each tensor is, if there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// A header beyond this is no header.
const LONGEST_HEADER: u64 = 100_000_000;

/// The safetensors files of a folder, opened; tensors are read one at a time.
#[derive(Debug)]
pub(super) struct TensorFiles {
    files: Vec<TensorFile>,
    /// Where each tensor is.
    places: BTreeMap<String, (usize, TensorInfo)>,
}

#[derive(Debug)]
struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where the header ends and the numbers begin.
    start: u64,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFiles {
    /// The files of the model in `folder`.
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
                let reason = format!("names the file {name:?}; expected one inside the folder");
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
                let reason = format!("says that {tensor} is in {file}, which does not have it");
                return Err(Error::model_file(&index, reason));
            }
        }
        Ok(files)
    }

    /// These files together.
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
                    let reason = format!("has the tensor {name}, and so has {before}");
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

    /// The shape of a tensor and the type of its numbers, if it is there.
    pub(super) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).map(|(_, info)| info)
    }

    /// The numbers of the tensor called `name`, as they are on disk; its type must be one that [`dtype`] knows.
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

/// The names and shapes of the tensors of a model, or of adapters, in `folder`; only headers are read.
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

/// The type of floats that a file holds, if weights can be made of it.
pub(super) fn dtype(stored: Dtype) -> Option<DType> {
    match stored {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
        _ => None,
    }
}

/// Eight bytes of length, a header in JSON, numbers: the header is checked to describe exactly the numbers that are there.
fn open(path: &Path) -> Result<(TensorFile, Metadata)> {
    let refuse = |reason: String| Error::model_file(path, reason);
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let total = file.metadata().map_err(|e| Error::io(path, e))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| refuse(format!("has {total} bytes: no safetensors file")))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > total - 8 {
        let reason = format!("announces a header of {length} bytes in a file of {total}");
        return Err(refuse(reason));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)
        .map_err(|e| Error::io(path, e))?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|reason| refuse(format!("its header is broken: {reason}")))?;
    let start = 8 + length;
    let end = start + metadata.data_len() as u64;
    if end != total {
        let reason = format!("has {total} bytes where its header describes {end}: is it whole?");
        return Err(refuse(reason));
    }
    let path = path.to_path_buf();
    Ok((TensorFile { path, file, start }, metadata))
}

/// A hint at weights in a form that is not read.
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
