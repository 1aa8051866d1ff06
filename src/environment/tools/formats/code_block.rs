use serde_json::{Map, Value};

use super::{CallBlock, CallStatus, ToolCallFormat, extent, fault};
use crate::environment::tools::ToolSet;
use crate::types::ToolCall;

/// A program between two tags, which is the argument of a call of one tool.
///
/// ```text
/// <code>
/// print(2 + 3)
/// </code>
/// ```
///
/// By default, the tags are `<code>` and `</code>`, as in SmolLM3's Python tools, the tool is
/// `python` and its argument is `code`.
#[derive(Clone, Debug)]
pub struct CodeBlock {
    /// The tag before the program; not empty.
    pub open: String,
    /// The tag after the program; not empty.
    pub close: String,
    /// The name of the tool.
    pub tool: String,
    /// The name of the argument that holds the program.
    pub argument: String,
}

impl Default for CodeBlock {
    fn default() -> Self {
        Self {
            open: "<code>".into(),
            close: "</code>".into(),
            tool: "python".into(),
            argument: "code".into(),
        }
    }
}

impl ToolCallFormat for CodeBlock {
    fn name(&self) -> &str {
        "code_block"
    }

    fn find(&self, text: &str) -> Option<usize> {
        text.find(&self.open)
    }

    fn read(&self, text: &str, _tools: &ToolSet) -> CallBlock {
        let start = self.open.len();
        let (length, closed) = extent(&text[start..], &self.open, &self.close);
        let end = start + length;
        if !closed {
            let fault = fault(false, &self.close, CallStatus::Unclosed, String::new());
            return CallBlock::one(end, Err(fault));
        }
        let code = &text[start..end - self.close.len()];
        let code = code.strip_prefix('\n').unwrap_or(code);
        let code = code.strip_suffix('\n').unwrap_or(code);
        let argument = Map::from_iter([(self.argument.clone(), Value::from(code))]);
        let call = ToolCall {
            id: String::new(),
            name: self.tool.clone(),
            arguments: Value::Object(argument).to_string(),
        };
        CallBlock::one(end, Ok(call))
    }

    fn render(&self, calls: &[ToolCall]) -> String {
        let block = |call: &ToolCall| {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            let code = arguments.get(&self.argument).and_then(Value::as_str);
            format!(
                "{}\n{}\n{}",
                self.open,
                code.unwrap_or_default(),
                self.close
            )
        };
        calls.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}
