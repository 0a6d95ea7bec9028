//! The CRD: its quality, its compatibility with the last release, how a real API server applies it to
//! manifests, and its documentation.

mod baseline;
mod comparison;
mod explain;
mod mutations;
mod quality;
mod reference;
mod rejections;
mod server;
mod times;

use serde_json::Value;

/// Each schema in a CRD's first version with its path: `.spec.jobID`, `.status.conditions[]`; the root's
/// is empty.
fn schemas(crd: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    collect(
        String::new(),
        &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        &mut found,
    );
    found
}

fn collect<'c>(path: String, schema: &'c Value, into: &mut Vec<(String, &'c Value)>) {
    for (name, property) in properties(schema) {
        collect(format!("{path}.{name}"), property, into);
    }
    if let Some(items) = schema.get("items") {
        collect(format!("{path}[]"), items, into);
    }
    into.push((path, schema));
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Changes a CRD at a place: `.spec.jobID/maxLength` in the schema, `names/kind` elsewhere. JSON text
/// replaces the value (at the length of a list it is appended); an empty text removes it.
fn change(crd: &mut Value, place: &str, json: &str) {
    let place = match place.strip_prefix('.') {
        None => format!("/{place}"),
        Some(path) => {
            let (path, rest) = path.split_once('/').expect(place);
            let path = path.replace("[]", "/items").replace('.', "/properties/");
            format!("/versions/0/schema/openAPIV3Schema/properties/{path}/{rest}")
        }
    };
    let (parent, key) = place.rsplit_once('/').expect("a place");
    let parent = crd["spec"].pointer_mut(parent).expect(&place);
    let value = (!json.is_empty()).then(|| serde_json::from_str(json).expect(json));
    match (parent, value) {
        (Value::Object(map), Some(value)) => {
            map.insert(key.to_owned(), value);
        }
        (Value::Object(map), None) => {
            map.remove(key).expect(&place);
        }
        (Value::Array(list), value) => {
            let at: usize = key.parse().expect(&place);
            match value {
                Some(value) if at == list.len() => list.push(value),
                Some(value) => list[at] = value,
                None => {
                    list.remove(at);
                }
            }
        }
        (other, _) => panic!("{place}: {other}"),
    }
}
