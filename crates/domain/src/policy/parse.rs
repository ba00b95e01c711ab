//! Reading a document: what is wrong with one entry stays with that entry.
//!
//! The whole document is refused when it cannot be trusted as a whole: not JSON, of another schema, not matching its own revision,
//! or with settings that cannot be read (a setting ignored might be a restriction ignored). An entry that cannot be read is left out
//! and reported; of a grant what it clearly denies stays, so that a slip of the pen never allows more than was meant.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::condition::Condition;
use super::document::{Document, Grant, SCHEMA_VERSION, Session, Tool};
use super::revision;
use super::session::parse_hash;
use super::span::{Validity, parse_duration};
use super::words::{AuthMode, Trust};
use crate::{Decision, Timestamp};

/// Why a document cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// There is nothing in it.
    #[error("the policy document is empty")]
    Empty,
    /// It is not JSON, or no object.
    #[error("reading the policy document as JSON: {0}")]
    NotJson(String),
    /// Its schema is of another version.
    #[error("the policy document has schema version {0:?}, expected {SCHEMA_VERSION:?}")]
    Schema(String),
    /// Its content is not what its revision was made from.
    #[error(
        "the policy document was changed after it was stamped: it says revision {claimed}, its content has {actual}; render it anew"
    )]
    Revision {
        /// What it says.
        claimed: String,
        /// What its content has.
        actual: String,
    },
    /// A setting cannot be read.
    #[error("reading the policy document: {0}")]
    Setting(String),
}

/// An entry that cannot be used as it is. Everything else is not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Fault {
    /// Where: `grants[3] acme/alice`.
    pub place: String,
    /// What is wrong, and what became of the entry.
    pub message: String,
}

impl Document {
    /// Reads a document, with the faults of single entries beside it.
    pub fn parse(json: &[u8]) -> Result<(Self, Vec<Fault>), DocumentError> {
        if json.trim_ascii().is_empty() {
            return Err(DocumentError::Empty);
        }
        let mut value: Value = serde_json::from_slice(json).map_err(|error| DocumentError::NotJson(error.to_string()))?;
        let actual = revision::of_value(&value);
        strip(&mut value);
        let Value::Object(mut fields) = value else {
            return Err(DocumentError::NotJson("expected an object".to_owned()));
        };
        let text =
            |fields: &Map<String, Value>, key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let schema = text(&fields, "schema_version");
        if schema != SCHEMA_VERSION {
            return Err(DocumentError::Schema(schema));
        }
        let claimed = text(&fields, "revision");
        if !claimed.is_empty() && claimed != actual {
            return Err(DocumentError::Revision { claimed, actual });
        }
        fields.insert("revision".to_owned(), Value::String(actual));
        let mut faults = Vec::new();
        let lists = ["tools", "grants", "sessions"].map(|key| take_list(&mut fields, key));
        let [tools, grants, sessions] = lists;
        let (tools, grants, sessions) = (tools?, grants?, sessions?);
        let mut document: Self = typed(&Value::Object(fields)).map_err(DocumentError::Setting)?;
        check_settings(&document).map_err(DocumentError::Setting)?;
        let home = document.server.namespace.clone();
        document.tools = entries(&tools, "tools", read_tool, |tool: &Tool| tool.name.clone(), &mut faults);
        let full = |namespace: &str, name: &str| format!("{}/{name}", if namespace.is_empty() { &home } else { namespace });
        let name = |grant: &Grant| full(&grant.namespace, &grant.name);
        document.grants = entries(&grants, "grants", read_grant, name, &mut faults);
        let name = |session: &Session| full(&session.namespace, &session.name);
        document.sessions = entries(&sessions, "sessions", read_session, name, &mut faults);
        Ok((document, faults))
    }
}

fn take_list(fields: &mut Map<String, Value>, key: &str) -> Result<Vec<Value>, DocumentError> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(DocumentError::Setting(format!("{key}: expected a list"))),
    }
}

/// Reads a typed value.
fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    T::deserialize(value).map_err(|error| error.to_string())
}

/// Takes away what is empty, as that counts as absent.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !revision::is_empty(value));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn check_settings(document: &Document) -> Result<(), String> {
    if document.server.name.trim().is_empty() {
        return Err("server.name is missing".to_owned());
    }
    if let Some(auth) = &document.auth {
        let missing = match auth.mode {
            Some(AuthMode::OAuth) if auth.issuer_url.trim().is_empty() => "auth.mode oauth needs auth.issuer_url",
            Some(AuthMode::Mtls) if auth.trust_domain.trim().is_empty() => "auth.mode mtls needs auth.trust_domain",
            _ => "",
        };
        if !missing.is_empty() {
            return Err(missing.to_owned());
        }
    }
    if let Some(session) = &document.session {
        for (field, text) in [
            ("max_lifetime", &session.max_lifetime),
            ("idle_timeout", &session.idle_timeout),
        ] {
            if !text.is_empty() && parse_duration(text).is_none() {
                return Err(format!(
                    "session.{field}: expected a length of time such as 24h or 1h30m, got {text:?}"
                ));
            }
        }
    }
    Ok(())
}

/// What became of an entry.
enum Read<T> {
    Whole(T),
    /// A part of it, with what is wrong.
    Part(T, String),
    Nothing(String),
}

/// Reads each entry. Entries of one name with different content are all left out, but for what grants deny: which of them is meant
/// nobody knows, and the order of the list decides nothing.
fn entries<T: Clone + PartialEq + Lenient>(
    items: &[Value],
    list: &str,
    read: impl Fn(&Value) -> Read<T>,
    name_of: impl Fn(&T) -> String,
    faults: &mut Vec<Fault>,
) -> Vec<T> {
    let mut found: Vec<T> = Vec::with_capacity(items.len());
    let mut first: HashMap<String, usize> = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let mut report = |name: &str, message: String| {
            let place = if name.is_empty() {
                format!("{list}[{at}]")
            } else {
                format!("{list}[{at}] {name}")
            };
            faults.push(Fault { place, message });
        };
        let entry = match read(item) {
            Read::Whole(entry) => entry,
            Read::Part(entry, message) => {
                report(&name_of(&entry), message);
                entry
            }
            Read::Nothing(message) => {
                report(item.get("name").and_then(Value::as_str).unwrap_or_default(), message);
                continue;
            }
        };
        let name = name_of(&entry);
        let Some(before) = first.get(&name) else {
            first.insert(name, found.len());
            found.push(entry);
            continue;
        };
        if found[*before] != entry {
            report(
                &name,
                format!("another entry of {list} has this name and other content; neither counts until one is removed"),
            );
            found[*before].disable(&entry);
        }
    }
    found
}

/// Entries that can lose their effect.
trait Lenient {
    /// Takes away everything but refusals, and takes over those of the other.
    fn disable(&mut self, other: &Self);
}

impl Lenient for Tool {
    fn disable(&mut self, _other: &Self) {
        // An unlisted side effect refuses the call.
        self.side_effect = None;
        self.pin.clear();
    }
}

impl Lenient for Session {
    fn disable(&mut self, _other: &Self) {
        self.revoked = true;
    }
}

impl Lenient for Grant {
    fn disable(&mut self, other: &Self) {
        // For whom, when one says Alice and the other says Bob? For everybody: a refusal too many is the safe mistake.
        for (own, others) in [
            (&mut self.human_id, &other.human_id),
            (&mut self.agent_id, &other.agent_id),
            (&mut self.team_id, &other.team_id),
        ] {
            if own != others {
                own.clear();
            }
        }
        self.tool_rules.extend(other.tool_rules.iter().cloned());
        self.prompt_rules.extend(other.prompt_rules.iter().cloned());
        self.resource_rules.extend(other.resource_rules.iter().cloned());
        self.allowed_side_effects.clear();
        self.tool_rules.retain(|rule| rule.decision == Some(Decision::Deny));
        self.prompt_rules.retain(|rule| rule.decision == Some(Decision::Deny));
        self.resource_rules.retain(|rule| rule.decision == Some(Decision::Deny));
        for rule in self.tool_rules.iter_mut().chain(&mut self.prompt_rules) {
            rule.when.clear();
        }
        self.disabled &= other.disabled;
        self.valid_from.clear();
        self.valid_until.clear();
        self.windows.clear();
        self.rate = None;
    }
}

fn read_tool(item: &Value) -> Read<Tool> {
    match typed::<Tool>(item) {
        Ok(tool) if tool.name.trim().is_empty() => Read::Nothing("it has no name".to_owned()),
        Ok(tool) if tool.required_trust == Some(Trust::None) => {
            Read::Nothing("required_trust: expected low, medium or high".to_owned())
        }
        Ok(tool) => Read::Whole(tool),
        Err(error) => Read::Nothing(format!("{error}; the tool counts as not listed")),
    }
}

fn read_session(item: &Value) -> Read<Session> {
    let session: Session = match typed(item) {
        Ok(session) => session,
        Err(error) => return Read::Nothing(format!("{error}; the session does not exist until this is put right")),
    };
    if session.name.trim().is_empty() {
        return Read::Nothing("it has no name".to_owned());
    }
    if session.human_id.is_empty() && session.agent_id.is_empty() && session.team_id.is_empty() {
        return Read::Nothing("it names neither person, agent nor team".to_owned());
    }
    if !session.token_hash.is_empty() && parse_hash(&session.token_hash).is_none() {
        return Read::Nothing("token_hash: expected sha256: and 64 hex digits".to_owned());
    }
    if session.consented_trust == Some(Trust::None) {
        return Read::Nothing("consented_trust: expected low, medium or high".to_owned());
    }
    let unreadable = [("expires_at", &session.expires_at), ("issued_at", &session.issued_at)]
        .into_iter()
        .find_map(|(field, text)| {
            let wrong = !text.trim().is_empty() && Timestamp::parse(text.trim()).is_err();
            wrong.then(|| format!("{field}: expected an RFC 3339 time, got {text:?}; the session counts as expired"))
        });
    match unreadable {
        None => Read::Whole(session),
        Some(message) => {
            let expires_at = "unreadable".to_owned();
            Read::Part(Session { expires_at, ..session }, message)
        }
    }
}

fn read_grant(item: &Value) -> Read<Grant> {
    let problem = match typed::<Grant>(item) {
        Ok(grant) => match grant_problem(&grant) {
            None => return Read::Whole(grant),
            Some(problem) => problem,
        },
        Err(error) => error,
    };
    // A trust nobody knows is no trust; the rest of the grant is as clear as before.
    if let Value::Object(fields) = item
        && fields.contains_key("max_trust")
    {
        let mut fields = fields.clone();
        fields.insert("max_trust".to_owned(), Value::String(Trust::None.as_str().to_owned()));
        if let Ok(grant) = typed::<Grant>(&Value::Object(fields))
            && grant_problem(&grant).is_none()
        {
            return Read::Part(grant, format!("max_trust: {problem}; the grant gives no trust"));
        }
    }
    match salvage(item) {
        Some(grant) => Read::Part(
            grant,
            format!("{problem}; until this is put right, the grant allows nothing and denies what it denies"),
        ),
        None => Read::Nothing(problem),
    }
}

/// What a typed grant still has wrong.
fn grant_problem(grant: &Grant) -> Option<String> {
    if grant.name.trim().is_empty() {
        return Some("it has no name".to_owned());
    }
    let rules = || grant.tool_rules.iter().chain(&grant.prompt_rules);
    let names = rules()
        .map(|rule| &rule.name)
        .chain(grant.resource_rules.iter().map(|rule| &rule.uri));
    if names.into_iter().any(|name| name.trim().is_empty()) {
        return Some("a rule names nothing".to_owned());
    }
    let trusts = rules()
        .map(|rule| rule.required_trust)
        .chain(grant.resource_rules.iter().map(|rule| rule.required_trust));
    if trusts.into_iter().any(|trust| trust == Some(Trust::None)) {
        return Some("required_trust: expected low, medium or high".to_owned());
    }
    for rule in rules() {
        if let Err(fault) = Condition::parse(&rule.when)
            && !rule.when.is_empty()
        {
            return Some(format!("when of the rule for {:?}: {fault}", rule.name));
        }
    }
    if let Some(rate) = &grant.rate {
        if parse_duration(&rate.per).is_none() {
            return Some(format!("rate.per: expected a length of time such as 1m, got {:?}", rate.per));
        }
        if rate.calls == 0 {
            return Some("rate.calls: expected at least 1".to_owned());
        }
    }
    Validity::parse(&grant.valid_from, &grant.valid_until, &grant.windows).err()
}

/// What a grant denies, when nothing else of it can be read.
fn salvage(item: &Value) -> Option<Grant> {
    let fields = item.as_object()?;
    let mut kept = Map::new();
    for key in ["name", "namespace", "human_id", "agent_id", "team_id", "disabled"] {
        if let Some(value) = fields.get(key) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    let mut grant: Grant = typed(&Value::Object(kept)).ok()?;
    if grant.name.trim().is_empty() {
        return None;
    }
    let denies = |key: &str| -> Vec<Map<String, Value>> {
        let rules = fields.get(key).and_then(Value::as_array);
        let rules = rules.into_iter().flatten().filter_map(Value::as_object);
        let is_deny = |rule: &&Map<String, Value>| {
            let word = rule.get("decision").and_then(Value::as_str).unwrap_or_default();
            word.trim().eq_ignore_ascii_case("deny")
        };
        let only = |rule: &Map<String, Value>| {
            let keep = |key: &String| matches!(key.as_str(), "name" | "uri" | "decision");
            rule.iter()
                .filter(|(key, _)| keep(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        rules.filter(is_deny).map(only).collect()
    };
    grant.tool_rules = denies("tool_rules")
        .into_iter()
        .filter_map(|rule| typed(&Value::Object(rule)).ok())
        .collect();
    grant.prompt_rules = denies("prompt_rules")
        .into_iter()
        .filter_map(|rule| typed(&Value::Object(rule)).ok())
        .collect();
    grant.resource_rules = denies("resource_rules")
        .into_iter()
        .filter_map(|rule| typed(&Value::Object(rule)).ok())
        .collect();
    Some(grant)
}
