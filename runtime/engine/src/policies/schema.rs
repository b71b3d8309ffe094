//! Settings against the schema that a policy carries: the part of JSON Schema that settings need (`type`, `properties`,
//! `required`, `additionalProperties: false`, `items`, `enum`). A policy checks its settings itself, too; this tells a
//! person where and what was meant.

use serde_json::Value;

/// Everything that does not fit, with its place.
#[must_use]
pub fn check(settings: &Value, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(settings, schema, "", &mut found);
    found
}

fn walk(value: &Value, schema: &Value, place: &str, found: &mut Vec<String>) {
    let shown = if place.is_empty() { "settings" } else { place };
    if let Some(wanted) = schema.get("type").and_then(Value::as_str)
        && !is_of(value, wanted)
    {
        found.push(format!("{shown}: {value} is not of type {wanted}"));
        return;
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        let all: Vec<String> = choices.iter().map(Value::to_string).collect();
        found.push(format!("{shown}: {value} is not one of {}", all.join(", ")));
    }
    if let (Value::Array(items), Some(schema)) = (value, schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            walk(item, schema, &format!("{shown}[{index}]"), found);
        }
    }
    let Value::Object(fields) = value else { return };
    let none = serde_json::Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let join = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
    for (key, value) in fields {
        match properties.get(key) {
            Some(schema) => walk(value, schema, &join(key), found),
            None if closed => {
                let hint = super::nearest(key, properties.keys().map(String::as_str))
                    .map(|name| format!(", did you mean `{name}`?"))
                    .unwrap_or_else(|| {
                        let all: Vec<&str> = properties.keys().map(String::as_str).collect();
                        if all.is_empty() {
                            ": it has none".to_owned()
                        } else {
                            format!("; there are {}", all.join(", "))
                        }
                    });
                found.push(format!("{}: there is no such setting{hint}", join(key)));
            }
            None => {}
        }
    }
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(key) {
            found.push(format!("{}: is missing", join(key)));
        }
    }
}

fn is_of(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_key_is_named_with_the_right_one() {
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["registries"],
            "properties": {"registries": {"type": "array", "items": {"type": "string"}},
                           "mode": {"enum": ["warn", "deny"]}}});
        assert!(check(&json!({"registries": ["docker.io"], "mode": "deny"}), &schema).is_empty());
        assert_eq!(
            check(&json!({"registrys": [], "mode": "x"}), &schema),
            [
                "mode: \"x\" is not one of \"warn\", \"deny\"",
                "registrys: there is no such setting, did you mean `registries`?",
                "registries: is missing",
            ]
        );
        assert_eq!(check(&json!({"registries": [3]}), &schema), ["registries[0]: 3 is not of type string"]);
    }
}
