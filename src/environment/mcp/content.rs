//! The conversion of a tool result to text.

use serde_json::Value;

/// Returns the text of a result's `content`, one part per line, or of its `structuredContent` if
/// the content is empty.
///
/// Parts that are not text are replaced by a description: an image becomes `[image image/png]`.
pub(in crate::environment) fn text(result: &Value) -> String {
    let parts = result["content"].as_array().map_or(&[][..], Vec::as_slice);
    if parts.is_empty() {
        let structured = result
            .get("structuredContent")
            .or_else(|| result.get("structured_content"));
        return match structured {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
    }
    let parts: Vec<String> = parts.iter().map(part).collect();
    parts.join("\n")
}

fn part(part: &Value) -> String {
    let field = |name: &str| part[name].as_str().unwrap_or_default();
    match field("type") {
        "text" => field("text").into(),
        "resource" => match part["resource"]["text"].as_str() {
            Some(text) => text.into(),
            None => format!(
                "[resource {}]",
                part["resource"]["uri"].as_str().unwrap_or("")
            ),
        },
        "resource_link" => format!("[resource {}]", field("uri")),
        kind => format!("[{kind} {}]", field("mimeType")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_content_is_converted_to_text() {
        let result = json!({"content": [
            {"type": "text", "text": "a\n"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "file:///x", "text": "x"}},
            {"type": "resource", "resource": {"uri": "file:///y", "blob": "AAAA"}},
            {"type": "resource_link", "uri": "file:///z"},
        ], "structuredContent": {"b": 1}});
        let expected = "a\n\n[image image/png]\nx\n[resource file:///y]\n[resource file:///z]";
        assert_eq!(text(&result), expected);
        assert_eq!(
            text(&json!({"content": [], "structuredContent": {"b": 1}})),
            "{\"b\":1}"
        );
        assert_eq!(text(&json!({"content": []})), "");
        assert_eq!(text(&json!({})), "");
    }
}
