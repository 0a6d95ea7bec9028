//! Quality of the CRD: every value is bounded and described, no observed value is rejected, columns and
//! selectable fields exist. `baseline` compares names, versions, columns and defaults. Needs no server.

use super::{change, list, properties, schemas, text};
use image_export_api::crd;
use serde_json::{Value, json};

/// The defects of a CRD.
fn defects(crd: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (path, schema) in schemas(crd) {
        let mut defects = unbounded(&path, schema);
        defects.extend(badly_described(schema));
        for unwanted in ["nullable", "x-kubernetes-preserve-unknown-fields"] {
            if schema.get(unwanted).is_some() {
                defects.push(unwanted.to_owned());
            }
        }
        if is_observed(&path) {
            defects.extend(restricted(schema));
        }
        found.extend(defects.iter().map(|defect| format!("{path}: {defect}")));
    }
    found.extend(without_field(crd));
    found
}

/// Strings, lists and numbers without limits. An unlimited one makes CEL rules costly and lets one
/// object fill the store.
fn unbounded(path: &str, schema: &Value) -> Vec<String> {
    // A generation counts the changes of a spec: metav1.Condition sets no maximum either.
    let is_generation = path.ends_with(".observedGeneration");
    let limits: &[&str] = match text(&schema["type"]) {
        "string" if schema.get("enum").is_some() => &[],
        "string" => &["maxLength"],
        "array" => &["maxItems"],
        "integer" if is_generation => &["minimum"],
        "integer" => &["minimum", "maximum"],
        "boolean" => &[],
        "object" if schema["properties"].is_object() => &[],
        other => return vec![format!("a {other:?} without a rule for its bounds")],
    };
    let missing = limits.iter().filter(|limit| schema.get(limit).is_none());
    missing.map(|limit| format!("no {limit}")).collect()
}

/// `kubectl explain` shows descriptions as plain text, one after the other.
fn badly_described(schema: &Value) -> Vec<String> {
    let description = text(&schema["description"]);
    let mut defects = Vec::new();
    if !description.ends_with('.') || description.len() < 10 {
        defects.push("the description is not a sentence".to_owned());
    }
    for unwanted in ['`', '\n', '\t'] {
        if description.contains(unwanted) {
            defects.push(format!("{unwanted:?} in the description"));
        }
    }
    if description.contains("  ") || description.trim() != description {
        defects.push("stray blanks in the description".to_owned());
    }
    defects
}

/// What the cloud reports is written as it is: a status that the schema rejects could never be written
/// again. Conditions are written by the operator alone, and so is the form of times, of which [`times`]
/// shows that each that is read can be written.
///
/// [`times`]: super::times
fn is_observed(path: &str) -> bool {
    path.starts_with(".status") && !path.starts_with(".status.conditions[]")
}

fn restricted(schema: &Value) -> Vec<String> {
    let choices = ["enum", "pattern", "required", "minLength", "minItems"];
    let rules = ["x-kubernetes-validations", "allOf", "anyOf", "oneOf", "not"];
    let is_time = schema["format"] == "date-time";
    let found = choices
        .iter()
        .chain(&rules)
        .filter(|choice| schema.get(choice).is_some() && !(is_time && **choice == "pattern"));
    found
        .map(|choice| format!("{choice} on an observed value"))
        .collect()
}

/// Columns and selectable fields that name no field; the API server accepts any.
fn without_field(crd: &Value) -> Vec<String> {
    let version = &crd["spec"]["versions"][0];
    let mut found = Vec::new();
    for column in list(&version["additionalPrinterColumns"]) {
        let path = text(&column["jsonPath"]);
        let types: &[&str] = match text(&column["type"]) {
            "date" => &["date-time"],
            "string" => &["string", "date-time"],
            "integer" => &["integer"],
            _ => &[],
        };
        if !field_type(crd, path).is_some_and(|of| types.contains(&of)) {
            found.push(format!("column {}: not of {path}", text(&column["name"])));
        }
        if text(&column["description"]).is_empty() {
            found.push(format!("column {}: no description", text(&column["name"])));
        }
    }
    for field in list(&version["selectableFields"]) {
        let path = text(&field["jsonPath"]);
        let of = field_type(crd, path);
        if path.contains('[')
            || !of.is_some_and(|of| ["string", "integer", "boolean"].contains(&of))
        {
            found.push(format!("selectable field {path}: none to select by"));
        }
    }
    found
}

/// The type of the field at a JSON path, or its format where that is more specific.
fn field_type<'c>(crd: &'c Value, path: &str) -> Option<&'c str> {
    if path == ".metadata.creationTimestamp" {
        return Some("date-time");
    }
    let mut schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    // Full stops inside of a filter's quotes do not occur.
    for step in path.strip_prefix('.')?.replace("?(@.", "?(@").split('.') {
        let (name, filter) = match step.split_once("[?(@") {
            None => (step, None),
            Some((name, filter)) => (name, Some(filter)),
        };
        schema = schema["properties"].get(name)?;
        if let Some(filter) = filter {
            let (key, value) = filter.strip_suffix("\")]")?.split_once("==\"")?;
            schema = schema.get("items")?;
            let key = schema["properties"].get(key)?;
            let known = key
                .get("enum")
                .is_none_or(|values| list(values).contains(&value.into()));
            schema = Some(schema).filter(|_| known && !value.is_empty())?;
        }
    }
    let format = schema.get("format").and_then(Value::as_str);
    format
        .filter(|format| *format == "date-time")
        .or(schema["type"].as_str())
}

#[test]
fn the_crd_has_no_defects() {
    assert_eq!(defects(&crd::json()), [""; 0]);
}

#[test]
fn each_defect_is_found() {
    for (place, json, defect) in [
        (".spec.jobID/maxLength", "", "no maxLength"),
        (".status.startTime/maxLength", "", "no maxLength"),
        (".status.conditions/maxItems", "", "no maxItems"),
        (".spec.deadlineSeconds/maximum", "", "no maximum"),
        (".status.observedGeneration/minimum", "", "no minimum"),
        (
            ".spec.suspend/type",
            r#""number""#,
            r#"a "number" without a rule for its bounds"#,
        ),
        (
            ".status.conditions[].type/description",
            "",
            "the description is not a sentence",
        ),
        (
            ".spec.suspend/description",
            r#""Whether polling pauses""#,
            "the description is not a sentence",
        ),
        (
            ".spec.suspend/description",
            r#""Whether `polling pauses.""#,
            "'`' in the description",
        ),
        (
            ".spec.suspend/description",
            r#""Whether polling\npauses.""#,
            r"'\n' in the description",
        ),
        (
            ".status.imageID/description",
            r#""The image's  id.""#,
            "stray blanks in the description",
        ),
        (".status.imageID/nullable", "true", "nullable"),
        (
            ".status.status/enum",
            r#"["RUNNING"]"#,
            "enum on an observed value",
        ),
        (
            ".status.errorCode/pattern",
            r#""^IMG""#,
            "pattern on an observed value",
        ),
        (
            ".status/required",
            r#"["conditions"]"#,
            "required on an observed value",
        ),
    ] {
        let mut crd = crd::json();
        change(&mut crd, place, json);
        let field = place.split('/').next().unwrap_or_default();
        assert_eq!(defects(&crd), [format!("{field}: {defect}")], "{place}");
    }
}

#[test]
fn each_column_and_selectable_field_that_names_no_field_is_found() {
    for (place, json, defect) in [
        (
            "additionalPrinterColumns/0/jsonPath",
            ".status.state",
            "column Status: not of .status.state",
        ),
        (
            "additionalPrinterColumns/1/jsonPath",
            ".status.conditions[?(@.kind==\"Ready\")].status",
            "column Ready: not of .status.conditions[?(@.kind==\"Ready\")].status",
        ),
        (
            "additionalPrinterColumns/3/type",
            "integer",
            "column Image: not of .status.imageID",
        ),
        (
            "additionalPrinterColumns/4/description",
            "",
            "column Age: no description",
        ),
        (
            "selectableFields/0/jsonPath",
            ".spec.jobId",
            "selectable field .spec.jobId: none to select by",
        ),
        (
            "selectableFields/1/jsonPath",
            ".status.conditions",
            "selectable field .status.conditions: none to select by",
        ),
    ] {
        let mut crd = crd::json();
        let json = json!(json).to_string();
        change(&mut crd, &format!("versions/0/{place}"), &json);
        assert_eq!(defects(&crd), [defect]);
    }
}

#[test]
fn ids_consist_of_characters_that_cannot_change_the_path_of_a_url() {
    let crd = crd::json();
    let ids: Vec<_> = schemas(&crd)
        .into_iter()
        .filter(|(path, _)| path.starts_with(".spec") && path.ends_with("ID"))
        .collect();
    let paths: Vec<_> = ids.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, [".spec.jobID", ".spec.projectID"]);
    for (path, schema) in ids {
        assert_eq!(schema["pattern"], "^[A-Za-z0-9_-]+$", "{path}");
        assert_eq!(
            (&schema["minLength"], &schema["maxLength"]),
            (&json!(1), &json!(64)),
            "{path}"
        );
    }
}

#[test]
fn the_ids_of_the_job_are_required_and_immutable() {
    let crd = crd::json();
    let mut rules = Vec::new();
    for (path, schema) in schemas(&crd) {
        for rule in list(&schema["x-kubernetes-validations"]) {
            rules.push(format!(
                "{path}: {}: {}",
                text(&rule["rule"]),
                text(&rule["message"])
            ));
        }
    }
    // A rule over the old value does not apply to a field that is removed and added again: both are
    // required.
    assert_eq!(
        rules,
        [
            ".spec.jobID: self == oldSelf: jobID is immutable: create an ImageExportJob of another name",
            ".spec.projectID: self == oldSelf: projectID is immutable: create an ImageExportJob of another name",
        ]
    );
    let required: Vec<_> = schemas(&crd)
        .into_iter()
        .filter(|(path, _)| !path.starts_with(".status"))
        .filter_map(|(path, schema)| Some((path, schema.get("required")?.clone())))
        .collect();
    assert_eq!(
        required,
        [
            (
                ".spec.cloudCredentialsRef".to_owned(),
                json!(["cloudName", "secretName"])
            ),
            (
                ".spec".to_owned(),
                json!(["cloudCredentialsRef", "jobID", "projectID"])
            ),
            (String::new(), json!(["spec"])),
        ]
    );
}

/// `metav1.Condition` of k8s.io/apimachinery, but for the limit of the time's length, which is the operator's.
#[test]
fn conditions_are_bound_as_metav1_conditions_are() {
    let crd = crd::json();
    let schemas = schemas(&crd);
    let at = |wanted: &str| {
        schemas
            .iter()
            .find(|(path, _)| path == wanted)
            .expect(wanted)
            .1
    };
    let conditions = at(".status.conditions");
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
    let item = at(".status.conditions[]");
    let mut fields: Value = item["properties"].clone();
    for (name, _) in properties(item) {
        fields[name]
            .as_object_mut()
            .expect("a schema")
            .remove("description");
    }
    assert_eq!(
        fields,
        json!({
            "type": {
                "type": "string", "maxLength": 316,
                "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            },
            "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
            "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
            "lastTransitionTime": { "type": "string", "format": "date-time", "maxLength": 64 },
            "reason": {
                "type": "string", "minLength": 1, "maxLength": 1024,
                "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            },
            "message": { "type": "string", "maxLength": 32768 },
        })
    );
    assert_eq!(
        item["required"],
        json!(["lastTransitionTime", "message", "reason", "status", "type"])
    );
}
