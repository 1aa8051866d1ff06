//! How replies become actions, and observations texts.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::super::contract::Reply;
use crate::{Error, Result};

/// Where a template has the reply.
const REPLY: &str = "{reply}";

/// How a reply becomes an action: what stands in a step's `data`.
///
/// Of a reply with reasoning, the text is what follows the last `</think>`, without the whitespace around it; a closure reads all of it.
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
    /// A JSON value in which `{reply}` stands for the reply's text, in one or more of its strings.
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
    /// If the reply stands nowhere in it.
    pub fn template(template: Value) -> Result<Self> {
        match filled(&template, "") == template {
            true => Err(Error::config(
                "openenv.action",
                &template,
                r#"a template with the text `{reply}`, such as {"message": "{reply}"}"#,
            )),
            false => Ok(Self(Action::Template(template))),
        }
    }

    /// The reply is the action, as a JSON object. The policy reads what is wrong with one that is none, or that the server refuses as
    /// no action of its environment.
    pub fn json() -> Self {
        Self(Action::Json)
    }

    /// A closure. Its error is what the policy reads instead of an observation, and no step is taken.
    pub fn custom(
        action: impl Fn(&Reply<'_>) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Action::Custom(Arc::new(action)))
    }

    /// The action, or what the policy did wrong.
    pub(super) fn action(&self, reply: &Reply<'_>) -> Result<Value, String> {
        match &self.0 {
            Action::Template(template) => Ok(filled(template, spoken(reply.text))),
            Action::Custom(action) => action(reply),
            Action::Json => match serde_json::from_str(spoken(reply.text)) {
                Ok(action @ Value::Object(_)) => Ok(action),
                Ok(_) => Err("error: the reply is no JSON object".into()),
                Err(error) => Err(format!("error: the reply is no JSON object: {error}")),
            },
        }
    }

    /// Whether the policy writes the fields of the action.
    pub(super) fn is_the_policys(&self) -> bool {
        matches!(self.0, Action::Json)
    }
}

/// The text without the reasoning before it.
fn spoken(text: &str) -> &str {
    text.rsplit_once("</think>")
        .map_or(text, |(_, spoken)| spoken.trim())
}

/// The template with the text in all its places.
fn filled(template: &Value, text: &str) -> Value {
    match template {
        Value::String(string) => Value::String(string.replace(REPLY, text)),
        Value::Array(items) => items.iter().map(|item| filled(item, text)).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| (name.clone(), filled(value, text));
            fields.iter().map(field).collect()
        }
        other => other.clone(),
    }
}

/// How an observation, the `observation` object of the server's answer, becomes the text that the policy reads.
#[derive(Clone)]
pub struct ObservationMapping(Observation);

#[derive(Clone)]
enum Observation {
    Pointers(Vec<String>),
    #[allow(clippy::type_complexity)]
    Custom(Arc<dyn Fn(&Value) -> Result<String, String> + Send + Sync>),
}

impl ObservationMapping {
    /// The value at the first of these JSON pointers (RFC 6901) that leads to one: a text as it is, anything else as JSON. The empty
    /// pointer is the whole observation.
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
    /// If there is no pointer, or one is no pointer.
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

    /// A closure. Its error fails the rollout.
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
    fn actions_of_replies() {
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
        assert!(wrong("[1]").contains("no JSON object"));
        assert!(wrong("{a").contains("line 1 column 2"));
        let error = ActionMapping::template(json!({"a": 1})).unwrap_err();
        assert!(error.to_string().contains("{reply}"), "{error}");
    }

    #[test]
    fn texts_of_observations() {
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
