//! A tool for exact arithmetic.

use serde_json::Value;

use super::tool::{Tool, ToolError};
use crate::prompt::expression::evaluate_expression;

/// A tool that evaluates an expression exactly: `(3 + 5) * 7 / 2` is `28`, and `7 / 2` is `7/2`.
///
/// The tool is named `calculator`, and its argument `expression`. It accepts unsigned integers,
/// `+ - * /` (also `×`, `÷`, `−`), unary minus and parentheses, up to 1000 bytes. Results that do
/// not fit in 128 bits and division by zero are errors that the model reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calculator;

impl Tool for Calculator {
    fn name(&self) -> &str {
        "calculator"
    }

    fn description(&self) -> &str {
        "Computes an arithmetic expression exactly."
    }

    fn parameters(&self) -> &str {
        r#"{"type": "object", "properties": {"expression": {"type": "string", "description": "Integers, + - * / and parentheses, for example (3 + 5) * 7"}}, "required": ["expression"]}"#
    }

    fn call(&self, arguments: &Value) -> Result<String, ToolError> {
        let expression = arguments.get("expression").and_then(Value::as_str);
        let expression = expression.ok_or("`expression` is missing; expected a string")?;
        let evaluated = evaluate_expression(expression)?;
        Ok(evaluated.value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_are_exact_and_errors_are_readable() {
        let call = |expression: &str| match Calculator.call(&json!({"expression": expression})) {
            Ok(result) => result,
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(call("(3 + 5) × 7 / 2"), "28");
        assert_eq!(call("7/2"), "7/2");
        assert_eq!(call("1/0"), "error: division by zero");
        assert_eq!(
            call("2**3"),
            "error: '*' at byte 2; expected a number or `(`"
        );
        assert!(Calculator.call(&json!({})).is_err());
    }
}
