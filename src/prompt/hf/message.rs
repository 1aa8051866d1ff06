//! Variables of a chat template.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use super::values;
use crate::{Error, Result};

/// The variables of a chat template by name, such as `enable_thinking`, `tools`, `documents` and
/// `date_string`.
///
/// Unlike a `serde_json::Map`, a value keeps the order of its fields, which the model sees if the
/// template writes the value as JSON. Pass such values as structs or [as JSON
/// text](Self::set_json). Serde treats the variables as a map.
///
/// ```
/// use rlvr::prompt::hf::Variables;
///
/// let variables = Variables::new()
///     .set("enable_thinking", false)
///     .set_json("tools", r#"[{"name": "add", "description": "Adds numbers."}]"#)?;
/// assert_eq!(
///     serde_json::to_string(&variables).unwrap(),
///     concat!(
///         r#"{"enable_thinking":false,"#,
///         r#""tools":[{"name":"add","description":"Adds numbers."}]}"#,
///     ),
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variables(BTreeMap<String, Value>);

impl Variables {
    /// Creates an empty set of variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the variable `name`, replacing a previous value.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.0.insert(name.into(), Value::from(Serde(value)));
        self
    }

    /// Sets the variable `name` to a value in JSON, with its fields in this order.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the text is not JSON.
    pub fn set_json(self, name: impl Into<String>, json: &str) -> Result<Self> {
        let name = name.into();
        match serde_json::from_str::<Value>(json) {
            Ok(value) => Ok(self.set(name, value)),
            Err(error) => Err(Error::config(
                name,
                format!("{json:?}"),
                format!("JSON: {error}"),
            )),
        }
    }

    /// Returns true if the variable is set and not `none`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_none())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// All strings in the values, including field names within them, but not the names of the
    /// variables.
    pub(super) fn strings(&self) -> Vec<String> {
        self.0.values().flat_map(values::strings).collect()
    }

    /// These variables with every string of the values replaced.
    pub(super) fn map(&self, mut replace: impl FnMut(&str) -> String) -> Self {
        let variables = self.0.iter();
        Self(
            variables
                .map(|(name, value)| (name.clone(), values::map_strings(value, &mut replace)))
                .collect(),
        )
    }
}
