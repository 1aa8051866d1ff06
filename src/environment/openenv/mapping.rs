//! Mappings of replies to actions and of observations to text.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::super::contract::Reply;
use crate::{Error, Result};

/// The placeholder of the reply in a template.
const REPLY: &str = "{reply}";

/// The mapping of a reply to an action, the `data` of a step.
///
/// The text of a reply with reasoning is the part after the last `</think>`, trimmed. A
/// [custom](Self::custom) mapping gets the complete reply.
#[derive(Clone)]
pub struct ActionMapping(Action);

#[derive(Clone)]
enum Action {
    Template(Value),
    Json,
    #[allow(clippy::type_complexity)]
    Custom(Arc<dyn Fn(&Reply<'_>) -> Result<Value, String> + Send + Sync>),
}

impl ActionMapping {
    /// A JSON value with the placeholder `{reply}` for the reply's text in at least one of its
    /// strings.
    ///
    /// ```
    /// use rlvr::environment::openenv::ActionMapping;
    /// use serde_json::json;
    ///
    /// let action = ActionMapping::template(json!({"message": "{reply}"}))?;
    /// # let _ = action;
    /// assert!(ActionMapping::template(json!({"message": "hello"})).is_err());
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the placeholder is missing.
    pub fn template(template: Value) -> Result<Self> {
        match fill(&template, "") == template {
            true => Err(Error::config(
                "openenv.action",
                &template,
                r#"a template with the text `{reply}`, such as {"message": "{reply}"}"#,
            )),
            false => Ok(Self(Action::Template(template))),
        }
    }

    /// The reply is the action, as a JSON object. If it is not one, or the server rejects it as an
    /// invalid action, the policy reads the error.
    pub fn json() -> Self {
        Self(Action::Json)
    }

    /// A custom mapping. If it returns an error, the policy reads the error instead of an
    /// observation, and no step is taken.
    pub fn custom(
        action: impl Fn(&Reply<'_>) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Action::Custom(Arc::new(action)))
    }

    /// Returns the action, or the policy's mistake.
    pub(super) fn action(&self, reply: &Reply<'_>) -> Result<Value, String> {
        match &self.0 {
            Action::Template(template) => Ok(fill(template, without_reasoning(reply.text))),
            Action::Custom(action) => action(reply),
            Action::Json => match serde_json::from_str(without_reasoning(reply.text)) {
                Ok(action @ Value::Object(_)) => Ok(action),
                Ok(_) => Err("error: the reply is not a JSON object".into()),
                Err(error) => Err(format!("error: the reply is not a JSON object: {error}")),
            },
        }
    }

    /// Whether the policy writes the action as JSON.
    pub(super) fn is_written_by_policy(&self) -> bool {
        matches!(self.0, Action::Json)
    }
}

/// The text after the reasoning.
fn without_reasoning(text: &str) -> &str {
    text.rsplit_once("</think>")
        .map_or(text, |(_, answer)| answer.trim())
}

/// Replaces all placeholders of a template.
fn fill(template: &Value, text: &str) -> Value {
    match template {
        Value::String(string) => Value::String(string.replace(REPLY, text)),
        Value::Array(items) => items.iter().map(|item| fill(item, text)).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| (name.clone(), fill(value, text));
            fields.iter().map(field).collect()
        }
        other => other.clone(),
    }
}

/// The mapping of an observation, the `observation` object of the server's answer, to the text that
/// the policy reads.
#[derive(Clone)]
pub struct ObservationMapping(Observation);

#[derive(Clone)]
enum Observation {
    Pointers(Vec<String>),
    #[allow(clippy::type_complexity)]
    Custom(Arc<dyn Fn(&Value) -> Result<String, String> + Send + Sync>),
}

impl ObservationMapping {
    /// The first value that is found at one of these JSON pointers (RFC 6901): a string as it is,
    /// other values as JSON. The empty pointer is the whole observation.
    ///
    /// ```
    /// use rlvr::environment::openenv::ObservationMapping;
    ///
    /// let observation = ObservationMapping::pointers(["/question", "/metadata/prompt"])?;
    /// # let _ = observation;
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the list is empty or an entry is not a JSON pointer.
    pub fn pointers(pointers: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        let pointers: Vec<String> = pointers.into_iter().map(Into::into).collect();
        let is_pointer = |pointer: &String| pointer.is_empty() || pointer.starts_with('/');
        match !pointers.is_empty() && pointers.iter().all(is_pointer) {
            true => Ok(Self(Observation::Pointers(pointers))),
            false => Err(Error::config(
                "openenv.observation",
                format!("{pointers:?}"),
                "JSON pointers such as /question",
            )),
        }
    }

    /// A custom mapping. An error fails the rollout.
    pub fn custom(text: impl Fn(&Value) -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Observation::Custom(Arc::new(text)))
    }

    pub(super) fn text(&self, observation: &Value) -> Result<String, String> {
        match &self.0 {
            Observation::Custom(text) => text(observation),
            Observation::Pointers(pointers) => {
                let found = pointers
                    .iter()
                    .filter_map(|pointer| observation.pointer(pointer))
                    .find(|value| !value.is_null());
                match found {
                    Some(Value::String(text)) => Ok(text.clone()),
                    Some(other) => Ok(other.to_string()),
                    None => {
                        let fields: Vec<String> = observation
                            .as_object()
                            .map(|fields| fields.keys().map(|name| format!("/{name}")).collect())
                            .unwrap_or_default();
                        Err(format!(
                            "the observation has nothing at {}; it has {}",
                            pointers.join(", "),
                            fields.join(", ")
                        ))
                    }
                }
            }
        }
    }
}

impl fmt::Debug for ActionMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Action::Template(template) => f.debug_tuple("Template").field(template).finish(),
            Action::Json => f.write_str("Json"),
            Action::Custom(_) => f.write_str("Custom"),
        }
    }
}

impl fmt::Debug for ObservationMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Observation::Pointers(pointers) => f.debug_tuple("Pointers").field(pointers).finish(),
            Observation::Custom(_) => f.write_str("Custom"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FinishReason;
    use serde_json::json;

    fn reply(text: &str) -> Reply<'_> {
        Reply {
            text,
            finish: FinishReason::Stop,
            turn: 0,
        }
    }

    #[test]
    fn replies_are_mapped_to_actions() {
        let template = json!({"move": "{reply}", "list": [1, "say {reply}"], "n": 2});
        let template = ActionMapping::template(template).unwrap();
        let expected = json!({"move": "a\"{b}", "list": [1, "say a\"{b}"], "n": 2});
        assert_eq!(template.action(&reply("a\"{b}")), Ok(expected));
        let thought = "<think>a</think>b</think>\n\nc d\n";
        let expected = json!({"move": "c d", "list": [1, "say c d"], "n": 2});
        assert_eq!(template.action(&reply(thought)), Ok(expected));
        let json = ActionMapping::json();
        assert_eq!(json.action(&reply(" {\"a\": 1}\n")), Ok(json!({"a": 1})));
        let wrong = |text| json.action(&reply(text)).unwrap_err();
        assert!(wrong("[1]").contains("not a JSON object"));
        assert!(wrong("{a").contains("line 1 column 2"));
        let error = ActionMapping::template(json!({"a": 1})).unwrap_err();
        assert!(error.to_string().contains("{reply}"), "{error}");
    }

    #[test]
    fn observations_are_mapped_to_text() {
        let mapping = ObservationMapping::pointers(["/a", "/b/0", "/c"]).unwrap();
        assert_eq!(
            mapping.text(&json!({"a": null, "b": ["x"]})),
            Ok("x".into())
        );
        assert_eq!(
            mapping.text(&json!({"c": {"d": 1}})),
            Ok("{\"d\":1}".into())
        );
        let error = mapping.text(&json!({"e": 1, "f": 2})).unwrap_err();
        assert_eq!(
            error,
            "the observation has nothing at /a, /b/0, /c; it has /e, /f"
        );
        assert!(ObservationMapping::pointers(["a"]).is_err());
        assert!(ObservationMapping::pointers(Vec::<String>::new()).is_err());
    }
}
