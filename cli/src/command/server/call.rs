//! `server call`: one tool call through the governed path, as an agent would make it.

use std::io::IsTerminal as _;
use std::time::Duration;

use adapter::stdio::Lines;
use adapter::{Config, Sessions, StdioConfig, Upstream};
use clap::Args;
use crds::word::TrustLevel;
use serde_json::{Map, Value, json};
use service_kit::tasks::{Running, RunningOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

use super::{PlaceArgs, find};
use crate::args::Output;
use crate::client::Client;
use crate::command::adapter::{Platform, Trust, Wish};
use crate::fault::{Exit, Fault};
use crate::render::{self, Done};
use crate::text::{self, safe};

const PIPE_BYTES: usize = 64 << 10;
/// Asked for in the older era.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Name of the server
    name: String,
    /// Name of the tool
    tool: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Argument as NAME=VALUE; a value that is JSON counts as such, anything else as text; again for more
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = pair)]
    pairs: Vec<(String, Value)>,
    /// All arguments as one JSON object
    #[arg(long, value_name = "JSON", conflicts_with = "pairs")]
    args: Option<String>,
    /// Agent to call as
    #[arg(long, value_name = "ID", default_value = "mcp-runtime")]
    agent: String,
    /// Most trust to consent to; grants may give less [default: low]
    #[arg(long, value_name = "LEVEL")]
    trust: Option<Trust>,
    /// Longest time to wait for the result
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = text::duration)]
    timeout: Duration,
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as status=open")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

impl CallArgs {
    fn arguments(&self) -> Result<Value, Fault> {
        let Some(text) = &self.args else {
            return Ok(Value::Object(self.pairs.iter().cloned().collect::<Map<_, _>>()));
        };
        match serde_json::from_str(text) {
            Ok(arguments @ Value::Object(_)) => Ok(arguments),
            Ok(_) => {
                Err(Fault::new(Exit::Usage, "--args is JSON, but no object").hint("such as --args '{\"status\":\"open\"}'"))
            }
            Err(error) => Err(Fault::new(Exit::Usage, "reading --args as JSON").caused_by(&error)),
        }
    }
}

pub(super) async fn run(client: Client, output: Output, args: &CallArgs) -> Result<Done, Fault> {
    let server = find(&client, &args.name, &args.place).await?;
    let wish = Wish {
        server: server.name,
        namespace: Some(server.namespace),
        agent: args.agent.clone(),
        trust: args.trust.map(TrustLevel::from),
        ttl: None,
    };
    let running = Running::new(&RunningOptions {
        shutdown_timeout: Duration::from_secs(2),
        ..RunningOptions::default()
    });
    let tasks = running.tasks();
    let sessions = Sessions::new(Platform::new(client, wish), false, &tasks);
    let upstream = Upstream::new(sessions, Config::default(), &tasks)
        .map_err(|error| Fault::new(Exit::Failed, error.to_string()).caused_by_source(&error))?;
    let (ours, near) = tokio::io::duplex(PIPE_BYTES);
    let (far, theirs) = tokio::io::duplex(PIPE_BYTES);
    let pipe = Lines {
        input: near,
        output: far,
    };
    let serving = adapter::stdio::serve(upstream, StdioConfig::default(), pipe, std::future::pending(), &tasks);
    let talk = Talk {
        input: ours,
        lines: BufReader::new(theirs).lines(),
        next: 0,
    };
    let calling = tokio::time::timeout(args.timeout, talk.call(&args.tool, args.arguments()?));
    // The talk closes its side when it is over, and the adapter says good-bye.
    let (ended, result) = futures::future::join(serving, calling).await;
    let report = running.stop().await;
    drop(report);
    ended.map_err(|error| Fault::new(Exit::Failed, error.to_string()).caused_by_source(&error))?;
    let result = result.map_err(|_| {
        Fault::new(
            Exit::NotReady,
            format!("{} gave no result within {} s", args.tool, args.timeout.as_secs()),
        )
        .hint("it may still be at work; wait longer with --timeout")
    })??;
    let is_error = result.get("isError") == Some(&Value::Bool(true));
    render::document(output, &result, told)?;
    Ok(if is_error { Done::ButNotWell } else { Done::Well })
}

/// A client of one call.
struct Talk {
    input: DuplexStream,
    lines: tokio::io::Lines<BufReader<DuplexStream>>,
    next: u64,
}

impl Talk {
    async fn call(mut self, tool: &str, arguments: Value) -> Result<Value, Fault> {
        let about = json!({ "name": "mcp-runtime", "version": env!("CARGO_PKG_VERSION") });
        let hello = json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": about });
        let mut params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "call" } });
        if self.ask("initialize", hello).await?.is_ok() {
            let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
            self.send(&ready).await?;
        } else {
            // A server of the newer era alone knows no handshake. Whatever else was refused is refused again, with its reason.
            params["_meta"] = json!({
                "progressToken": "call",
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": about,
            });
        }
        self.ask("tools/call", params).await?.map_err(|error| refused(tool, &error))
    }

    async fn send(&mut self, message: &Value) -> Result<(), Fault> {
        let sent = self.input.write_all(format!("{message}\n").as_bytes()).await;
        sent.map_err(|error| Fault::new(Exit::Failed, "talking to the server").caused_by(&error))
    }

    /// Asks and waits for the result or error, telling progress on the way.
    async fn ask(&mut self, method: &str, params: Value) -> Result<Result<Value, Value>, Fault> {
        let id = self.next;
        self.next += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await?;
        loop {
            let line = self.lines.next_line().await;
            let line = line.map_err(|error| Fault::new(Exit::Failed, "talking to the server").caused_by(&error))?;
            let Some(line) = line else {
                return Err(Fault::new(Exit::Failed, "the adapter stopped before the answer"));
            };
            let mut message: Value = serde_json::from_str(&line)
                .map_err(|error| Fault::new(Exit::Failed, "reading the server's answer").caused_by(&error))?;
            match (message.get("method").and_then(Value::as_str), message.get("id")) {
                (Some(_), Some(asked)) => {
                    let error = json!({ "code": -32601, "message": "a call from the command line answers no questions" });
                    let no = json!({ "jsonrpc": "2.0", "id": asked, "error": error });
                    self.send(&no).await?;
                }
                (Some("notifications/progress"), None) => progress(&message),
                (None, Some(answered)) if *answered == json!(id) => {
                    return Ok(match message.get_mut("result").map(Value::take) {
                        Some(result) => Ok(result),
                        None => Err(message["error"].take()),
                    });
                }
                _ => {}
            }
        }
    }
}

/// Progress is for people who watch.
fn progress(message: &Value) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let params = &message["params"];
    let total = params["total"]
        .as_f64()
        .map_or_else(String::new, |total| format!(" of {total}"));
    let said = params["message"]
        .as_str()
        .map_or_else(String::new, |text| format!(": {}", safe(text)));
    if let Some(done) = params["progress"].as_f64() {
        render::note(&format!("progress {done}{total}{said}"));
    }
}

/// The error of a call: refused by the policy, or failed on the way.
fn refused(tool: &str, error: &Value) -> Fault {
    let text = |value: &Value| value.as_str().map(safe);
    let message = text(&error["message"]).unwrap_or_else(|| "the server gives no reason".to_owned());
    let reason = text(&error["data"]["reason"]);
    let is_denied = !error["data"]["decision_id"].is_null() || matches!(error["code"].as_i64(), Some(401 | 403));
    let exit = if is_denied { Exit::NotAllowed } else { Exit::Failed };
    let why = reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let fault = Fault::new(exit, format!("{tool}: {message}{why}"));
    match text(&error["data"]["hint"]) {
        Some(hint) => fault.hint(hint),
        None if is_denied => fault.hint(format!("mcp-runtime server policy explain NAME --agent AGENT --tool {tool}")),
        None => fault,
    }
}

/// The texts of a result; what is no text is named.
fn told(result: &Value) -> String {
    let parts = result["content"].as_array().cloned().unwrap_or_default();
    let parts = parts.iter().map(|part| match (part["type"].as_str(), part["text"].as_str()) {
        // Line breaks of a text are the text's own.
        (_, Some(text)) => text.lines().map(safe).collect::<Vec<_>>().join("\n"),
        (kind, None) => format!("[{}: see -o json]", safe(kind.unwrap_or("unknown"))),
    });
    let text = parts.collect::<Vec<_>>().join("\n");
    if text.is_empty() {
        serde_json::to_string_pretty(result).unwrap_or_default()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_json_where_they_can_be() {
        assert_eq!(pair("limit=5").unwrap(), ("limit".to_owned(), json!(5)));
        assert_eq!(pair("id=INV-1").unwrap(), ("id".to_owned(), json!("INV-1")));
        assert_eq!(pair("q=a=b").unwrap(), ("q".to_owned(), json!("a=b")));
        assert_eq!(pair("id=\"7\"").unwrap(), ("id".to_owned(), json!("7")));
        assert!(pair("limit").is_err());
    }

    #[test]
    fn a_denial_is_told_with_its_reason_and_exit_code() {
        let error = json!({ "code": 403, "message": "not allowed", "data": { "reason": "tool_not_granted", "decision_id": "d", "hint": "ask for a grant" } });
        let fault = refused("pay", &error);
        assert_eq!(fault.exit, Exit::NotAllowed);
        assert_eq!(
            fault.to_string(),
            "error: pay: not allowed (tool_not_granted)\ntry: ask for a grant"
        );
        assert_eq!(refused("pay", &json!({ "code": -32602, "message": "x" })).exit, Exit::Failed);
    }

    #[test]
    fn results_are_told_as_text() {
        let result = json!({ "content": [{ "type": "text", "text": "a\nb\u{1b}[2J" }, { "type": "image", "data": "" }] });
        assert_eq!(told(&result), "a\nb\\u{1b}[2J\n[image: see -o json]");
    }
}
