//! Validation of arguments against a JSON Schema.

use std::cell::Cell;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The maximum depth of values and references.
const MAX_DEPTH: usize = 256;
/// The maximum number of comparisons: nested alternatives multiply.
const MAX_STEPS: usize = 1_000_000;
/// The maximum number of reported errors.
const MAX_FAULTS: usize = 5;

/// The types of JSON Schema.
const TYPES: [&str; 7] = [
    "null", "boolean", "integer", "number", "string", "array", "object",
];

/// A JSON Schema of arguments.
///
/// These keywords are checked: `type`, `enum`, `const`, `properties`, `required`,
/// `additionalProperties`, `items`, `anyOf`, `oneOf`, `allOf`, `minimum`, `maximum`,
/// `exclusiveMinimum`, `exclusiveMaximum`, `minLength`, `maxLength`, `minItems`, `maxItems`, and
/// `$ref` within the schema (`#/$defs/..`). `oneOf` is treated as `anyOf`. Others, such as
/// `pattern` and `format`, are ignored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schema {
    root: Value,
}

impl Schema {
    /// Creates a schema and validates the supported keywords.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the location in the schema.
    pub fn new(schema: Value) -> Result<Self> {
        validate(&schema, "#")?;
        Ok(Self { root: schema })
    }

    /// Checks that `value` matches.
    ///
    /// # Errors
    /// Returns up to five errors, each with the location, the value and what is expected.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let mut faults = Vec::new();
        let walk = Walk::new(&self.root);
        walk.check(&self.root, value, "", MAX_DEPTH, &mut faults);
        if walk.steps.get() == 0 {
            return Err("the schema has too many alternatives to be checked".into());
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(faults.join("; ")),
        }
    }

    /// Whether a property of the outermost object may have this type; `None` if the schema does not
    /// say.
    pub(super) fn allows(&self, property: &str, kind: &str) -> Option<bool> {
        let schema = self.root.get("properties")?.get(property)?;
        Walk::new(&self.root).allows(schema, kind, MAX_DEPTH)
    }
}

/// A comparison of a value with a schema.
struct Walk<'a> {
    root: &'a Value,
    /// The number of remaining comparisons.
    steps: Cell<usize>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Value) -> Self {
        Self {
            root,
            steps: Cell::new(MAX_STEPS),
        }
    }

    /// Takes a step. Returns false if no steps or depth are left.
    fn goes_on(&self, depth: usize) -> bool {
        let steps = self.steps.get();
        self.steps.set(steps.saturating_sub(1));
        depth > 0 && steps > 0
    }

    /// Resolves `$ref`.
    fn reference(&self, schema: &Value) -> Option<&'a Value> {
        let path = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(path)
    }

    /// Whether a value of this type may match; `None` if the schema does not say.
    fn allows(&self, schema: &Value, kind: &str, depth: usize) -> Option<bool> {
        if !self.goes_on(depth) {
            return None;
        }
        if let Some(target) = self.reference(schema) {
            return self.allows(target, kind, depth - 1);
        }
        if let Some(types) = schema.get("type") {
            let is = |name: &Value| name == kind || (name == "number" && kind == "integer");
            return Some(match types {
                Value::Array(types) => types.iter().any(is),
                one => is(one),
            });
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return Some(values.iter().any(|value| is_of_type(value, kind)));
        }
        let schemas = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
        let mut verdicts = schemas
            .as_array()?
            .iter()
            .map(|schema| self.allows(schema, kind, depth - 1));
        verdicts.try_fold(false, |any, verdict| Some(any | verdict?))
    }

    /// Adds the errors of `value`, which is at `path`.
    fn check(
        &self,
        schema: &Value,
        value: &Value,
        path: &str,
        depth: usize,
        faults: &mut Vec<String>,
    ) {
        if faults.len() >= MAX_FAULTS || !self.goes_on(depth) {
            return;
        }
        let depth = depth - 1;
        if let Some(target) = self.reference(schema) {
            self.check(target, value, path, depth, faults);
        }
        let Some(schema) = schema.as_object() else {
            if schema == &Value::Bool(false) {
                faults.push(format!("{} is not allowed", named(path)));
            }
            return;
        };
        let mut fault = |expected: String| {
            faults.push(format!(
                "{} is {}, expected {expected}",
                named(path),
                shown(value)
            ));
        };
        if let Some(types) = schema.get("type") {
            let names: Vec<&str> = match types {
                Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                one => one.as_str().into_iter().collect(),
            };
            if !names.iter().any(|name| is_of_type(value, name)) {
                return fault(format!("the type {}", names.join(" or ")));
            }
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array)
            && !values.iter().any(|allowed| equal(allowed, value))
        {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            return fault(format!("one of {}", values.join(", ")));
        }
        if let Some(constant) = schema.get("const")
            && !equal(constant, value)
        {
            return fault(constant.to_string());
        }
        limits(schema, value).into_iter().for_each(&mut fault);
        for (keyword, all) in [("anyOf", false), ("oneOf", false), ("allOf", true)] {
            let Some(schemas) = schema.get(keyword).and_then(Value::as_array) else {
                continue;
            };
            let mut first = Vec::new();
            let mut fits = false;
            for schema in schemas {
                let mut found = Vec::new();
                self.check(schema, value, path, depth, &mut found);
                fits |= found.is_empty();
                if all {
                    faults.append(&mut found);
                } else if first.is_empty() {
                    first = found;
                }
            }
            if !all && !fits {
                faults.append(&mut first);
            }
        }
        match value {
            Value::Object(object) => self.object(schema, object, path, depth, faults),
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    for (at, item) in items.iter().enumerate() {
                        let path = format!("{path}[{at}]");
                        self.check(schema, item, &path, depth, faults);
                    }
                }
            }
            _ => {}
        }
    }

    fn object(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        path: &str,
        depth: usize,
        faults: &mut Vec<String>,
    ) {
        let within = |key: &str| match path.is_empty() {
            true => key.to_string(),
            false => format!("{path}.{key}"),
        };
        let required = schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(key) {
                faults.push(format!("`{}` is missing", within(key)));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in object {
            let known = properties.and_then(|properties| properties.get(key));
            let path = within(key);
            match known.or_else(|| schema.get("additionalProperties")) {
                Some(Value::Bool(false)) if known.is_none() => {
                    let names = properties.into_iter().flat_map(Map::keys);
                    let names: Vec<&str> = names.map(String::as_str).collect();
                    let names = match names.is_empty() {
                        true => "none".to_string(),
                        false => names.join(", "),
                    };
                    faults.push(format!("`{path}` is unknown, expected {names}"));
                }
                Some(schema) => self.check(schema, value, &path, depth, faults),
                None => {}
            }
        }
        faults.truncate(MAX_FAULTS);
    }
}

/// Returns the size limits that a value violates.
fn limits(schema: &Map<String, Value>, value: &Value) -> Vec<String> {
    let size = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        _ => None,
    };
    let Some(size) = size else {
        return Vec::new();
    };
    /// A keyword, its words, the unit, and the condition that violates it.
    type Limit = (
        &'static str,
        &'static str,
        &'static str,
        fn(f64, f64) -> bool,
    );
    let limits: &[Limit] = match value {
        Value::Number(_) => &[
            ("minimum", "at least", "", |size, limit| size < limit),
            ("maximum", "at most", "", |size, limit| size > limit),
            ("exclusiveMinimum", "more than", "", |size, limit| {
                size <= limit
            }),
            ("exclusiveMaximum", "less than", "", |size, limit| {
                size >= limit
            }),
        ],
        Value::String(_) => &[
            ("minLength", "at least", " characters", |size, limit| {
                size < limit
            }),
            ("maxLength", "at most", " characters", |size, limit| {
                size > limit
            }),
        ],
        _ => &[
            ("minItems", "at least", " items", |size, limit| size < limit),
            ("maxItems", "at most", " items", |size, limit| size > limit),
        ],
    };
    let broken = limits.iter().filter_map(|(keyword, words, unit, breaks)| {
        let limit = schema.get(*keyword)?.as_f64()?;
        breaks(size, limit).then(|| format!("{words} {limit}{unit}"))
    });
    broken.collect()
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        // 2.0 is an integer, too.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// Whether two values are equal; numbers are compared by value.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

fn named(path: &str) -> String {
    match path.is_empty() {
        true => "the value".into(),
        false => format!("`{path}`"),
    }
}

/// A value, shortened.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.chars().count() > LONGEST {
        true => text.chars().take(LONGEST).chain("...".chars()).collect(),
        false => text,
    }
}

/// Returns an error for keywords with invalid values.
fn validate(schema: &Value, path: &str) -> Result<()> {
    let fail = |keyword: &str, expected: &str| {
        let value = schema.get(keyword).map_or_else(|| shown(schema), shown);
        let field = format!("{path}/{keyword}");
        Err(Error::config(field.trim_end_matches('/'), value, expected))
    };
    let Some(object) = schema.as_object() else {
        return match schema {
            Value::Bool(_) => Ok(()),
            _ => fail("", "a JSON Schema: an object, true or false"),
        };
    };
    for (keyword, value) in object {
        let is_type = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
        let texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
        match keyword.as_str() {
            "type" => {
                let known = match value {
                    Value::Array(names) => !names.is_empty() && names.iter().all(is_type),
                    one => is_type(one),
                };
                if !known {
                    return fail(keyword, &format!("one or several of {}", TYPES.join(", ")));
                }
            }
            "enum" if value.as_array().is_none_or(Vec::is_empty) => {
                return fail(keyword, "a list of values");
            }
            "required" if !value.as_array().is_some_and(texts) => {
                return fail(keyword, "a list of names");
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "minLength"
            | "maxLength" | "minItems" | "maxItems"
                if !value.is_number() =>
            {
                return fail(keyword, "a number");
            }
            "properties" | "$defs" | "definitions" => {
                let Some(schemas) = value.as_object() else {
                    return fail(keyword, "an object of schemas");
                };
                for (name, schema) in schemas {
                    validate(schema, &format!("{path}/{keyword}/{name}"))?;
                }
            }
            "anyOf" | "oneOf" | "allOf" => {
                let Some(schemas) = value.as_array().filter(|list| !list.is_empty()) else {
                    return fail(keyword, "a list of schemas");
                };
                for (at, schema) in schemas.iter().enumerate() {
                    validate(schema, &format!("{path}/{keyword}/{at}"))?;
                }
            }
            "items" | "additionalProperties" => {
                validate(value, &format!("{path}/{keyword}"))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
