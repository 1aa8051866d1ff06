//! The configs of a Hugging Face folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{Error, Result};

/// The names of special tokens in a config and in a chat template.
pub(super) const NAMED_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The folder's configs; a missing one is `null`.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) tokenizer_config: Value,
    generation_config: Value,
    config: Value,
}

impl Folder {
    pub(super) fn read(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            tokenizer_config: json(&path.join("tokenizer_config.json"))?,
            generation_config: json(&path.join("generation_config.json"))?,
            config: json(&path.join("config.json"))?,
        })
    }

    /// The text of a named special token, which is a string or an object with a field `content`.
    pub(super) fn named_token(&self, name: &str) -> Option<&str> {
        let token = self.tokenizer_config.get(name)?;
        token.as_str().or_else(|| token.get("content")?.as_str())
    }

    /// All named special tokens by name.
    pub(super) fn named_tokens(&self) -> BTreeMap<String, String> {
        let named = NAMED_TOKENS.iter().filter_map(|&name| {
            self.named_token(name)
                .map(|token| (name.to_owned(), token.to_owned()))
        });
        named.collect()
    }

    /// The vocabulary size in `config.json`, which may be larger than the number of tokens.
    pub(super) fn vocab_size(&self) -> Result<Option<usize>> {
        let Some(size) = of_config(&self.config, "vocab_size") else {
            return Ok(None);
        };
        match size.as_u64().and_then(|size| u32::try_from(size).ok()) {
            Some(size) => Ok(Some(size as usize)),
            None => Err(self.wrong("config.json", "vocab_size", size, "a number of tokens")),
        }
    }

    /// The ids that end a completion, from the first config that has any.
    pub(super) fn eos_token_ids(&self) -> Result<Vec<u32>> {
        self.first_ids("eos_token_id")
    }

    /// The id of the padding token, if a config has one. (Some configs have -1 for none.)
    pub(super) fn pad_token_id(&self) -> Result<Option<u32>> {
        Ok(self.first_ids("pad_token_id")?.first().copied())
    }

    fn first_ids(&self, field: &str) -> Result<Vec<u32>> {
        for (file, config) in [
            ("generation_config.json", &self.generation_config),
            ("config.json", &self.config),
        ] {
            let Some(value) = of_config(config, field).filter(|value| value.as_i64() != Some(-1))
            else {
                continue;
            };
            let listed = value
                .as_array()
                .map_or(std::slice::from_ref(value), Vec::as_slice);
            let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
            let Some(ids) = listed.iter().map(id).collect::<Option<Vec<u32>>>() else {
                return Err(self.wrong(file, field, value, "a token id or a list of token ids"));
            };
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
        Ok(Vec::new())
    }

    /// The error for an invalid value of a field in one of the files.
    pub(super) fn wrong(&self, file: &str, field: &str, value: &Value, expected: &str) -> Error {
        let file = self.path.join(file);
        Error::config(format!("{}: {field}", file.display()), value, expected)
    }
}

/// A field of the config, or of the `text_config` of a multimodal one, that is not null.
fn of_config<'a>(config: &'a Value, field: &str) -> Option<&'a Value> {
    let of_text = || config.get("text_config")?.get(field);
    config
        .get(field)
        .filter(|value| !value.is_null())
        .or_else(of_text)
        .filter(|value| !value.is_null())
}

/// Reads a JSON object from a file, or returns `null` if there is no such file.
fn json(path: &Path) -> Result<Value> {
    let Some(text) = text(path)? else {
        return Ok(Value::Null);
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| broken(path, &error))?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Error::Data {
        path: path.to_path_buf(),
        line: 1,
        reason: "expected a JSON object".to_owned(),
    })
}

/// Reads a file, or returns `None` if there is no such file.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, error)),
    }
}

/// Reads a required file.
pub(super) fn required(path: &Path, what: &str) -> Result<String> {
    text(path)?.ok_or_else(|| Error::io(path, io::Error::new(io::ErrorKind::NotFound, what)))
}

/// Checks that a text is JSON; an error has the line.
pub(super) fn check_json(path: &Path, text: &str) -> Result<()> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(broken(path, &error)),
    }
}

pub(super) fn broken(path: &Path, error: &serde_json::Error) -> Error {
    Error::Data {
        path: path.to_path_buf(),
        line: error.line().max(1),
        reason: error.to_string(),
    }
}
