//! What Podman's stored configurations hold, read without trust: a field of another type than it
//! should have counts as absent.

use serde_json::{Map, Value};

pub(super) type Object = Map<String, Value>;

/// A string; empty when there is none.
pub(super) fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn flag(object: &Object, key: &str) -> bool {
    object.get(key).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn number(object: &Object, key: &str) -> i64 {
    object.get(key).and_then(Value::as_i64).unwrap_or(0)
}

/// An array; empty when there is none.
pub(super) fn list<'a>(object: &'a Object, key: &str) -> &'a [Value] {
    let found = object.get(key).and_then(Value::as_array);
    found.map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn texts<'a>(object: &'a Object, key: &str) -> Vec<&'a str> {
    list(object, key).iter().filter_map(Value::as_str).collect()
}

pub(super) fn objects<'a>(object: &'a Object, key: &str) -> impl Iterator<Item = &'a Object> {
    list(object, key).iter().filter_map(Value::as_object)
}

/// A map; `None` when there is none, or an empty one.
pub(super) fn map<'a>(object: &'a Object, key: &str) -> Option<&'a Object> {
    object
        .get(key)
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty())
}

/// What lies below the first of `path`, below the second, and so on.
pub(super) fn below<'a>(object: &'a Object, path: &[&str]) -> Option<&'a Object> {
    let mut found = object;
    for key in path {
        found = found.get(*key)?.as_object()?;
    }
    Some(found)
}

/// Whether a value says nothing: null, false, 0, or empty.
pub(super) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}
