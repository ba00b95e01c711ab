//! The revision of a document: a hash over its content in a form that knows no order.
//!
//! Canonical form: JSON without blanks; keys sorted; lists sorted by the text of their items, each item once; whatever is
//! `null`, `false` or empty left out, as it means the same as absent; `revision` and `generated_at` of the document left out.
//! It is taken from the JSON itself, so that keys of later versions count too.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::document::{Auth, Document, Grant, SCHEMA_VERSION, Session, SessionSettings, Settings};
use crate::Timestamp;

impl Document {
    /// `sha256:` and hex over the content. Equal content has an equal revision, in whatever order it is listed.
    pub fn revision_of(&self) -> String {
        // A document is text, numbers and lists: it always has a JSON form.
        of_value(&serde_json::to_value(self).unwrap_or_default())
    }

    /// Puts the content in its one order and writes the revision into it. Equal content gives equal bytes.
    pub fn stamp(&mut self) {
        SCHEMA_VERSION.clone_into(&mut self.schema_version);
        for tool in &mut self.tools {
            in_order(&mut tool.required_scopes);
        }
        self.grants.iter_mut().for_each(order_grant);
        if let Some(auth) = &mut self.auth {
            in_order(&mut auth.required_scopes);
        }
        // A block that says nothing is none.
        self.auth.take_if(|auth| *auth == Auth::default());
        self.policy.take_if(|settings| *settings == Settings::default());
        self.session.take_if(|settings| *settings == SessionSettings::default());
        in_order(&mut self.tools);
        in_order(&mut self.grants);
        in_order(&mut self.sessions);
        self.revision = self.revision_of();
    }

    /// The text of the document's file: two blanks of indentation, as people read it.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Drops sessions and grants that ended, or were revoked, longer than `grace` ago. Presenting a session that is gone is refused
    /// all the same. Entries that do not tell when they ended stay.
    pub fn prune(&mut self, now: Timestamp, grace: std::time::Duration) {
        let is_past = |text: &str| Timestamp::parse(text.trim()).is_ok_and(|end| end.plus(grace) < now);
        let is_gone = |session: &Session| is_past(&session.expires_at) || (session.revoked && is_past(&session.revoked_at));
        self.sessions.retain(|session| !is_gone(session));
        self.grants.retain(|grant| !is_past(&grant.valid_until));
    }
}

fn order_grant(grant: &mut Grant) {
    in_order(&mut grant.allowed_side_effects);
    in_order(&mut grant.tool_rules);
    in_order(&mut grant.prompt_rules);
    in_order(&mut grant.resource_rules);
    for window in &mut grant.windows {
        in_order(&mut window.days);
    }
    in_order(&mut grant.windows);
}

fn in_order<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

/// The revision of a document's JSON.
pub(super) fn of_value(document: &Value) -> String {
    let mut text = String::new();
    if let Value::Object(fields) = document {
        let content = fields
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "revision" | "generated_at"));
        object(content, &mut text);
    }
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

/// Whether a value means the same as its absence.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            let mut texts: Vec<String> = items.iter().map(canonical).collect();
            in_order(&mut texts);
            text.push('[');
            for (at, item) in texts.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(item);
            }
            text.push(']');
        }
        Value::Object(fields) => object(fields.iter(), text),
        Value::String(own) => string(own, text),
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn canonical(value: &Value) -> String {
    let mut text = String::with_capacity(256);
    write(value, &mut text);
    text
}

/// A JSON string. Nearly none needs an escape.
fn string(own: &str, text: &mut String) {
    if own.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        text.push_str(&Value::from(own).to_string());
    } else {
        text.extend(["\"", own, "\""]);
    }
}

fn object<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>, text: &mut String) {
    let mut fields: Vec<_> = fields.filter(|(_, value)| !is_empty(value)).collect();
    fields.sort_unstable_by_key(|(key, _)| *key);
    text.push('{');
    for (at, (key, value)) in fields.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        string(key, text);
        text.push(':');
        write(value, text);
    }
    text.push('}');
}
