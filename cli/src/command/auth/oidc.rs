//! Logging in with the platform's identity provider: in a browser on this machine, or on another device.

use std::time::Duration;

use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, Granted};
use crate::fault::{Exit, Fault};
use crate::render;
use crate::text::safe;

/// Longest time for a person to log in.
const LOGIN_WAIT_MAX: Duration = Duration::from_mins(5);
/// What a browser may send before it is not listened to any more.
const REQUEST_BYTES_MAX: u64 = 16 << 10;
const DONE: &str = "You are logged in. You may close this window and go back to the terminal.";
const NOT_DONE: &str = "The login did not succeed. The terminal says why.";

/// How one can log in.
#[derive(Debug, Deserialize)]
pub(super) struct Methods {
    #[serde(default)]
    oidc: Option<serde_json::Value>,
}

impl Methods {
    pub(super) async fn of(client: &Client) -> Result<Self, Fault> {
        client.get("/api/v1/auth/methods", &[]).await
    }

    pub(super) fn has_provider(&self) -> bool {
        self.oidc.is_some()
    }
}

/// Sends the browser to the provider and waits for it to come back.
pub(super) async fn in_browser(client: &Client, opens: bool) -> Result<Granted, Fault> {
    #[derive(Deserialize)]
    struct Started {
        authorization_url: String,
        flow: String,
    }
    let fault = |error: std::io::Error| Fault::new(Exit::Failed, "waiting for the browser").caused_by(&error);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(fault)?;
    let redirect = format!("http://127.0.0.1:{}/callback", listener.local_addr().map_err(fault)?.port());
    let wish = json!({ "redirect_uri": redirect });
    let started: Started = client.send(Method::POST, "/api/v1/auth/oidc/start", Some(&wish)).await?;
    render::note(&format!("Log in here:\n\n  {}\n", safe(&started.authorization_url)));
    if opens {
        open(&started.authorization_url);
    }
    let (mut browser, state, code) = tokio::time::timeout(LOGIN_WAIT_MAX, returned(&listener))
        .await
        .map_err(|_| {
            Fault::new(Exit::NotReady, "nobody logged in within five minutes")
                .hint("try again, or use --device on a machine without a browser")
        })??;
    let finish = json!({ "flow": started.flow, "state": state, "code": code, "redirect_uri": redirect });
    let granted: Result<Granted, Fault> = client.send(Method::POST, "/api/v1/auth/oidc/finish", Some(&finish)).await;
    let text = if granted.is_ok() { DONE } else { NOT_DONE };
    // The login stands whether or not the browser still listens.
    let _gone = answer(&mut browser, "200 OK", text).await;
    granted
}

/// Opens the browser where there is a program for that. Whoever has none has the address on the screen.
fn open(url: &str) {
    for program in ["xdg-open", "open"] {
        let mut command = std::process::Command::new(program);
        let null = std::process::Stdio::null;
        if command.arg(url).stdin(null()).stdout(null()).stderr(null()).spawn().is_ok() {
            return;
        }
    }
}

/// What the browser brings: the state and the code. Other requests, such as for an icon, are turned away.
async fn returned(listener: &TcpListener) -> Result<(TcpStream, String, String), Fault> {
    let fault = |error: std::io::Error| Fault::new(Exit::Failed, "waiting for the browser").caused_by(&error);
    loop {
        let (mut stream, _) = listener.accept().await.map_err(fault)?;
        let path = tokio::time::timeout(Duration::from_secs(10), path_of(&mut stream)).await;
        let url = path
            .ok()
            .flatten()
            .and_then(|path| Url::parse(&format!("http://127.0.0.1{path}")).ok());
        let Some(url) = url.filter(|url| url.path() == "/callback") else {
            let _gone = answer(&mut stream, "404 Not Found", "There is nothing here.").await;
            continue;
        };
        let value = |name: &str| {
            url.query_pairs()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        if let (Some(state), Some(code)) = (value("state"), value("code")) {
            return Ok((stream, state, code));
        }
        let _gone = answer(&mut stream, "200 OK", NOT_DONE).await;
        let why = value("error_description").or_else(|| value("error"));
        let why = why.map_or_else(|| "it does not say why".to_owned(), |why| safe(&why));
        return Err(Fault::new(
            Exit::NotAllowed,
            format!("the identity provider refused the login: {why}"),
        ));
    }
}

/// The path of a GET request, read to the end of its head.
async fn path_of(stream: &mut TcpStream) -> Option<String> {
    use tokio::io::AsyncReadExt as _;
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES_MAX)).lines();
    let first = lines.next_line().await.ok()??;
    while let Ok(Some(line)) = lines.next_line().await {
        if line.is_empty() {
            break;
        }
    }
    Some(first.strip_prefix("GET ")?.split(' ').next()?.to_owned())
}

async fn answer(stream: &mut TcpStream, status: &str, text: &str) -> std::io::Result<()> {
    let body = format!("<!doctype html><meta charset=utf-8><title>mcp-runtime</title><p>{text}</p>");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Lets another device log in, and waits for it.
pub(super) async fn on_a_device(client: &Client) -> Result<Granted, Fault> {
    #[derive(Deserialize)]
    struct Device {
        #[serde(rename = "device_code")]
        secret: String,
        user_code: String,
        verification_uri: String,
        #[serde(default)]
        verification_uri_complete: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
        #[serde(default)]
        interval: Option<u64>,
    }
    let device: Device = client.send(Method::POST, "/api/v1/auth/oidc/device", None).await?;
    let link = device.verification_uri_complete.as_ref().unwrap_or(&device.verification_uri);
    render::note(&format!(
        "Open {} on any device and enter the code\n\n  {}\n",
        safe(link),
        safe(&device.user_code)
    ));
    let mut interval = Duration::from_secs(device.interval.unwrap_or(5).clamp(1, 60));
    let wait = Duration::from_secs(device.expires_in.unwrap_or(300)).min(LOGIN_WAIT_MAX * 3);
    let body = json!({ "device_code": device.secret });
    let polling = async {
        loop {
            tokio::time::sleep(interval).await;
            let polled: Result<Granted, Fault> = client.send(Method::POST, "/api/v1/auth/oidc/device/poll", Some(&body)).await;
            match polled {
                Err(fault) if fault.is("slow_down") => interval += Duration::from_secs(5),
                Err(fault) if fault.is("authorization_pending") => {}
                done => return done,
            }
        }
    };
    tokio::time::timeout(wait, polling).await.map_err(|_| {
        Fault::new(Exit::NotReady, "nobody approved the login in time").hint("try again: mcp-runtime auth login --device")
    })?
}
