//! JSON as text, with the original order of fields.

use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A JSON value as text, in the form that chat templates print: fields keep their order, and a
/// space follows each comma and colon.
///
/// A parsed [`Value`] sorts its fields, so a model would read a different definition of a tool than
/// it was trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JsonText(pub(super) String);

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Writer)
    }
}

struct Writer;

impl<'de> Visitor<'de> for Writer {
    type Value = JsonText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<JsonText, E> {
        Ok(JsonText("null".into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonText, E> {
        Ok(JsonText(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonText, E> {
        Ok(JsonText(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<JsonText, E> {
        Ok(JsonText(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonText, E> {
        Ok(JsonText(Value::from(value).to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<JsonText, E> {
        Ok(JsonText(Value::from(value).to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<JsonText, A::Error> {
        let mut text = String::from("[");
        while let Some(JsonText(item)) = items.next_element()? {
            if text.len() > 1 {
                text += ", ";
            }
            text += &item;
        }
        Ok(JsonText(text + "]"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<JsonText, A::Error> {
        let mut text = String::from("{");
        while let Some((name, JsonText(value))) = fields.next_entry::<String, JsonText>()? {
            if text.len() > 1 {
                text += ", ";
            }
            // Writing to a string cannot fail.
            let _ = write!(text, "{}: {value}", Value::from(name));
        }
        Ok(JsonText(text + "}"))
    }
}

/// Shortens a text that is quoted in a message.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_values_their_form() {
        let read = |text: &str| serde_json::from_str::<JsonText>(text).map(|json| json.0);
        let text = r#"{"z":[1,-2,1.0,true,null],"a":{"é\n":"\"x\""},"m":[],"o":{}}"#;
        let written = r#"{"z": [1, -2, 1.0, true, null], "a": {"é\n": "\"x\""}, "m": [], "o": {}}"#;
        assert_eq!(read(text).unwrap(), written);
        assert_eq!(read(written).unwrap(), written);
        assert!(read("{\"a\"}").is_err());
    }

    #[test]
    fn long_texts_are_shortened_at_a_character() {
        assert_eq!(shortened("ééé", 3), "ééé");
        assert_eq!(shortened("ééé", 2), "éé..");
    }
}
