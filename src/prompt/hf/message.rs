//! What a template is told beside the conversation.

use std::collections::BTreeMap;

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use super::values;
use crate::{Error, Result};

/// Variables of a template by their names: `enable_thinking`, `tools`, `documents`, `date_string` and whatever else it reads.
///
/// Unlike a `serde_json::Map` these keep the order of the fields within a value, which a template that writes its tools as JSON
/// shows to the model: give them as structs, or [as JSON text](Self::set_json). As serde types they are a plain map.
///
/// ```
/// use rlvr::prompt::hf::Variables;
///
/// let variables = Variables::new()
///     .set("enable_thinking", false)
///     .set_json("tools", r#"[{"name": "add", "description": "Adds numbers."}]"#)?;
/// assert_eq!(
///     serde_json::to_string(&variables).unwrap(),
///     r#"{"enable_thinking":false,"tools":[{"name":"add","description":"Adds numbers."}]}"#,
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variables(BTreeMap<String, Value>);

impl Variables {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the variable `name`, in place of what had this name before.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.0.insert(name.into(), Value::from(Serde(value)));
        self
    }

    /// With the variable `name` read from JSON, its fields in their order.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not JSON.
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

    /// With all of `others`, which win over what has the same name here.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        let others = others.0.iter();
        self.0
            .extend(others.map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// Whether the template is told something other than `none` under this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_none())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Every string in the values, field names within them included; the names of the variables are not among them.
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
