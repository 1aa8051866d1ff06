//! The Jinja environment of chat templates, configured as in `transformers`.

use std::fmt;

use jiff::Zoned;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use regex::Regex;

use super::{json, methods};

/// The budget of one rendering, about one unit per instruction or 64 bytes. A template is untrusted
/// and may have nested loops. A conversation of a thousand turns needs less than a hundredth of
/// this.
const FUEL: u64 = 10_000_000;

/// The message of a call of `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Creates an environment without templates.
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(methods::call);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("trim", |text: &str, characters: Option<&str>| {
        methods::strip(text, characters, true, true).to_owned()
    });
    // In Jinja, strings and mappings are sequences, and booleans are numbers.
    environment.add_test("sequence", |value: &Value| {
        let kind = value.kind();
        value.is_undefined() || matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: &str| {
        strftime(format, &Zoned::now())
    });
    Ok(environment)
}

/// Makes `strftime_now` always write the time of this call.
pub(super) fn freeze_clock(environment: &mut Environment<'static>) {
    let now = Zoned::now();
    environment.add_function("strftime_now", move |format: &str| strftime(format, &now));
}

fn raise_exception(message: String) -> Result<Value, Error> {
    let error = Error::new(
        ErrorKind::InvalidOperation,
        "the template raised an exception",
    );
    Err(error.with_source(Raised(message)))
}

/// Formats a local time.
fn strftime(format: &str, time: &Zoned) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, time)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Replaces the `{% generation %}` blocks of a template, which mark the assistant's text, by
/// `{% with %}` blocks, which only open a scope and treat white space and variables in the same
/// way.
pub(super) fn without_generation_tags(source: &str) -> String {
    let Ok(tag) = Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}") else {
        return source.to_owned();
    };
    tag.replace_all(source, "{%$1 ${2}with $3%}").into_owned()
}
