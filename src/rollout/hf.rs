//! The sampling settings of a Hugging Face folder.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::SamplingConfig;
use crate::{Error, Result};

/// The fields of `generation_config.json` that are read; an absent field disables its filter.
#[derive(Default, Deserialize)]
#[serde(default)]
struct GenerationFile {
    do_sample: bool,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
}

/// Reads the sampling settings of `generation_config.json` in `folder`. Returns greedy sampling if
/// `do_sample` is not true or there is no file. Stop tokens come from the tokenizer
/// ([`HfTokenizer`](crate::prompt::hf::HfTokenizer)).
///
/// # Errors
/// Returns an error if the file cannot be read or parsed, or a setting is out of range.
pub fn read_sampling(folder: impl AsRef<Path>) -> Result<SamplingConfig> {
    let path = folder.as_ref().join("generation_config.json");
    if !path.exists() {
        return Ok(SamplingConfig::greedy());
    }
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let file: GenerationFile =
        serde_json::from_str(&text).map_err(|reason| Error::model_file(&path, reason))?;
    if !file.do_sample {
        return Ok(SamplingConfig::greedy());
    }
    let config = SamplingConfig {
        temperature: file.temperature.unwrap_or(1.0),
        top_k: file.top_k.filter(|&k| k > 0), // transformers writes 0 for all
        top_p: file.top_p,
        min_p: file.min_p,
    };
    let valid = config.validate();
    valid.map_err(|reason| Error::model_file(&path, reason))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SamplingConfig> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("generation_config.json"), text).unwrap();
        read_sampling(folder.path())
    }

    #[test]
    fn sampling_is_read_and_greedy_by_default() {
        let sampled = read(r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 0}"#);
        let expected = SamplingConfig {
            temperature: 0.6,
            top_p: Some(0.95),
            ..SamplingConfig::default()
        };
        assert_eq!(sampled.unwrap(), expected);
        let unsampled = read(r#"{"temperature": 0.6, "eos_token_id": [1, 2]}"#);
        assert_eq!(unsampled.unwrap(), SamplingConfig::greedy());
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(
            read_sampling(nowhere.path()).unwrap(),
            SamplingConfig::greedy()
        );
    }

    #[test]
    fn errors_name_the_file() {
        for text in [r#"{"do_sample": true, "top_p": 7}"#, "{"] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("generation_config.json"), "{error}");
        }
    }
}
