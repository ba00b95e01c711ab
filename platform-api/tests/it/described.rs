//! The `OpenAPI` document: nothing is missing, nothing is invented, and bodies are as it says.

use std::collections::BTreeSet;

use platform_api::ROUTES;
use serde_json::Value;

use crate::world::{ADMIN, World, json_body};

pub(crate) fn document() -> Value {
    serde_json::from_str(platform_api::openapi_document()).unwrap()
}

#[test]
fn the_document_is_as_agreed() {
    insta::assert_snapshot!(platform_api::openapi_document());
}

#[test]
fn every_route_and_parameter_is_described() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            assert!(
                operation["summary"].is_string() && operation["responses"].as_object().unwrap().len() > 1
                    || path.ends_with("openapi.json"),
                "{path}"
            );
        }
    }
    let routes: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| format!("{} {}", route.method.as_str(), route.path))
        .collect();
    assert_eq!(described, routes);
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let mut names = BTreeSet::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let target = parameter["$ref"]
                .as_str()
                .map(|target| document.pointer(target.trim_start_matches('#')).unwrap());
            let parameter = target.unwrap_or(parameter);
            assert_eq!(
                parameter["required"],
                parameter["in"] == "path",
                "{}: {parameter}",
                route.path
            );
            names.insert(parameter["name"].as_str().unwrap());
        }
        for name in route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        {
            assert!(names.contains(name), "{}: {name}", route.path);
        }
        for param in route.params.iter().flat_map(|group| group.iter()) {
            assert!(names.contains(param.name), "{}: {}", route.path, param.name);
        }
        if route.filters == platform_api::Filters::All {
            let columns = domain::COLUMNS
                .iter()
                .map(|column| column.name)
                .chain(["id", "source", "event_type", "trace_id"]);
            assert!(columns.clone().all(|column| names.contains(column)), "{}", route.path);
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                }
                open.extend(map.values());
            }
            Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
}

/// Whether a body is as a schema says: every field described, every required one there, every kind right.
pub(crate) fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(target) = schema["$ref"].as_str() {
        return fits(document, document.pointer(target.trim_start_matches('#')).unwrap(), value, at);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let faults: Vec<_> = choices
            .iter()
            .filter_map(|choice| fits(document, choice, value, at).err())
            .collect();
        return if faults.len() < choices.len() {
            Ok(())
        } else {
            Err(faults.join("; "))
        };
    }
    let right = match schema["type"].as_str() {
        None => return Ok(()),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => return Err(format!("{at}: unknown type {other}")),
    };
    if !right {
        return Err(format!("{at}: {value} is no {}", schema["type"]));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(document, &schema["items"], item, &format!("{at}[{index}]"))?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        fields
            .get(name.as_str().unwrap())
            .ok_or_else(|| format!("{at}.{name} is missing"))?;
    }
    for (name, field) in fields {
        let described = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
        fits(
            document,
            described.ok_or_else(|| format!("{at}.{name} is not described"))?,
            field,
            &format!("{at}.{name}"),
        )?;
    }
    Ok(())
}

#[tokio::test]
async fn bodies_are_as_described() {
    let world = World::new();
    world.store.fill(6).await;
    let document = document();
    let of_control = |path: &str| {
        crate::matrix::ROWS
            .iter()
            .any(|(route, ..)| route.ends_with(&format!(" {path}")))
    };
    for route in ROUTES.iter().filter(|route| !of_control(route.path)) {
        let method = route.method.as_str();
        let uri = route
            .path
            .replace("/dlq/{id}", "/dlq/1")
            .replace("{id}", "k1")
            .replace("{component}", "gateway");
        let uri = if uri.ends_with("server-events") {
            format!("{uri}?namespace=acme&server=payments")
        } else {
            uri
        };
        let uri = if uri.ends_with("series") {
            format!("{uri}?metric=latency_p95&by=tool")
        } else {
            uri
        };
        let uri = if uri.ends_with("/events") || uri.ends_with("/dlq") {
            format!("{uri}?limit=2")
        } else {
            uri
        };
        let body = match (method, uri.as_str()) {
            (_, "/api/v1/query") => r#"{"sql":"select 1"}"#,
            (_, "/api/v1/runtime/actions/restart") => r#"{"component":"ingest"}"#,
            ("POST", "/api/v1/sentinel/keys") => r#"{"namespace":"acme","server":"a","expires_in":"1d"}"#,
            _ => "",
        };
        let operation = &document["paths"][route.path][method.to_lowercase()];
        let response = world.call(method, &uri, Some(ADMIN), body).await;
        let status = response.status();
        let schema = &operation["responses"][status.as_str()]["content"]["application/json"]["schema"];
        assert!(status.is_success(), "{method} {uri}: {status}");
        if !schema.is_object() || route.path.ends_with("openapi.json") {
            continue;
        }
        let answer = json_body(response).await;
        fits(&document, schema, &answer, &format!("{method} {}", route.path)).unwrap();
        if route.path.contains("/logs/") || method == "DELETE" || route.need == platform_api::Need::Admin {
            continue;
        }
        assert!(
            answer["as_of"].is_string() && answer["complete_through"].is_string(),
            "{uri} does not tell how current it is"
        );
    }
    let problem = json_body(world.call("GET", "/api/v1/events?limit=0", Some(ADMIN), "").await).await;
    fits(&document, &document["components"]["schemas"]["Problem"], &problem, "problem").unwrap();
}
