//! Walking the envelopes of an OTLP body in JSON.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Items;
use crate::answer::BodyFault;
use crate::body::Telemetry;
use crate::decode::split::raw_elements;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow, default, alias = "resourceLogs")]
    resource_spans: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "scopeLogs")]
    scope_spans: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scope<'a> {
    #[serde(borrow, default, alias = "logRecords")]
    spans: Option<&'a RawValue>,
}

pub(super) fn items(body: &[u8], telemetry: Telemetry, events_max: usize) -> Result<Items<'_>, BodyFault> {
    let mut items = Items::default();
    let request: Request<'_> = read(body, telemetry)?;
    for group in list(request.resource_spans, events_max)? {
        let group: Group<'_> = read(group, telemetry)?;
        let mut found = Vec::new();
        for scope in list(group.scope_spans, events_max)? {
            let scope: Scope<'_> = read(scope, telemetry)?;
            found.extend(list(scope.spans, events_max)?);
            if found.len() > events_max {
                return Err(BodyFault::TooManyEvents { events_max });
            }
        }
        let resource = group.resource.map_or(b"".as_slice(), |resource| resource.get().as_bytes());
        items.add(resource, found, events_max)?;
    }
    Ok(items)
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8], telemetry: Telemetry) -> Result<T, BodyFault> {
    serde_json::from_slice(text)
        .map_err(|error| BodyFault::Json(format!("the body is not OTLP of {} in JSON: {error}", telemetry.name())))
}

fn list(list: Option<&RawValue>, events_max: usize) -> Result<Vec<&[u8]>, BodyFault> {
    list.filter(|list| list.get() != "null")
        .map_or(Ok(Vec::new()), |list| raw_elements(list.get().as_bytes(), events_max))
}
