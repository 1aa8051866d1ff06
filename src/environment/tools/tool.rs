//! What a tool is.

use std::fmt;

use serde_json::Value;

/// Why a tool gives no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The call cannot be answered: division by zero, no such file. The model reads the message and may try again.
    #[error("{0}")]
    Refused(String),
    /// The tool itself does not work: no sandbox, no connection. The rollout fails and is not learned from, since the model can do
    /// nothing about it.
    #[error("{0}")]
    Broken(String),
}

impl From<String> for ToolError {
    fn from(message: String) -> Self {
        Self::Refused(message)
    }
}

impl From<&str> for ToolError {
    fn from(message: &str) -> Self {
        Self::Refused(message.into())
    }
}

/// A function that a model may call.
///
/// It is called from several threads at once, with arguments that fit [`parameters`](Self::parameters). The text of its
/// result is what the model reads. It bounds its work and what it waits for itself: a thread cannot be killed.
pub trait Tool: Send + Sync + 'static {
    /// The name that calls use: letters, digits, `_`, `-` and `.`.
    fn name(&self) -> &str;

    /// What it does, for the model.
    fn description(&self) -> &str;

    /// The JSON Schema of its arguments, an object, as text: chat templates print the keys in this order.
    fn parameters(&self) -> &str;

    /// Runs it.
    ///
    /// # Errors
    /// [`ToolError::Refused`] if these arguments have no result, [`ToolError::Broken`] if none would have one.
    fn call(&self, arguments: &Value) -> Result<String, ToolError>;
}

/// A tool made of a closure.
///
/// ```
/// use rlvr::environment::tools::{FnTool, Tool};
/// use serde_json::json;
///
/// let add = FnTool::new(
///     "add",
///     "Adds two numbers.",
///     r#"{"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]}"#,
///     |arguments| Ok((arguments["a"].as_f64().unwrap_or(0.0) + arguments["b"].as_f64().unwrap_or(0.0)).to_string()),
/// );
/// assert_eq!(add.call(&json!({"a": 2, "b": 3})).unwrap(), "5");
/// ```
pub struct FnTool<F> {
    name: String,
    description: String,
    parameters: String,
    function: F,
}

impl<F> FnTool<F>
where
    F: Fn(&Value) -> Result<String, ToolError> + Send + Sync + 'static,
{
    /// A tool by name, with what it does, the JSON Schema of its arguments, and the function.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: impl Into<String>,
        function: F,
    ) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            parameters: parameters.into(),
            function,
        }
    }
}

impl<F> Tool for FnTool<F>
where
    F: Fn(&Value) -> Result<String, ToolError> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> &str {
        &self.parameters
    }

    fn call(&self, arguments: &Value) -> Result<String, ToolError> {
        (self.function)(arguments)
    }
}

impl<F> fmt::Debug for FnTool<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnTool")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
