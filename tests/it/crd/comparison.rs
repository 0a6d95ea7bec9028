//! Breaking changes between two CRDs: objects that would be rejected, fields that are removed, values
//! whose meaning changes. Wider limits, additions and other descriptions pass.

use super::{list, properties, text};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keywords without effect on which objects are valid and what they mean.
const WORDING: [&str; 3] = ["description", "title", "example"];
const LOWER_LIMITS: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
const UPPER_LIMITS: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];

/// Each breaking change from `old` to `new`, as a line that names the place.
pub fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let (old, new) = (&old["spec"], &new["spec"]);
    for key in ["group", "scope"] {
        found.extend(changed(key, &old[key], &new[key]));
    }
    for key in ["kind", "listKind", "plural", "singular"] {
        found.extend(changed(key, &old["names"][key], &new["names"][key]));
    }
    for key in ["shortNames", "categories"] {
        let kept = list(&new["names"][key]);
        let gone = list(&old["names"][key])
            .iter()
            .filter(|name| !kept.contains(name));
        found.extend(gone.map(|name| format!("{key}: {name} is gone")));
    }
    for version in list(&old["versions"])
        .iter()
        .filter(|version| is_served(version))
    {
        let name = text(&version["name"]);
        let same = |other: &&Value| other["name"] == version["name"] && is_served(other);
        match list(&new["versions"]).iter().find(same) {
            None => found.push(format!("{name} is gone")),
            Some(successor) => {
                let breaks = breaks_of_version(version, successor);
                found.extend(breaks.into_iter().map(|line| format!("{name} {line}")));
            }
        }
    }
    found
}

fn is_served(version: &Value) -> bool {
    version["served"] == true
}

fn breaks_of_version(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (name, subresource) in old["subresources"].as_object().into_iter().flatten() {
        let successor = &new["subresources"][name];
        found.extend(changed(
            &format!("subresource {name}"),
            subresource,
            successor,
        ));
    }
    for field in list(&old["selectableFields"]) {
        if !list(&new["selectableFields"]).contains(field) {
            found.push(format!(
                "selectable field {} is gone",
                text(&field["jsonPath"])
            ));
        }
    }
    for column in list(&old["additionalPrinterColumns"]) {
        let priority = |column: &Value| column["priority"].as_i64().unwrap_or_default();
        let kept = list(&new["additionalPrinterColumns"]).iter().any(|other| {
            ["name", "jsonPath", "type"]
                .iter()
                .all(|key| other[key] == column[key])
                && priority(other) <= priority(column)
        });
        if !kept {
            found.push(format!("column {} is gone", text(&column["name"])));
        }
    }
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    breaks_of_schema("", &schema(old), &schema(new), &mut found);
    found
}

fn breaks_of_schema(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let (Value::Object(was), Value::Object(is)) = (old, new) else {
        found.extend(changed(path, old, new));
        return;
    };
    let keywords: BTreeSet<_> = was.keys().chain(is.keys()).collect();
    for keyword in keywords {
        let keyword = keyword.as_str();
        if WORDING.contains(&keyword) {
            continue;
        }
        let here = match path {
            "" => keyword.to_owned(),
            path => format!("{path} {keyword}"),
        };
        match keyword {
            "properties" => {
                for (name, property) in properties(old) {
                    let below = format!("{path}.{name}");
                    match new["properties"].get(name) {
                        None => found.push(format!("{below} is gone")),
                        Some(successor) => breaks_of_schema(&below, property, successor, found),
                    }
                }
            }
            "items" => breaks_of_schema(&format!("{path}[]"), &old[keyword], &new[keyword], found),
            "required" => {
                let more = list(&new[keyword]).iter();
                let more = more.filter(|name| !list(&old[keyword]).contains(name));
                found.extend(more.map(|name| format!("{path}.{} is required now", text(name))));
            }
            "x-kubernetes-validations" => {
                let rules = |schema: &Value| rules_without_wording(&schema[keyword]);
                found.extend(changed(&here, &rules(old), &rules(new)));
            }
            _ => found.extend(narrowed(keyword, &here, was, is)),
        }
    }
}

/// A limit, a choice or anything else that lets through less than it did. Of what is not known to be
/// a limit, every change counts.
fn narrowed(
    keyword: &str,
    place: &str,
    was: &Map<String, Value>,
    is: &Map<String, Value>,
) -> Option<String> {
    let (was, is) = (was.get(keyword), is.get(keyword));
    let limits = was.map(Value::as_f64).zip(is.map(Value::as_f64));
    let narrower = match (keyword, was, is) {
        // Without it everything is let through.
        (_, Some(_), None) if is_restriction(keyword) => false,
        (_, None, Some(_)) if is_restriction(keyword) => true,
        ("enum", Some(was), Some(is)) => list(was).iter().any(|value| !list(is).contains(value)),
        _ if LOWER_LIMITS.contains(&keyword) => limits.is_some_and(|(was, is)| is > was),
        _ if UPPER_LIMITS.contains(&keyword) => limits.is_some_and(|(was, is)| is < was),
        // Which of two patterns lets through more is nothing to guess at.
        _ => was != is,
    };
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    narrower.then(|| format!("{place} was {}, is {}", shown(was), shown(is)))
}

fn is_restriction(keyword: &str) -> bool {
    ["enum", "pattern"].contains(&keyword)
        || LOWER_LIMITS.contains(&keyword)
        || UPPER_LIMITS.contains(&keyword)
}

/// A removed rule counts like an added one: users rely on what cannot change.
fn rules_without_wording(rules: &Value) -> Value {
    let mut rules = rules.clone();
    for rule in rules.as_array_mut().into_iter().flatten() {
        if let Some(rule) = rule.as_object_mut() {
            rule.remove("message");
            rule.remove("messageExpression");
        }
    }
    rules
}

fn changed(place: &str, old: &Value, new: &Value) -> Option<String> {
    (old != new).then(|| format!("{place} was {old}, is {new}"))
}
