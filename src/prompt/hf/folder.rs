//! The configs of a Hugging Face folder, and the few things that are read from them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::{Error, Result};

/// The names under which a config lists its special tokens, and a chat template finds them.
pub(super) const NAMED_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The folder's configs; one that is not there is `null`.
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

    /// The text of a named special token, which is written as a string or as an object with its `content`.
    pub(super) fn named_token(&self, name: &str) -> Option<&str> {
        let token = self.tokenizer_config.get(name)?;
        token.as_str().or_else(|| token.get("content")?.as_str())
    }

    /// All named special tokens by their names.
    pub(super) fn named_tokens(&self) -> BTreeMap<String, String> {
        let named = NAMED_TOKENS.iter().filter_map(|&name| {
            self.named_token(name)
                .map(|token| (name.to_owned(), token.to_owned()))
        });
        named.collect()
    }

    /// What `config.json` says the vocabulary's size is: the embedding may have more rows than there are tokens.
    pub(super) fn vocab_size(&self) -> Result<Option<usize>> {
        let Some(size) = of_config(&self.config, "vocab_size") else {
            return Ok(None);
        };
        match size.as_u64().and_then(|size| u32::try_from(size).ok()) {
            Some(size) => Ok(Some(size as usize)),
            None => Err(self.wrong("config.json", "vocab_size", size, "a number of tokens")),
        }
    }

    /// The ids that end a completion, as the first config that has any lists them.
    pub(super) fn eos_token_ids(&self) -> Result<Vec<u32>> {
        self.first_ids("eos_token_id")
    }

    /// The padding token's id, if a config has one. (Some configs write -1 for none.)
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

    /// A field of one of the files that has a value it cannot have.
    pub(super) fn wrong(&self, file: &str, field: &str, value: &Value, expected: &str) -> Error {
        let file = self.path.join(file);
        Error::config(format!("{}: {field}", file.display()), value, expected)
    }
}

/// A field that is not null, of the config or of the language model's part of a multimodal one.
fn of_config<'a>(config: &'a Value, field: &str) -> Option<&'a Value> {
    let of_text = || config.get("text_config")?.get(field);
    config
        .get(field)
        .filter(|value| !value.is_null())
        .or_else(of_text)
        .filter(|value| !value.is_null())
}

/// The JSON object of a file, or `null` if there is no such file.
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

/// The text of a file, or `None` if there is no such file.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, error)),
    }
}

/// The text of a file without which the folder is of no use.
pub(super) fn required(path: &Path, what: &str) -> Result<String> {
    text(path)?.ok_or_else(|| Error::io(path, io::Error::new(io::ErrorKind::NotFound, what)))
}

/// Refuses a text that is not JSON, with its line.
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
