//! A set of tools and the execution of calls.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::call::{CallAttempt, CallStatus, ParsedReply};
use super::schema::Schema;
use super::tool::{Tool, ToolError};
use crate::types::{FinishReason, Message, ToolCall};
use crate::{Error, Result};

/// A set of tools with unique names.
///
/// ```
/// use rlvr::environment::tools::{Calculator, ReplyParser, ToolSet};
/// use rlvr::types::FinishReason;
///
/// let tools = ToolSet::new().with(Calculator)?;
/// let parser = ReplyParser::named("hermes")?;
/// let reply = "<think>Too large for my head.</think>Let me see.\n\
///              <tool_call>\n{\"name\": \"calculator\", \
///              \"arguments\": {\"expression\": \"123*456\"}}\n</tool_call>";
/// let parsed = parser.parse(reply, &tools);
/// assert_eq!(parsed.content(), "Let me see.\n");
/// let answers = tools.answer(&parsed, FinishReason::Stop)?;
/// assert_eq!(answers[0].content, "56088");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ToolSet {
    tools: Vec<(Arc<dyn Tool>, Schema)>,
    max_calls: usize,
}

impl Default for ToolSet {
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            max_calls: 16,
        }
    }
}

impl ToolSet {
    /// Creates an empty set, with up to 16 calls per reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the name is taken or invalid, or if the parameters are not a
    /// JSON Schema.
    pub fn with(mut self, tool: impl Tool) -> Result<Self> {
        self.add(Arc::new(tool))?;
        Ok(self)
    }

    /// Adds a shared tool.
    ///
    /// # Errors
    /// See [`with`](Self::with).
    pub fn add(&mut self, tool: Arc<dyn Tool>) -> Result<()> {
        let name = tool.name();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            let expected = "1 to 64 letters, digits, `_`, `-` and `.`";
            return Err(Error::config("tool.name", format!("{name:?}"), expected));
        }
        if self.get(name).is_some() {
            let expected = "a unique name";
            return Err(Error::config("tool.name", format!("{name:?}"), expected));
        }
        let field = format!("{name}.parameters");
        let schema: Value = serde_json::from_str(tool.parameters())
            .map_err(|error| Error::config(&field, error, "a JSON Schema"))?;
        let schema = Schema::new(schema).map_err(|error| error.within(&field))?;
        self.tools.push((tool, schema));
        Ok(())
    }

    /// Sets the maximum number of calls per reply. Further calls are answered with an error.
    /// Default: 16.
    #[must_use]
    pub fn with_max_calls(mut self, calls: usize) -> Self {
        self.max_calls = calls;
        self
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// Returns the names, in the order in which the tools were added.
    pub fn names(&self) -> Vec<&str> {
        self.tools.iter().map(|(tool, _)| tool.name()).collect()
    }

    /// Returns the tool with this name.
    pub fn get(&self, name: &str) -> Option<&dyn Tool> {
        self.find(name).map(|(tool, _)| &**tool)
    }

    /// Returns the schema of a tool's arguments.
    pub(super) fn schema(&self, name: &str) -> Option<&Schema> {
        self.find(name).map(|(_, schema)| schema)
    }

    fn find(&self, name: &str) -> Option<&(Arc<dyn Tool>, Schema)> {
        self.tools.iter().find(|(tool, _)| tool.name() == name)
    }

    /// Returns the JSON list of the tools that chat templates read.
    pub fn definitions(&self) -> String {
        let definition = |(tool, _): &(Arc<dyn Tool>, Schema)| {
            format!(
                r#"{{"type": "function", "function": {{"name": {}, "description": {}, "parameters": {}}}}}"#,
                Value::from(tool.name()),
                Value::from(tool.description()),
                tool.parameters().trim()
            )
        };
        let definitions: Vec<String> = self.tools.iter().map(definition).collect();
        format!("[{}]", definitions.join(", "))
    }

    /// Checks that a call can be run: the tool exists, and the arguments are JSON and match its
    /// schema.
    pub(super) fn check(&self, call: &ToolCall) -> Result<(), (CallStatus, String)> {
        let Some(schema) = self.schema(&call.name) else {
            let tools = match self.is_empty() {
                true => "there are no tools".to_string(),
                false => format!("the tools are {}", self.names().join(", ")),
            };
            let reason = format!("there is no tool {:?}; {tools}", call.name);
            return Err((CallStatus::UnknownTool, reason));
        };
        let arguments: Value = serde_json::from_str(&call.arguments).map_err(|error| {
            (
                CallStatus::InvalidJson,
                format!("the arguments are not valid JSON: {error}"),
            )
        })?;
        if !arguments.is_object() {
            let reason = format!("the arguments of {} are not a JSON object", call.name);
            return Err((CallStatus::InvalidArguments, reason));
        }
        schema.check(&arguments).map_err(|faults| {
            let reason = format!(
                "the arguments of {} do not match the schema: {faults}",
                call.name
            );
            (CallStatus::InvalidArguments, reason)
        })
    }

    /// Runs the calls of a reply in order, and returns a message of the role `tool` for each
    /// attempt, with the result or the error.
    ///
    /// A reply that was cut off runs no calls and gets no messages, even if calls could be read.
    ///
    /// # Errors
    /// Returns [`ToolError::Broken`] if a tool does not work.
    pub fn answer(
        &self,
        reply: &ParsedReply<'_>,
        finish: FinishReason,
    ) -> Result<Vec<Message>, ToolError> {
        if finish == FinishReason::Length {
            return Ok(Vec::new());
        }
        let answer = |(at, attempt): (usize, &CallAttempt)| {
            let content = match at < self.max_calls {
                true => self.run(attempt)?,
                false => format!(
                    "error: not run; a reply may have at most {} calls",
                    self.max_calls
                ),
            };
            let id = match &attempt.call {
                Some(call) => call.id.clone(),
                None => super::parser::call_id(at),
            };
            Ok(Message {
                name: attempt.call.as_ref().map(|call| call.name.clone()),
                tool_call_id: Some(id),
                ..Message::new("tool", content)
            })
        };
        reply.calls.iter().enumerate().map(answer).collect()
    }

    /// Runs one attempt and returns the text that the model reads: the result or the error.
    ///
    /// # Errors
    /// Returns [`ToolError::Broken`] if the tool does not work.
    pub(super) fn run(&self, attempt: &CallAttempt) -> Result<String, ToolError> {
        let runnable = match (&attempt.call, attempt.status) {
            (Some(call), CallStatus::Ok) => self.check(call).map(|()| call),
            _ => Err((attempt.status, attempt.reason.clone())),
        };
        let call = match runnable {
            Ok(call) => call,
            Err((_, reason)) => return Ok(format!("error: {reason}")),
        };
        let (Some(tool), Ok(arguments)) = (
            self.get(&call.name),
            serde_json::from_str::<Value>(&call.arguments),
        ) else {
            return Ok(format!("error: {:?} cannot be called", call.name));
        };
        match tool.call(&arguments) {
            Ok(result) => Ok(result),
            Err(ToolError::Refused(message)) => Ok(format!("error: {message}")),
            Err(ToolError::Broken(message)) => {
                Err(ToolError::Broken(format!("tool {}: {message}", call.name)))
            }
        }
    }
}

impl fmt::Debug for ToolSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolSet")
            .field("tools", &self.names())
            .field("max_calls", &self.max_calls)
            .finish()
    }
}
