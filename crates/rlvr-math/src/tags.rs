//! The tags around the thinking and the answer of a completion.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The tags around the thinking and around the answer. Default: `<think>`, `</think>`, `<answer>`,
/// `</answer>`.
///
/// Tags are plain text, matched exactly: `<ANSWER>` and `<answer >` are other tags.
///
/// ```
/// use rlvr_math::Tags;
///
/// let tags = Tags::default();
/// assert_eq!(tags.answer("<think>4 or 5?</think> <answer>4</answer>"), Some("4"));
/// // Tags in the thinking are ignored, and thinking that is not closed has no answer
/// // after it.
/// assert_eq!(tags.answer("<think><answer>4</answer></think>"), None);
/// assert_eq!(tags.answer("<think><answer>4</answer>"), None);
/// ```
///
/// Each tag is serialized as a field, and a missing field has its default:
/// `{"answer_open": "[ANSWER]", "answer_close": "[/ANSWER]"}`. Deserialization makes the checks of
/// [`new`](Self::new).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Tags {
    think_open: String,
    think_close: String,
    answer_open: String,
    answer_close: String,
}

/// The serialized form, not yet checked.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    think_open: String,
    think_close: String,
    answer_open: String,
    answer_close: String,
}

impl Default for Fields {
    fn default() -> Self {
        Tags::default().into()
    }
}

impl From<Tags> for Fields {
    fn from(tags: Tags) -> Self {
        Self {
            think_open: tags.think_open,
            think_close: tags.think_close,
            answer_open: tags.answer_open,
            answer_close: tags.answer_close,
        }
    }
}

impl TryFrom<Fields> for Tags {
    type Error = Error;

    fn try_from(fields: Fields) -> Result<Self> {
        Self::new(
            fields.think_open,
            fields.think_close,
            fields.answer_open,
            fields.answer_close,
        )
    }
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            think_open: "<think>".into(),
            think_close: "</think>".into(),
            answer_open: "<answer>".into(),
            answer_close: "</answer>".into(),
        }
    }
}

impl Tags {
    /// Creates tags, given in the order in which they appear in a completion.
    ///
    /// ```
    /// use rlvr_math::Tags;
    ///
    /// let tags = Tags::new("[THINK]", "[/THINK]", "[ANSWER]", "[/ANSWER]")?;
    /// assert_eq!(
    ///     tags.answer("[THINK]...[/THINK][ANSWER]4[/ANSWER]"),
    ///     Some("4")
    /// );
    /// assert!(Tags::new("|", "|", "<answer>", "</answer>").is_err());
    /// # Ok::<(), rlvr_math::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if a tag is empty, begins or ends with whitespace, or is contained in
    /// another tag, which would make it ambiguous.
    pub fn new(
        think_open: impl Into<String>,
        think_close: impl Into<String>,
        answer_open: impl Into<String>,
        answer_close: impl Into<String>,
    ) -> Result<Self> {
        let tags = Self {
            think_open: think_open.into(),
            think_close: think_close.into(),
            answer_open: answer_open.into(),
            answer_close: answer_close.into(),
        };
        let named = tags.named();
        for (i, (field, tag)) in named.iter().enumerate() {
            let invalid =
                |expected: String| Err(Error::config(*field, format!("{tag:?}"), expected));
            if tag.is_empty() || tag.trim() != *tag {
                return invalid("text without whitespace at its ends, not empty".into());
            }
            for (j, (other_field, other)) in named.iter().enumerate() {
                if i != j && other.contains(tag) {
                    return invalid(format!("text that is not in `{other_field}` ({other:?})"));
                }
            }
        }
        Ok(tags)
    }

    /// Returns the tag before the thinking.
    pub fn think_open(&self) -> &str {
        &self.think_open
    }

    /// Returns the tag after the thinking.
    pub fn think_close(&self) -> &str {
        &self.think_close
    }

    /// Returns the tag before the answer.
    pub fn answer_open(&self) -> &str {
        &self.answer_open
    }

    /// Returns the tag after the answer.
    pub fn answer_close(&self) -> &str {
        &self.answer_close
    }

    /// Returns the text between the last pair of answer tags after the thinking, as written. `None`
    /// if there is no such pair.
    ///
    /// The text after the thinking starts after the last closing think tag, and ends before an
    /// opening one that is not closed. Without think tags it is the whole completion. Of nested
    /// pairs, the innermost counts. The time is linear in the length of the text.
    pub fn answer<'a>(&self, completion: &'a str) -> Option<&'a str> {
        self.last_pair(self.spoken(completion))
    }

    /// Returns the text after the last closing think tag, and before an opening one that is not
    /// closed.
    pub(crate) fn spoken<'a>(&self, completion: &'a str) -> &'a str {
        let after = match completion.rfind(&self.think_close) {
            Some(end) => &completion[end + self.think_close.len()..],
            None => completion,
        };
        let before = after.split_once(&self.think_open);
        before.map_or(after, |(before, _)| before)
    }

    /// Returns whether there is a closing think tag.
    pub(crate) fn ends_thinking(&self, completion: &str) -> bool {
        completion.contains(&self.think_close)
    }

    /// Returns the text between the last complete pair of answer tags in a text without thinking.
    pub(crate) fn last_pair<'a>(&self, text: &'a str) -> Option<&'a str> {
        let last_close = text.rfind(&self.answer_close)?;
        let open = text[..last_close].rfind(&self.answer_open)?;
        let inside = &text[open + self.answer_open.len()..];
        // Not `last_close`: between the two there may be another closing tag.
        let pair = inside.split_once(&self.answer_close);
        pair.map(|(answer, _)| answer)
    }

    /// Returns the tags with the names of their fields.
    fn named(&self) -> [(&'static str, &str); 4] {
        [
            ("think_open", &self.think_open),
            ("think_close", &self.think_close),
            ("answer_open", &self.answer_open),
            ("answer_close", &self.answer_close),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_complete_pair_after_the_thinking_is_found() {
        let tags = Tags::default();
        for (completion, expected) in [
            ("<think>a</think><answer>42</answer>", Some("42")),
            ("<answer>\n3.14\n</answer>", Some("\n3.14\n")),
            ("<answer>4</answer> ... <answer>5</answer>", Some("5")),
            ("<answer>4</answer> ... <answer>5", Some("4")),
            ("<answer>4</answer> ... 5</answer>", Some("4")),
            ("<answer><answer>5</answer></answer>", Some("5")),
            ("<answer></answer>", Some("")),
            ("<answer>a<b and c>d</answer>", Some("a<b and c>d")),
            ("a</think><answer>4</answer>", Some("4")),
            (
                "<think><answer>1</answer></think><answer>2</answer>",
                Some("2"),
            ),
            ("<answer>4</answer><think><answer>5</answer></think>", None),
            ("<answer>4</answer><think><answer>5</answer>", Some("4")),
            ("<answer>4</think></answer>", None),
            ("<think>x<answer>1</answer>", None),
            ("</answer>5<answer>", None),
            ("<answer>5", None),
            ("5</answer>", None),
            ("<ANSWER>5</ANSWER>", None),
            ("<answer >5</answer>", None),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(tags.answer(completion), expected, "{completion}");
        }
    }

    #[test]
    fn ambiguous_tags_are_errors() {
        for (tags, start) in [
            (["", "b", "c", "d"], "invalid `think_open`: \"\""),
            (["a", " b", "c", "d"], "invalid `think_close`: \" b\""),
            (["a", "b", "a", "d"], "invalid `think_open`: \"a\""),
            (["a", "b", "c", "<c>"], "invalid `answer_open`: \"c\""),
        ] {
            let [a, b, c, d] = tags;
            let error = Tags::new(a, b, c, d).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        }
        let default = Tags::new("<think>", "</think>", "<answer>", "</answer>").unwrap();
        assert_eq!(default, Tags::default());
        let read = |text| serde_json::from_str::<Tags>(text).map_err(|error| error.to_string());
        let short = r#"{"answer_open": "[", "answer_close": "]"}"#;
        assert_eq!(
            read(short).unwrap().answer("<answer>4</answer> [5]"),
            Some("5")
        );
        assert!(
            read(r#"{"answer_open": ""}"#)
                .unwrap_err()
                .contains("`answer_open`")
        );
        assert!(
            read(r#"{"open": "["}"#)
                .unwrap_err()
                .contains("unknown field")
        );
    }

    proptest! {
        #[test]
        fn the_answer_between_the_tags_is_read_back(before in "[a-z<>/]{0,9}", answer in "[ -~é]{0,20}", after in "[ a-z\n]{0,9}") {
            let completion = format!("{before}</think>{before}<answer>{answer}</answer>{after}");
            prop_assert_eq!(Tags::default().answer(&completion), Some(answer.as_str()));
        }
    }
}
