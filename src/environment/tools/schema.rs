//! Whether arguments fit a JSON Schema.

use std::cell::Cell;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// How deep values and references are followed.
const MAX_DEPTH: usize = 256;
/// How many parts of the schema are compared with parts of a value: alternatives within alternatives multiply.
const MAX_STEPS: usize = 1_000_000;
/// The most faults that are told at once.
const MAX_FAULTS: usize = 5;

/// The types of JSON Schema.
const TYPES: [&str; 7] = [
    "null", "boolean", "integer", "number", "string", "array", "object",
];

/// A JSON Schema: what arguments have to be.
///
/// These keywords are checked: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`, `anyOf`, `oneOf`, `allOf`,
/// `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `minLength`, `maxLength`, `minItems`, `maxItems`, and `$ref` within
/// the schema (`#/$defs/..`). `oneOf` is read as `anyOf`. Others, such as `pattern` and `format`, are not checked.
///
/// ```
/// use rlvr::environment::tools::Schema;
/// use serde_json::json;
///
/// let schema = Schema::new(json!({
///     "type": "object",
///     "properties": {"unit": {"enum": ["km", "mi"]}, "distance": {"type": "number"}},
///     "required": ["distance"],
/// }))?;
/// assert_eq!(schema.check(&json!({"distance": 3, "unit": "km"})), Ok(()));
/// assert_eq!(
///     schema.check(&json!({"unit": "feet"})),
///     Err("`distance` is missing; `unit` is \"feet\", expected one of \"km\", \"mi\"".into())
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    root: Value,
}

impl Schema {
    /// Refuses what is no schema, as far as the keywords that are checked go.
    ///
    /// # Errors
    /// [`Error::Config`], naming the place in the schema.
    pub fn new(schema: Value) -> Result<Self> {
        validate(&schema, "#")?;
        Ok(Self { root: schema })
    }

    /// Whether `value` fits.
    ///
    /// # Errors
    /// Up to five faults, each with the place in the value, what is there and what is expected.
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

    /// Whether a property of the outermost object may be of this type, and whether the schema says what it may be.
    pub(super) fn allows(&self, property: &str, kind: &str) -> Option<bool> {
        let schema = self.root.get("properties")?.get(property)?;
        Walk::new(&self.root).allows(schema, kind, MAX_DEPTH)
    }
}

/// Compares values with parts of one schema.
struct Walk<'a> {
    root: &'a Value,
    /// How many comparisons are left.
    steps: Cell<usize>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Value) -> Self {
        Self {
            root,
            steps: Cell::new(MAX_STEPS),
        }
    }

    /// Whether there is a step left, which is taken, and depth for it.
    fn goes_on(&self, depth: usize) -> bool {
        let steps = self.steps.get();
        self.steps.set(steps.saturating_sub(1));
        depth > 0 && steps > 0
    }

    /// The schema that `$ref` names.
    fn reference(&self, schema: &Value) -> Option<&'a Value> {
        let path = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        self.root.pointer(path)
    }

    /// Whether a value of this type may fit; `None` if the schema does not say.
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

    /// Adds what is wrong with `value`, which stands at `path`.
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

/// What a value breaks of the limits on sizes.
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
    /// A keyword, how it is said, and what it refuses.
    type Limit = (&'static str, &'static str, fn(f64, f64) -> bool);
    let limits: &[Limit] = match value {
        Value::Number(_) => &[
            ("minimum", "at least", |size, limit| size < limit),
            ("maximum", "at most", |size, limit| size > limit),
            ("exclusiveMinimum", "more than", |size, limit| size <= limit),
            ("exclusiveMaximum", "less than", |size, limit| size >= limit),
        ],
        Value::String(_) => &[
            ("minLength", "characters, at least", |size, limit| {
                size < limit
            }),
            ("maxLength", "characters, at most", |size, limit| {
                size > limit
            }),
        ],
        _ => &[
            ("minItems", "items, at least", |size, limit| size < limit),
            ("maxItems", "items, at most", |size, limit| size > limit),
        ],
    };
    let broken = limits.iter().filter_map(|(keyword, words, breaks)| {
        let limit = schema.get(*keyword)?.as_f64()?;
        breaks(size, limit).then(|| format!("{words} {limit}"))
    });
    broken.collect()
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        // 2.0 is an integer as well.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// Whether two values are the same, numbers by their value.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && b.is_number() && a.as_f64() == b.as_f64())
}

fn named(path: &str) -> String {
    match path.is_empty() {
        true => "the whole".into(),
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

/// Refuses keywords whose values cannot mean anything.
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn check(schema: Value, value: Value) -> String {
        let schema = Schema::new(schema).unwrap();
        schema.check(&value).err().unwrap_or_default()
    }

    #[test]
    fn faults_are_named_with_their_place() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 2},
                "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
                "tags": {"type": "array", "items": {"enum": ["a", "b", 1]}, "maxItems": 2},
                "home": {"type": "object", "properties": {"zip": {"type": ["string", "null"]}}, "required": ["zip"]},
                "way": {"anyOf": [{"type": "number"}, {"const": "auto"}]},
            },
            "required": ["name"],
            "additionalProperties": false,
        });
        for (value, expected) in [
            (
                json!({"name": "Ada", "age": 36, "tags": ["a", 1.0], "home": {"zip": null, "x": 1}, "way": "auto"}),
                "",
            ),
            (json!({"name": "Ada", "age": 2.0, "way": 1.5}), ""),
            (json!([]), "the whole is [], expected the type object"),
            (json!({}), "`name` is missing"),
            (json!({"name": 5}), "`name` is 5, expected the type string"),
            (
                json!({"name": "A"}),
                "`name` is \"A\", expected characters, at least 2",
            ),
            (
                json!({"name": "Ada", "age": 2.5}),
                "`age` is 2.5, expected the type integer",
            ),
            (
                json!({"name": "Ada", "age": -1}),
                "`age` is -1, expected at least 0",
            ),
            (
                json!({"name": "Ada", "age": 150}),
                "`age` is 150, expected less than 150",
            ),
            (
                json!({"name": "Ada", "tags": ["a", "c"]}),
                "`tags[1]` is \"c\", expected one of \"a\", \"b\", 1",
            ),
            (
                json!({"name": "Ada", "tags": ["a", "b", 1]}),
                "`tags` is [\"a\",\"b\",1], expected items, at most 2",
            ),
            (json!({"name": "Ada", "home": {}}), "`home.zip` is missing"),
            (
                json!({"name": "Ada", "home": {"zip": 1}}),
                "`home.zip` is 1, expected the type string or null",
            ),
            (
                json!({"name": "Ada", "way": "manual"}),
                "`way` is \"manual\", expected the type number",
            ),
            (
                json!({"name": "Ada", "x": 1}),
                "`x` is unknown, expected age, home, name, tags, way",
            ),
        ] {
            assert_eq!(check(schema.clone(), value.clone()), expected, "{value}");
        }
        let many: Map<String, Value> = (0..9).map(|at| (format!("x{at}"), json!(1))).collect();
        assert_eq!(check(schema, Value::Object(many)).split("; ").count(), 5);
        let long = check(json!({"type": "integer"}), json!("x".repeat(999)));
        assert!(long.len() < 120, "{long}");
        assert_eq!(check(json!(true), json!(1)), "");
        assert_eq!(
            check(json!({"properties": {"a": false}}), json!({"a": 1})),
            "`a` is not allowed"
        );
        assert_eq!(
            check(json!({"allOf": [{"minimum": 1}, {"maximum": 3}]}), json!(4)),
            "the whole is 4, expected at most 3"
        );
        assert_eq!(
            check(
                json!({"additionalProperties": {"type": "string"}}),
                json!({"a": 1})
            ),
            "`a` is 1, expected the type string"
        );
    }

    #[test]
    fn references_are_followed_and_loops_end() {
        let tree = json!({
            "$defs": {"node": {"type": "object", "properties": {"left": {"$ref": "#/$defs/node"}}, "additionalProperties": false}},
            "$ref": "#/$defs/node",
        });
        assert_eq!(check(tree.clone(), json!({"left": {"left": {}}})), "");
        assert_eq!(
            check(tree, json!({"left": {"left": 3}})),
            "`left.left` is 3, expected the type object"
        );
        let endless = json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
        assert_eq!(check(endless, json!(1)), "");
        assert_eq!(check(json!({"$ref": "#"}), json!(1)), "");
        // Two ways at every step, of which each has two ways.
        let both = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}, false]});
        let reason = check(both.clone(), json!(1));
        assert_eq!(reason, "the schema has too many alternatives to be checked");
        let both = json!({"properties": {"a": both}});
        assert_eq!(Schema::new(both).unwrap().allows("a", "string"), None);
        // References beyond the schema are not followed.
        assert_eq!(check(json!({"$ref": "http://example.org/x"}), json!(1)), "");
    }

    #[test]
    fn what_is_no_schema_is_refused_with_its_place() {
        let error = |schema: Value| Schema::new(schema).unwrap_err().to_string();
        for (schema, expected) in [
            (json!(5), "invalid `#`: 5; expected a JSON Schema"),
            (
                json!({"type": "int"}),
                "invalid `#/type`: \"int\"; expected one or several of null, boolean",
            ),
            (
                json!({"properties": {"a": {"type": []}}}),
                "invalid `#/properties/a/type`: []",
            ),
            (json!({"properties": []}), "invalid `#/properties`: []"),
            (json!({"required": "a"}), "invalid `#/required`: \"a\""),
            (json!({"enum": []}), "invalid `#/enum`: []"),
            (
                json!({"anyOf": [{"minimum": "1"}]}),
                "invalid `#/anyOf/0/minimum`: \"1\"",
            ),
            (json!({"items": [1]}), "invalid `#/items`: [1]"),
        ] {
            let error = error(schema);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn types_of_properties_are_known_before_a_value_is() {
        let schema = Schema::new(json!({
            "properties": {
                "a": {"type": "string"},
                "b": {"type": ["integer", "null"]},
                "c": {"enum": [1, "x"]},
                "d": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/t"}]},
                "e": {},
            },
            "$defs": {"t": {"type": "boolean"}},
        }))
        .unwrap();
        for (property, kind, expected) in [
            ("a", "string", Some(true)),
            ("a", "null", Some(false)),
            ("b", "integer", Some(true)),
            ("b", "string", Some(false)),
            ("c", "string", Some(true)),
            ("c", "boolean", Some(false)),
            ("d", "integer", Some(true)),
            ("d", "boolean", Some(true)),
            ("d", "string", Some(false)),
            ("e", "string", None),
            ("f", "string", None),
        ] {
            assert_eq!(schema.allows(property, kind), expected, "{property} {kind}");
        }
    }

    /// Any JSON value, such as a schema or arguments.
    fn value() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            Just("type"),
            Just("properties"),
            Just("items"),
            Just("anyOf"),
            Just("enum"),
            Just("required"),
            Just("$ref"),
            Just("minimum"),
            Just("additionalProperties"),
            Just("a"),
            Just("b"),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            prop_oneof![Just("string"), Just("object"), Just("#"), Just("a")].prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone().prop_map(String::from), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_schema_is_refused_or_answers(schema in value(), argument in value()) {
            if let Ok(schema) = Schema::new(schema) {
                let _ = schema.check(&argument);
                let _ = schema.allows("a", "string");
            }
        }
    }
}
