//! The trait of tools.

use std::fmt;

use serde_json::Value;

/// The error of a tool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The call has no result, such as for a division by zero. The model reads the message and may
    /// try again.
    #[error("{0}")]
    Refused(String),
    /// The tool does not work, such as without its sandbox or connection. The rollout fails and is
    /// excluded from training, since the model did not cause the error.
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
/// It is called from several threads at the same time, with arguments that match
/// [`parameters`](Self::parameters). The model reads the text of the result. A call must bound its
/// work and its waits, since its thread cannot be killed. [`FnTool`] makes a tool from a closure.
///
/// ```
/// use rlvr::environment::tools::{Tool, ToolError, ToolSet};
/// use serde_json::Value;
///
/// struct Reverse;
///
/// impl Tool for Reverse {
///     fn name(&self) -> &str {
///         "reverse"
///     }
///
///     fn description(&self) -> &str {
///         "Reverses a text."
///     }
///
///     fn parameters(&self) -> &str {
///         r#"{
///             "type": "object",
///             "properties": {"text": {"type": "string"}},
///             "required": ["text"]
///         }"#
///     }
///
///     fn call(&self, arguments: &Value) -> Result<String, ToolError> {
///         let text = arguments["text"].as_str().ok_or("`text` is missing")?;
///         Ok(text.chars().rev().collect())
///     }
/// }
///
/// let tools = ToolSet::new().with(Reverse)?;
/// assert_eq!(tools.names(), ["reverse"]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait Tool: Send + Sync + 'static {
    /// Returns the name that calls use: 1 to 64 letters, digits, `_`, `-` and `.`.
    fn name(&self) -> &str;

    /// Returns the description, for the model.
    fn description(&self) -> &str;

    /// Returns the JSON Schema of the arguments, an object, as text. Chat templates print the keys
    /// in this order.
    fn parameters(&self) -> &str;

    /// Runs the tool.
    ///
    /// # Errors
    /// Returns [`ToolError::Refused`] if these arguments have no result, and [`ToolError::Broken`]
    /// if the tool does not work.
    fn call(&self, arguments: &Value) -> Result<String, ToolError>;
}

/// A tool from a closure.
///
/// ```
/// use rlvr::environment::tools::{FnTool, Tool};
/// use serde_json::json;
///
/// let add = FnTool::new(
///     "add",
///     "Adds two numbers.",
///     r#"{
///         "type": "object",
///         "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
///         "required": ["a", "b"]
///     }"#,
///     |arguments| {
///         let a = arguments["a"].as_f64().unwrap_or(0.0);
///         let b = arguments["b"].as_f64().unwrap_or(0.0);
///         Ok((a + b).to_string())
///     },
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
    /// Creates a tool from its name, its description, the JSON Schema of its arguments, and the
    /// function.
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
