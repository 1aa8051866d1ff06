//! Problem sets in JSON Lines: one JSON object per line, with configurable field names.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Problem;
use crate::{Error, Result};

/// The field with entries that are merged into [`Problem::metadata`].
const METADATA: &str = "metadata";

/// Reads and writes problem sets as JSON Lines, given the names of the prompt and answer fields.
///
/// The answer is a string, a number (its text is kept: `1.50` stays `1.50`) or a boolean. All other
/// fields become metadata, and so do the entries of an object called `metadata`; of two entries
/// with one name, the outer field wins. Blank lines, a byte order mark and CRLF line endings are
/// accepted.
///
/// ```
/// use rlvr::prompt::JsonLines;
/// use std::path::Path;
///
/// let text = r#"{"question": "37+48=", "answer": 85, "level": 2}"#;
/// let problems =
///     JsonLines::default().parse(text.as_bytes(), Path::new("sums.jsonl"))?;
/// assert_eq!(problems[0].answer, "85");
/// assert_eq!(problems[0].metadata["level"], 2);
///
/// let wrong = JsonLines {
///     prompt_field: "problem".into(),
///     ..JsonLines::default()
/// };
/// let error = wrong
///     .parse(text.as_bytes(), Path::new("sums.jsonl"))
///     .unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "sums.jsonl:1: no field `problem`; the line has `answer`, `level`, `question`"
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JsonLines {
    /// The field that holds the prompt. Default: `question`.
    pub prompt_field: String,
    /// The field that holds the answer. Default: `answer`.
    pub answer_field: String,
    /// Accepts lines without a prompt or an answer, which are then empty, for environments that
    /// write the prompt and judge the answer themselves. Default: false.
    pub optional: bool,
}

impl Default for JsonLines {
    fn default() -> Self {
        Self {
            prompt_field: "question".into(),
            answer_field: "answer".into(),
            optional: false,
        }
    }
}

impl JsonLines {
    /// Rejects invalid field names.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a name is empty or `metadata`, or if both names are equal.
    pub fn validate(&self) -> Result<()> {
        for (field, name) in [
            ("prompt_field", &self.prompt_field),
            ("answer_field", &self.answer_field),
        ] {
            if name.is_empty() || name == METADATA {
                return Err(Error::config(
                    field,
                    format!("{name:?}"),
                    "a field name other than `metadata`",
                ));
            }
        }
        if self.prompt_field == self.answer_field {
            let name = format!("{:?}", self.answer_field);
            return Err(Error::config(
                "answer_field",
                name,
                "a field other than `prompt_field`",
            ));
        }
        Ok(())
    }

    /// Reads the problems of the file at `path`, in order.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be opened, and otherwise the same as
    /// [`JsonLines::parse`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<Problem>> {
        self.validate()?;
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        self.parse(BufReader::new(file), path)
    }

    /// Reads the problems from `reader`. `path_for_errors` appears in error messages only.
    ///
    /// # Errors
    /// Returns [`Error::Data`] with the line and the reason if a line is not UTF-8 or not a JSON
    /// object, lacks a field, has a field of the wrong type or has a blank prompt, or if there are
    /// no problems. Returns [`Error::Config`] if the field names are
    /// [invalid](JsonLines::validate), and [`Error::Io`] if reading fails.
    pub fn parse(&self, mut reader: impl BufRead, path_for_errors: &Path) -> Result<Vec<Problem>> {
        self.validate()?;
        let bad = |line, reason| Error::Data {
            path: path_for_errors.to_path_buf(),
            line,
            reason,
        };
        let mut problems = Vec::new();
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            // `lines()` would report invalid UTF-8 as an error of the reader, without the line.
            let read = reader
                .read_until(b'\n', &mut bytes)
                .map_err(|source| Error::io(path_for_errors, source))?;
            if read == 0 {
                break;
            }
            let mut text = std::str::from_utf8(&bytes).map_err(|error| {
                bad(
                    line,
                    format!("invalid UTF-8 after {} bytes", error.valid_up_to()),
                )
            })?;
            if line == 1 {
                text = text.strip_prefix('\u{feff}').unwrap_or(text);
            }
            let text = text.trim();
            if !text.is_empty() {
                problems.push(self.problem(text).map_err(|reason| bad(line, reason))?);
            }
        }
        if problems.is_empty() {
            return Err(bad(
                1,
                "no problems; expected one JSON object per line".into(),
            ));
        }
        Ok(problems)
    }

    /// Writes `problems` to a new file at `path`. [`JsonLines::read`] returns the same problems.
    ///
    /// Metadata entries become fields. Those named like the prompt field, the answer field or
    /// `metadata` are written into an object `metadata`.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] if there are no problems, [`Error::Data`] if a prompt is blank and
    /// not [`optional`](Self::optional), and [`Error::Config`] if the field names are
    /// [invalid](JsonLines::validate); the file is not created in these cases. Returns
    /// [`Error::Io`] if writing fails.
    pub fn write(&self, path: impl AsRef<Path>, problems: &[Problem]) -> Result<()> {
        self.validate()?;
        let path = path.as_ref();
        if problems.is_empty() {
            return Err(Error::shape("problems", 0, "at least 1"));
        }
        if let Some(i) = problems
            .iter()
            .position(|problem| !self.optional && problem.prompt.trim().is_empty())
        {
            let (path, line) = (path.to_path_buf(), i + 1);
            return Err(Error::Data {
                path,
                line,
                reason: "the prompt is empty".into(),
            });
        }
        let io = |source| Error::io(path, source);
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        for problem in problems {
            writeln!(file, "{}", Value::Object(self.object(problem))).map_err(io)?;
        }
        file.flush().map_err(io)
    }

    /// Parses one line; `Err` is the reason for the failure.
    fn problem(&self, text: &str) -> Result<Problem, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            // Drops serde's line number, which is always 1.
            let message = error.to_string();
            let reason = message
                .rsplit_once(" at line ")
                .map_or(message.as_str(), |(reason, _)| reason);
            format!("not JSON: {reason} at column {}", error.column())
        })?;
        let Value::Object(mut fields) = value else {
            return Err(format!("expected a JSON object, got {}", kind(&value)));
        };
        let missing = |field: &str, fields: &Map<String, Value>| {
            let mut names: Vec<String> = fields.keys().map(|name| format!("`{name}`")).collect();
            names.sort();
            let there = if names.is_empty() {
                "no fields".into()
            } else {
                names.join(", ")
            };
            format!("no field `{field}`; the line has {there}")
        };
        for field in [&self.prompt_field, &self.answer_field] {
            if self.optional {
                fields.entry(field).or_insert_with(|| "".into());
            } else if !fields.contains_key(field) {
                return Err(missing(field, &fields));
            }
        }
        let prompt = match fields.remove(&self.prompt_field) {
            Some(Value::String(prompt)) => prompt,
            other => return Err(wrong_type(&self.prompt_field, other, "a string")),
        };
        if prompt.trim().is_empty() && !self.optional {
            return Err(format!(
                "field `{}` is empty; expected a prompt",
                self.prompt_field
            ));
        }
        let answer = match fields.remove(&self.answer_field) {
            Some(Value::String(answer)) => answer,
            Some(Value::Bool(answer)) => answer.to_string(),
            Some(Value::Number(number)) => {
                // `Number` would round 0.10 to 0.1 and long integers to a float.
                value_text(text, &self.answer_field)
                    .map_or_else(|| number.to_string(), str::to_owned)
            }
            other => {
                return Err(wrong_type(
                    &self.answer_field,
                    other,
                    "a string, number or boolean",
                ));
            }
        };
        let mut metadata = match fields.remove(METADATA) {
            Some(Value::Object(entries)) => entries,
            Some(other) => Map::from_iter([(METADATA.to_owned(), other)]),
            None => Map::new(),
        };
        metadata.extend(fields);
        Ok(Problem {
            prompt,
            answer,
            metadata,
        })
    }

    /// The inverse of [`JsonLines::problem`].
    fn object(&self, problem: &Problem) -> Map<String, Value> {
        let taken = |name: &String| {
            [&self.prompt_field, &self.answer_field].contains(&name) || name == METADATA
        };
        let (inner, mut fields): (Map<_, _>, Map<_, _>) = problem
            .metadata
            .clone()
            .into_iter()
            .partition(|(name, _)| taken(name));
        if !inner.is_empty() {
            fields.insert(METADATA.into(), Value::Object(inner));
        }
        fields.insert(self.prompt_field.clone(), problem.prompt.clone().into());
        fields.insert(self.answer_field.clone(), problem.answer.clone().into());
        fields
    }
}

fn wrong_type(field: &str, value: Option<Value>, expected: &str) -> String {
    let got = value.as_ref().map_or("nothing", kind);
    format!("field `{field}` is {got}; expected {expected}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The text of the last top-level value called `field` in `object`, a valid JSON object.
fn value_text<'a>(object: &'a str, field: &str) -> Option<&'a str> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let (mut key, mut start, mut found) = ("", 0, None);
    // All delimiters are ASCII, and no byte of a multi-byte UTF-8 character is.
    for (i, byte) in object.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b':' if depth == 1 => (key, start) = (&object[start..i], i + 1),
            b',' | b'}' if depth == 1 => {
                if serde_json::from_str::<String>(key).is_ok_and(|key| key == field) {
                    found = Some(object[start..i].trim());
                }
                // The next key, if there is one, starts here.
                (key, start) = ("", i + 1);
                depth -= usize::from(byte == b'}');
            }
            b'{' | b'[' => {
                depth += 1;
                start = if depth == 1 { i + 1 } else { start };
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(bytes: &[u8]) -> Result<Vec<Problem>> {
        JsonLines::default().parse(bytes, Path::new("set.jsonl"))
    }

    #[test]
    fn byte_order_marks_blank_lines_and_crlf_are_accepted() {
        let text = "\u{feff}{\"question\":\"a\",\"answer\":\"1\"}\r\n\r\n  \n{\"question\":\" b\\n\",\"answer\":true}";
        assert_eq!(
            parse(text.as_bytes()).unwrap(),
            [Problem::new("a", "1"), Problem::new(" b\n", "true")]
        );
    }

    #[test]
    fn numbers_keep_their_text() {
        for number in [
            "1.50",
            "-0",
            "1e3",
            "12345678901234567890123456789",
            "0.1000000000000000055",
        ] {
            let text = format!(
                r#"{{"x": {{"answer": 7, "y": [1, {{"answer": 8}}]}}, "n": "\"answer\": 9,", "answer" : {number} , "question": "é}}"}}"#
            );
            assert_eq!(parse(text.as_bytes()).unwrap()[0].answer, number);
        }
        // Keys may have escapes, and the last of equal keys wins, as for other values.
        let text = r#"{"answer":1.0,"question":"a","\u0061nswer":2.0}"#;
        assert_eq!(parse(text.as_bytes()).unwrap()[0].answer, "2.0");
    }

    #[test]
    fn prompts_and_answers_may_be_optional() {
        let optional = JsonLines {
            optional: true,
            ..JsonLines::default()
        };
        let text = r#"{"task": "chain_sum"}"#;
        let problems = optional.parse(text.as_bytes(), Path::new("x")).unwrap();
        assert_eq!((&*problems[0].prompt, &*problems[0].answer), ("", ""));
        assert_eq!(problems[0].metadata["task"], "chain_sum");
        assert!(parse(text.as_bytes()).is_err());
        assert!(parse(br#"{"question": " ", "answer": "1"}"#).is_err());
    }

    #[test]
    fn other_fields_are_metadata_and_outer_fields_win() {
        let text = r#"{"question":"a","answer":"b","level":3,"metadata":{"level":4,"answer":"inner","tests":[1]}}"#;
        let metadata = json!({"level": 3, "answer": "inner", "tests": [1]});
        assert_eq!(
            Value::Object(parse(text.as_bytes()).unwrap()[0].metadata.clone()),
            metadata
        );
        let text = r#"{"question":"a","answer":"b","metadata":"none"}"#;
        assert_eq!(
            parse(text.as_bytes()).unwrap()[0].metadata["metadata"],
            "none"
        );
    }

    #[test]
    fn errors_have_the_line_and_the_reason() {
        let cases: [(&[u8], &str); 10] = [
            (
                b"{\"question\":",
                "not JSON: EOF while parsing a value at column 12",
            ),
            (b"{} x", "not JSON: trailing characters at column 4"),
            (b"[1]", "expected a JSON object, got an array"),
            (b"{}", "no field `question`; the line has no fields"),
            (
                b"{\"question\":\"a\",\"b\":1}",
                "no field `answer`; the line has `b`, `question`",
            ),
            (
                b"{\"question\":7,\"answer\":1}",
                "field `question` is a number; expected a string",
            ),
            (
                b"{\"question\":\"a\",\"answer\":null}",
                "field `answer` is null; expected a string, number or boolean",
            ),
            (
                b"{\"question\":\"a\",\"answer\":[1]}",
                "field `answer` is an array; expected a string, number or boolean",
            ),
            (
                b"{\"question\":\" \",\"answer\":1}",
                "field `question` is empty; expected a prompt",
            ),
            (b"{\"q\":\"\xff\"}", "invalid UTF-8 after 6 bytes"),
        ];
        for (line, reason) in cases {
            let bytes = [b"{\"question\":\"a\",\"answer\":\"b\"}\n\r\n", line, b"\n"].concat();
            assert_eq!(
                parse(&bytes).unwrap_err().to_string(),
                format!("set.jsonl:3: {reason}")
            );
        }
        for nothing in ["", "\u{feff}", "\n \r\n"] {
            let error = parse(nothing.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("set.jsonl:1: no problems"), "{error}");
        }
    }

    #[test]
    fn invalid_files_problems_and_field_names_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        let lines = JsonLines::default();
        assert!(matches!(lines.read(&path), Err(Error::Io { .. })));
        assert!(matches!(lines.write(&path, &[]), Err(Error::Shape { .. })));
        let blank = [Problem::new("a", "b"), Problem::new("", "b")];
        assert!(matches!(
            lines.write(&path, &blank),
            Err(Error::Data { line: 2, .. })
        ));
        assert!(!path.exists());
        for (prompt_field, answer_field) in [("", "b"), ("a", "a"), ("a", "metadata")] {
            let wrong = JsonLines {
                prompt_field: prompt_field.into(),
                answer_field: answer_field.into(),
                optional: false,
            };
            assert!(matches!(wrong.read(&path), Err(Error::Config { .. })));
        }
        let config: JsonLines = serde_json::from_str(r#"{"prompt_field": "problem"}"#).unwrap();
        assert_eq!(
            (config.prompt_field.as_str(), config.answer_field.as_str()),
            ("problem", "answer")
        );
    }

    fn problem() -> impl Strategy<Value = Problem> {
        let value = prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            Just(Value::Null),
            Just(json!({"question": [true, {"metadata": 1}]})),
        ];
        let name = prop_oneof![
            any::<String>(),
            Just("answer".to_owned()),
            Just("question".into()),
            Just("metadata".into())
        ];
        (
            ".*[a-z].*",
            any::<String>(),
            prop::collection::btree_map(name, value, 0..5),
        )
            .prop_map(|(prompt, answer, metadata)| Problem {
                prompt,
                answer,
                metadata: Map::from_iter(metadata),
            })
    }

    proptest! {
        #[test]
        fn read_inverts_write(problems in prop::collection::vec(problem(), 1..5)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("set.jsonl");
            JsonLines::default().write(&path, &problems).unwrap();
            prop_assert_eq!(JsonLines::default().read(&path).unwrap(), problems);
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>(), text in "[{}\\[\\]\":,a\\\\1 \n]{0,40}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
