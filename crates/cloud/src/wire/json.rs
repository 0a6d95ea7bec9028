//! Lenient reading of JSON.

use serde_json::Value;

/// JSON with or without a byte order mark. `None` also for nesting beyond `serde_json`'s limit
/// (128 levels); of duplicate keys the last one counts.
pub(crate) fn parse(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    serde_json::from_slice(body).ok()
}

/// A trimmed, non-empty string.
pub(crate) fn string(value: &Value) -> Option<&str> {
    value
        .as_str()
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

/// A string, or the spelling of a number or boolean; of an error object its message.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Object(fields) => fields
            .get("message")
            .and_then(Value::as_str)
            .map(str::to_owned),
        Value::Null | Value::Array(_) => None,
    }
    .filter(|text| !text.trim().is_empty())
}

/// The items of a list; none where it is not a list.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}
