//! The API reference as Markdown. Field tables, columns and rules come from the CRD, the example from
//! `deploy/sample`; the few sentences between them are here.

use image_export_api::{POLL_REQUEST_ANNOTATION, POLL_REQUEST_MAX_BYTES};
use serde_json::Value;

const SAMPLE: &str = include_str!("../../deploy/sample/image-export-job.yaml");
const FIELDS: [&str; 5] = ["field", "type", "default", "bounds", "description"];

/// The whole page for a CRD of one version.
pub fn markdown(crd: &Value) -> String {
    let version = &crd["spec"]["versions"][0];
    let root = &version["schema"]["openAPIV3Schema"];
    let [spec, status] = ["spec", "status"].map(|part| &root["properties"][part]);
    let condition = &status["properties"]["conditions"]["items"];
    let sections = [
        "<!-- Made from the CRD: cargo run --example api-reference > docs/api.md -->".to_owned(),
        format!("# {}", text(&crd["spec"]["names"]["kind"])),
        text(&root["description"]).to_owned(),
        identity(crd),
        "## Example".to_owned(),
        format!("```yaml\n{}```", example()),
        format!("## Spec\n\n{}", text(&spec["description"])),
        table(&FIELDS, &fields("", spec)),
        "The API server rejects a change that breaks one of these rules, with the message:"
            .to_owned(),
        table(&["field", "rule", "message"], &rules("spec", spec)),
        format!("## Status\n\n{}", text(&status["description"])),
        table(&FIELDS, &fields("", status)),
        format!(
            "## Conditions\n\n{} [conditions.md](conditions.md) lists the types and the \
             meaning of each reason.",
            text(&condition["description"])
        ),
        table(&FIELDS, &fields("", condition)),
        format!(
            "## Annotation\n\nA new value of `{POLL_REQUEST_ANNOTATION}`, at most \
             {POLL_REQUEST_MAX_BYTES} bytes, has the job polled at once, unless it has ended (save in `ImageIDMissing`), is \
             suspended or awaits its image id (`ImageIDPending` keeps 10 s between polls). In any case `status.lastHandledPollRequest` echoes the value once the operator \
             has handled it. A longer one is ignored, and a Warning Event reports that."
        ),
        "## Columns\n\nWhat `kubectl get iej` shows, and with `-o wide`:".to_owned(),
        table(&["column", "shown", "value", "meaning"], &columns(version)),
    ];
    sections.join("\n\n") + "\n"
}

/// Names, group and scope of the resource.
fn identity(crd: &Value) -> String {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let version = &spec["versions"][0];
    let paths = list(&version["selectableFields"]).iter();
    let paths: Vec<_> = paths
        .map(|field| code(text(&field["jsonPath"]).trim_start_matches('.')))
        .collect();
    let names_in = |value: &Value| {
        let names: Vec<_> = list(value).iter().map(|name| code(text(name))).collect();
        names.join(", ")
    };
    let api_version = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
    let rows = [
        ("apiVersion", code(&api_version)),
        ("kind", code(text(&names["kind"]))),
        ("scope", text(&spec["scope"]).to_lowercase()),
        ("plural", code(text(&names["plural"]))),
        ("short name", names_in(&names["shortNames"])),
        ("category", names_in(&names["categories"])),
        ("field selectors", paths.join(", ")),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    table(&["", ""], &rows)
}

/// The sample without the comment at its head, which is about applying it.
fn example() -> &'static str {
    SAMPLE
        .find("apiVersion")
        .map_or(SAMPLE, |start| &SAMPLE[start..])
}

/// A row for each field of an object, required ones first; those of an object in it follow it. A
/// list's items have a table of their own.
fn fields(prefix: &str, object: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let is_required = |name: &str| list(&object["required"]).contains(&name.into());
    let mut properties: Vec<_> = properties(object).collect();
    properties.sort_by_key(|(name, _)| !is_required(name));
    for (name, schema) in properties {
        let path = format!("{prefix}{name}");
        let default = match schema.get("default") {
            _ if is_required(name) => "required".to_owned(),
            Some(default) => code(&default.to_string()),
            None => "–".to_owned(),
        };
        rows.push(vec![
            code(&path),
            type_of(schema).to_owned(),
            default,
            bounds(schema),
            text(&schema["description"]).to_owned(),
        ]);
        rows.extend(fields(&format!("{path}."), schema));
    }
    rows
}

fn type_of(schema: &Value) -> &str {
    match (text(&schema["type"]), text(&schema["format"])) {
        (_, "date-time") => "time",
        ("array", _) => "list",
        (other, _) => other,
    }
}

/// The values that a field accepts.
fn bounds(schema: &Value) -> String {
    let limits = |least: &str, most: &str, unit: &str| match (schema.get(least), schema.get(most)) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    };
    let pattern = schema.get("pattern").map(|pattern| code(text(pattern)));
    let parts: Vec<_> = match (text(&schema["type"]), text(&schema["format"])) {
        (_, "date-time") => ["RFC 3339".to_owned()].into_iter().chain(pattern).collect(),
        ("integer", _) => limits("minimum", "maximum", "").into_iter().collect(),
        ("array", _) => limits("minItems", "maxItems", " items")
            .into_iter()
            .collect(),
        _ => {
            let length = limits("minLength", "maxLength", " characters");
            let values = list(&schema["enum"]).iter().map(|value| code(text(value)));
            let values =
                Some(values.collect::<Vec<_>>().join(", ")).filter(|values| !values.is_empty());
            [length, pattern, values].into_iter().flatten().collect()
        }
    };
    if parts.is_empty() {
        "–".to_owned()
    } else {
        parts.join(", ")
    }
}

/// A row for each validation rule in an object.
fn rules(path: &str, schema: &Value) -> Vec<Vec<String>> {
    let own = list(&schema["x-kubernetes-validations"])
        .iter()
        .map(|rule| {
            vec![
                code(path),
                code(text(&rule["rule"])),
                text(&rule["message"]).to_owned(),
            ]
        });
    let below =
        properties(schema).flat_map(|(name, schema)| rules(&format!("{path}.{name}"), schema));
    own.chain(below).collect()
}

fn columns(version: &Value) -> Vec<Vec<String>> {
    let columns = list(&version["additionalPrinterColumns"]).iter();
    columns
        .map(|column| {
            let wide = column["priority"]
                .as_i64()
                .is_some_and(|priority| priority > 0);
            vec![
                text(&column["name"]).to_uppercase(),
                if wide { "wide" } else { "always" }.to_owned(),
                code(text(&column["jsonPath"]).trim_start_matches('.')),
                format!("{}.", text(&column["description"])),
            ]
        })
        .collect()
}

/// A Markdown table.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', r"\|")).collect();
        format!("| {} |", cells.join(" | "))
    };
    let head: Vec<_> = head.iter().map(|&name| name.to_owned()).collect();
    let rule = format!("|{}", "---|".repeat(head.len()));
    let mut lines = vec![line(&head), rule];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

fn properties(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object["properties"].as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn code(text: &str) -> String {
    format!("`{text}`")
}
