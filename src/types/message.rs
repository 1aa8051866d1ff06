//! Messages of a conversation, and the calls of tools in them.

use serde::{Deserialize, Serialize};

/// A message of a conversation.
///
/// In JSON it has the fields of the chat APIs; fields that are not set are omitted.
///
/// ```
/// use rlvr::types::Message;
///
/// let read: Message = serde_json::from_str(r#"{"role": "user", "content": "1+1="}"#)?;
/// assert_eq!(read, Message::user("1+1="));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// The role of the author: `system`, `user`, `assistant`, `tool`, or another role that the
    /// model's chat template supports.
    pub role: String,
    /// The text.
    pub content: String,
    /// The reasoning of an assistant, for templates that separate it from `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that an assistant calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The id of the call that a tool's result belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the tool or of the author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A call of a tool in an assistant's message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The id, unique within the message.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// The arguments as JSON text, with the fields in their original order.
    pub arguments: String,
}

impl Message {
    /// Creates a message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            ..Self::default()
        }
    }

    /// Creates a system prompt.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// Creates a message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// Creates a message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// Creates the result of the tool `name`.
    pub fn tool(name: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::new("tool", content)
        }
    }
}
