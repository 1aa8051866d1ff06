use super::*;
use proptest::prelude::*;
use serde_json::json;

fn check(schema: Value, value: Value) -> String {
    let schema = Schema::new(schema).unwrap();
    schema.check(&value).err().unwrap_or_default()
}

#[test]
fn errors_name_their_location() {
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
        (json!([]), "the value is [], expected the type object"),
        (json!({}), "`name` is missing"),
        (json!({"name": 5}), "`name` is 5, expected the type string"),
        (
            json!({"name": "A"}),
            "`name` is \"A\", expected at least 2 characters",
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
            "`tags` is [\"a\",\"b\",1], expected at most 2 items",
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
        "the value is 4, expected at most 3"
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
fn references_are_followed_and_cycles_end() {
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
    // Two alternatives at every step, each with two alternatives.
    let both = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}, false]});
    let reason = check(both.clone(), json!(1));
    assert_eq!(reason, "the schema has too many alternatives to be checked");
    let both = json!({"properties": {"a": both}});
    assert_eq!(Schema::new(both).unwrap().allows("a", "string"), None);
    // References beyond the schema are not followed.
    assert_eq!(check(json!({"$ref": "http://example.org/x"}), json!(1)), "");
}

#[test]
fn errors_of_invalid_schemas_name_their_location() {
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
fn allowed_types_of_properties_are_known() {
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
    fn any_schema_is_rejected_or_checks_values(schema in value(), argument in value()) {
        if let Ok(schema) = Schema::new(schema) {
            let _ = schema.check(&argument);
            let _ = schema.allows("a", "string");
        }
    }
}
