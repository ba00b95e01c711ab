//! `Mcp-*` headers of the newer era: what of a request's body they repeat.
//!
//! A tool may ask in its schema (`x-mcp-header`) that an argument be repeated in a header of its own. The schemas are learnt from the
//! lists of tools that pass.

use std::collections::HashMap;

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::message::Message;

const TOOLS_MAX: usize = 4_096;
const HEADERS_OF_A_TOOL_MAX: usize = 32;
const DEPTH_MAX: usize = 8;

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Which arguments of which tools go into headers.
#[derive(Debug, Default)]
pub(crate) struct Schemas(HashMap<String, Vec<Mirrored>>);

#[derive(Debug, PartialEq, Eq)]
struct Mirrored {
    header: HeaderName,
    path: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    tools: Vec<Tool>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    #[serde(rename = "inputSchema", default)]
    schema: Value,
}

impl Schemas {
    /// Learns from the result of `tools/list`. What has another shape is not ours to judge.
    pub(crate) fn learn(&mut self, result: &str) {
        let Ok(list) = serde_json::from_str::<List>(result) else {
            return;
        };
        for tool in list.tools {
            let mut found = Vec::new();
            walk(&tool.schema, &mut Vec::new(), &mut found);
            if found.is_empty() {
                self.0.remove(&tool.name);
            } else if self.0.len() < TOOLS_MAX {
                self.0.insert(tool.name, found);
            }
        }
    }

    /// The headers of a request in the newer era.
    pub(crate) fn headers(&self, message: &Message, headers: &mut HeaderMap) {
        let Some(version) = &message.params.version else { return };
        put(headers, VERSION, version);
        if let Some(method) = &message.method {
            put(headers, METHOD, method);
        }
        if let Some(name) = message.header_name() {
            put(headers, NAME, name);
        }
        if !message.is_method("tools/call") {
            return;
        }
        let mirrored = message.params.name.as_ref().and_then(|name| self.0.get(name));
        let arguments = message.params.arguments.as_ref();
        let (Some(mirrored), Some(arguments)) = (mirrored, arguments) else {
            return;
        };
        let Ok(arguments) = serde_json::from_str::<Value>(arguments.get()) else {
            return;
        };
        for Mirrored { header, path } in mirrored {
            let value = path.iter().try_fold(&arguments, |value, key| value.get(key));
            match value {
                Some(Value::String(text)) => put(headers, header.clone(), text),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => put(headers, header.clone(), &value.to_string()),
                _ => {}
            }
        }
    }
}

fn walk(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    if path.len() >= DEPTH_MAX {
        return;
    }
    for (key, property) in properties {
        path.push(key.clone());
        let name = property.get("x-mcp-header").and_then(Value::as_str);
        if let Some(header) = name.and_then(|name| HeaderName::try_from(format!("mcp-param-{name}")).ok())
            && found.len() < HEADERS_OF_A_TOOL_MAX
        {
            found.push(Mirrored {
                header,
                path: path.clone(),
            });
        }
        walk(property, path, found);
        path.pop();
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::try_from(encoded(text)) {
        headers.insert(name, value);
    }
}

/// Text as the protocol puts it into a header: as it is where that is safe, else in its own base64 form.
fn encoded(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text;
    let is_marked = text.starts_with("=?base64?") && text.ends_with("?=");
    if is_plain && !is_marked {
        return text.to_owned();
    }
    format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn values_that_are_no_header_text_travel_in_base64() {
        assert_eq!(encoded("list_invoices"), "list_invoices");
        assert_eq!(encoded("grüße"), "=?base64?Z3LDvMOfZQ==?=");
        assert_eq!(encoded(" a"), "=?base64?IGE=?=");
        assert_eq!(encoded("=?base64?YQ==?="), "=?base64?PT9iYXNlNjQ/WVE9PT89?=");
    }

    #[test]
    fn marked_arguments_are_repeated_in_headers() {
        let mut schemas = Schemas::default();
        schemas.learn(
            r#"{"tools":[{"name":"q","inputSchema":{"properties":{"region":{"type":"string","x-mcp-header":"Region"},
                "deep":{"properties":{"n":{"type":"integer","x-mcp-header":"N"}}},"gone":{"x-mcp-header":"Gone"}}}}]}"#,
        );
        let call = Message::parse(Bytes::from_static(
            r#"{"id":1,"method":"tools/call","params":{"name":"q","arguments":{"region":"zürich","deep":{"n":7},"gone":null},
                "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#
                .as_bytes(),
        ))
        .unwrap();
        let mut headers = HeaderMap::new();
        schemas.headers(&call, &mut headers);
        let told = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(told("mcp-protocol-version").as_deref(), Some("2026-07-28"));
        assert_eq!(told("mcp-method").as_deref(), Some("tools/call"));
        assert_eq!(told("mcp-name").as_deref(), Some("q"));
        assert_eq!(told("mcp-param-region").as_deref(), Some("=?base64?esO8cmljaA==?="));
        assert_eq!(told("mcp-param-n").as_deref(), Some("7"));
        assert_eq!(told("mcp-param-gone"), None);
    }
}
