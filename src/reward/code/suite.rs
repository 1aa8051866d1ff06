//! The tests of a problem, read from its metadata.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::reward::RewardError;

/// The tests of one problem, read from its metadata.
///
/// # Metadata
///
/// | key | value |
/// |---|---|
/// | `tests` | a list of tests of one kind: `{"input": "1 2\n", "output": "3\n"}` (standard input and output); `{"function": "add", "args": [1, 2], "kwargs": {}, "expected": 3}` (a call with JSON values); `{"assert": "assert add(1, 2) == 3"}` |
/// | `setup` | Python code that runs before the assertions, in their process: imports, helpers |
/// | `prelude` | code that is put before the program and, for assertions, before the setup, such as the prompt of HumanEval |
/// | `entry_point` | the only name of the program that assertions may use; without it, every name that neither they nor Python define |
///
/// The fields of well-known data sets are read as well:
///
/// | data set | keys |
/// |---|---|
/// | MBPP | `test_list`, with `test_setup_code` and `test_imports` |
/// | HumanEval | `test` (defines `check(candidate)`) and `entry_point`; put the prompt into `prelude` |
/// | APPS, TACO, LiveCodeBench | `input_output`: an object or its JSON text, with `inputs`, `outputs` and optionally `fn_name` |
///
/// ```
/// use rlvr::reward::code::Suite;
///
/// let metadata = serde_json::json!({
///     "test_list": ["assert add(1, 2) == 3"],
///     "test_setup_code": "",
/// });
/// assert!(Suite::from_metadata(metadata.as_object().unwrap()).is_ok());
///
/// // Missing or misspelt tests are an error.
/// for broken in [
///     serde_json::json!({}),
///     serde_json::json!({"tests": []}),
///     serde_json::json!({"tests": [{"in": "1"}]}),
/// ] {
///     assert!(Suite::from_metadata(broken.as_object().unwrap()).is_err());
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// Code that is put before the program.
    pub(super) prelude: String,
    /// The tests.
    pub(super) cases: Cases,
}

/// Tests of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cases {
    /// Each run of the program reads one text and must write another.
    Streams(Vec<Stream>),
    /// A function of the program is called and its value is compared.
    Calls(Vec<Call>),
    /// Statements that must complete.
    Asserts(Asserts),
}

/// A standard input and the expected output.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stream {
    /// The standard input.
    pub(super) input: String,
    /// The standard output.
    pub(super) output: String,
}

/// A call and the expected value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    /// The name of the function, or of a method of a class `Solution` if there is no such function.
    pub(super) function: String,
    /// Its arguments.
    #[serde(default)]
    pub(super) args: Vec<Value>,
    /// Its named arguments. Default: none.
    #[serde(default)]
    pub(super) kwargs: Map<String, Value>,
    /// The expected value. Tuples count as lists, and numbers by their value.
    pub(super) expected: Value,
}

/// Assertions with their setup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asserts {
    /// Code before the assertions.
    pub(super) setup: Vec<String>,
    /// The assertions, any statements.
    pub(super) tests: Vec<String>,
    /// The only name of the program that they may use.
    pub(super) entry_point: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assert {
    assert: String,
}

#[derive(Deserialize)]
struct InputOutput {
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    #[serde(default)]
    fn_name: Option<String>,
}

impl Suite {
    /// The number of tests, at least one.
    pub(super) fn len(&self) -> usize {
        match &self.cases {
            Cases::Streams(cases) => cases.len(),
            Cases::Calls(cases) => cases.len(),
            Cases::Asserts(asserts) => asserts.tests.len(),
        }
    }

    /// Reads the tests from the metadata of a problem, see [`Suite`].
    ///
    /// # Errors
    /// Returns an error if there are no tests, or if they do not have the form described there.
    pub fn from_metadata(metadata: &Map<String, Value>) -> Result<Self, RewardError> {
        let suite = Self {
            prelude: text(metadata, "prelude")?.unwrap_or_default(),
            cases: cases(metadata)?,
        };
        if suite.len() == 0 {
            return Err("the metadata have no tests: the list is empty".into());
        }
        Ok(suite)
    }
}

fn text(metadata: &Map<String, Value>, key: &str) -> Result<Option<String>, RewardError> {
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("`{key}` is {other}; expected a string").into()),
    }
}

/// Reads a list of strings, or a single one.
fn texts(metadata: &Map<String, Value>, key: &str) -> Result<Vec<String>, RewardError> {
    match metadata.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(list) => Ok(Vec::<String>::deserialize(list)
            .map_err(|error| format!("`{key}`: {error}; expected a list of strings"))?),
    }
}

fn cases(metadata: &Map<String, Value>) -> Result<Cases, RewardError> {
    let mut setup = texts(metadata, "test_imports")?;
    setup.extend(text(metadata, "test_setup_code")?);
    setup.extend(texts(metadata, "setup")?);
    let entry_point = text(metadata, "entry_point")?;
    let asserts = |setup, tests| {
        Cases::Asserts(Asserts {
            setup,
            tests,
            entry_point: entry_point.clone(),
        })
    };
    if let Some(tests) = metadata.get("tests") {
        return own(tests, |tests| asserts(setup, tests));
    }
    if metadata.contains_key("test_list") {
        return Ok(asserts(setup, texts(metadata, "test_list")?));
    }
    if let (Some(test), Some(name)) = (text(metadata, "test")?, &entry_point) {
        setup.push(test);
        // `check` receives the function of the program by the name that the checker has for it.
        return Ok(asserts(setup, vec![check_call(name)]));
    }
    if let Some(value) = metadata.get("input_output") {
        return input_output(value);
    }
    Err("the metadata have no tests: expected `tests`, `test_list`, `test` with `entry_point`, or `input_output`".into())
}

/// The last line of a HumanEval test.
fn check_call(name: &str) -> String {
    format!("check({name})")
}

/// Reads the tests in the form of this crate, all of the kind of the first.
fn own(tests: &Value, asserts: impl FnOnce(Vec<String>) -> Cases) -> Result<Cases, RewardError> {
    let list = tests.as_array().ok_or("`tests` is not a list")?;
    let first = list.first().ok_or("`tests` is empty")?;
    let broken = |error: serde_json::Error| RewardError::from(format!("`tests`: {error}"));
    if first.get("assert").is_some() {
        let tests = Vec::<Assert>::deserialize(tests).map_err(broken)?;
        return Ok(asserts(tests.into_iter().map(|test| test.assert).collect()));
    }
    if first.get("function").is_some() {
        return Ok(Cases::Calls(Vec::deserialize(tests).map_err(broken)?));
    }
    Ok(Cases::Streams(Vec::deserialize(tests).map_err(broken)?))
}

fn input_output(value: &Value) -> Result<Cases, RewardError> {
    let parsed: InputOutput = match value {
        Value::String(text) => serde_json::from_str(text),
        other => InputOutput::deserialize(other),
    }
    .map_err(|error| format!("`input_output`: {error}"))?;
    let (inputs, outputs) = (parsed.inputs, parsed.outputs);
    if inputs.len() != outputs.len() {
        let (inputs, outputs) = (inputs.len(), outputs.len());
        return Err(format!("`input_output` has {inputs} inputs and {outputs} outputs").into());
    }
    let pairs = inputs.into_iter().zip(outputs);
    let Some(function) = parsed.fn_name else {
        let streams = pairs.map(|(input, output)| {
            Ok(Stream {
                input: lines(input)?,
                output: lines(output)?,
            })
        });
        return Ok(Cases::Streams(streams.collect::<Result<_, RewardError>>()?));
    };
    let calls = pairs.map(|(input, expected)| {
        Ok(Call {
            function: function.clone(),
            args: arguments(input)?,
            kwargs: Map::new(),
            expected: result(expected)?,
        })
    });
    Ok(Cases::Calls(calls.collect::<Result<_, RewardError>>()?))
}

/// Reads a text, or the list of its lines.
fn lines(value: Value) -> Result<String, RewardError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Array(lines) => {
            let lines: Result<Vec<String>, RewardError> =
                lines.into_iter().map(self::lines).collect();
            Ok(lines?.join("\n"))
        }
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("`input_output` has {other} where a string is expected").into()),
    }
}

/// Reads a list of arguments, or a text with one JSON value per line.
fn arguments(value: Value) -> Result<Vec<Value>, RewardError> {
    match value {
        Value::Array(arguments) => Ok(arguments),
        Value::String(text) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let parsed: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
            Ok(parsed.map_err(|error| format!("`input_output`: an argument: {error}"))?)
        }
        other => Err(format!("`input_output` has {other} where arguments are expected").into()),
    }
}

/// Reads a value as JSON text, as the only item of a list (as in APPS), or unchanged.
fn result(value: Value) -> Result<Value, RewardError> {
    match value {
        Value::String(text) => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
        Value::Array(mut list) if list.len() == 1 => Ok(list.swap_remove(0)),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn suite(metadata: Value) -> Result<Suite, String> {
        Suite::from_metadata(metadata.as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn all_three_kinds_of_tests_are_read() {
        let streams = suite(json!({"tests": [{"input": "1", "output": "2"}]})).unwrap();
        let stream = Stream {
            input: "1".into(),
            output: "2".into(),
        };
        assert_eq!(streams.cases, Cases::Streams(vec![stream]));
        let calls =
            suite(json!({"tests": [{"function": "f", "args": [1], "expected": null}]})).unwrap();
        assert!(matches!(calls.cases, Cases::Calls(calls) if calls[0].args == [json!(1)]));
        let asserts = json!({"tests": [{"assert": "a"}, {"assert": "b"}], "setup": "s", "entry_point": "f", "prelude": "p"});
        let asserts = suite(asserts).unwrap();
        assert_eq!((asserts.prelude.as_str(), asserts.len()), ("p", 2));
        let expected = Asserts {
            setup: vec!["s".into()],
            tests: vec!["a".into(), "b".into()],
            entry_point: Some("f".into()),
        };
        assert_eq!(asserts.cases, Cases::Asserts(expected));
    }

    #[test]
    fn data_set_formats_are_read() {
        let mbpp = json!({"test_list": ["assert f()"], "test_setup_code": "x", "test_imports": ["import math"]});
        let Cases::Asserts(mbpp) = suite(mbpp).unwrap().cases else {
            panic!()
        };
        assert_eq!(
            (mbpp.setup, mbpp.tests),
            (
                vec!["import math".to_string(), "x".into()],
                vec!["assert f()".into()]
            )
        );
        let human = json!({"test": "def check(candidate): pass", "entry_point": "f"});
        let Cases::Asserts(human) = suite(human).unwrap().cases else {
            panic!()
        };
        assert_eq!(human.tests, ["check(f)"]);
        let apps = json!({"input_output": "{\"inputs\": [\"1\\n2\", [\"3\", 4]], \"outputs\": [\"3\", [\"7\"]]}"});
        let Cases::Streams(apps) = suite(apps).unwrap().cases else {
            panic!()
        };
        assert_eq!(apps[1].input, "3\n4");
        let live = json!({"input_output": {"inputs": ["[1, 2]\n3", [4, 5]], "outputs": ["[3]", [9]], "fn_name": "f"}});
        let Cases::Calls(live) = suite(live).unwrap().cases else {
            panic!()
        };
        assert_eq!(live[0].args, [json!([1, 2]), json!(3)]);
        assert_eq!(
            (&live[0].expected, &live[1].expected),
            (&json!([3]), &json!(9))
        );
    }

    #[test]
    fn invalid_tests_are_errors_that_name_the_field() {
        for (metadata, reason) in [
            (json!({}), "no tests"),
            (json!({"tests": []}), "`tests` is empty"),
            (json!({"tests": {}}), "`tests` is not a list"),
            (
                json!({"tests": [{"input": "1", "output": "1", "x": 1}]}),
                "unknown field `x`",
            ),
            (json!({"tests": [{"input": "1"}]}), "missing field `output`"),
            (
                json!({"tests": [{"function": "f"}]}),
                "missing field `expected`",
            ),
            (
                json!({"tests": [{"assert": "a"}, {"input": "1", "output": "1"}]}),
                "`tests`",
            ),
            (json!({"test_list": []}), "the list is empty"),
            (json!({"test_list": [1]}), "`test_list`"),
            (json!({"input_output": "{"}), "`input_output`"),
            (
                json!({"input_output": {"inputs": ["1"], "outputs": []}}),
                "1 inputs and 0 outputs",
            ),
            (
                json!({"tests": [{"assert": "a"}], "prelude": 1}),
                "`prelude`",
            ),
        ] {
            let error = suite(metadata.clone()).unwrap_err();
            assert!(error.contains(reason), "{metadata}: {error}");
        }
    }
}
