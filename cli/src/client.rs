//! The platform API over HTTP.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::args::Global;
use crate::fault::{Exit, Fault};
use crate::profile::{self, Profile, Profiles};

const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Longest wait for an answer's head. Streams may stay silent for as long as they like afterwards.
const ANSWER_WAIT_MAX: Duration = Duration::from_mins(1);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// One platform API.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    credential: Mutex<Option<Key>>,
    /// The saved login that the credential comes from, to be renewed.
    saved: Option<Saved>,
}

/// Where a login is kept.
#[derive(Debug, Clone)]
struct Saved {
    folder: PathBuf,
    profile: String,
}

#[derive(Clone)]
struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The one shape of error bodies.
#[derive(Debug, Deserialize)]
struct Problem {
    error: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

impl Client {
    pub(crate) fn new(global: &Global) -> Result<Self, Fault> {
        let http = http_client()?;
        let folder = profile::folder(global.config_dir.as_deref());
        let profiles = folder.as_deref().map_or_else(|| Ok(Profiles::default()), Profiles::read)?;
        let chosen = profiles.chosen(global.profile.as_deref())?;
        let named = global.api_url.clone().or_else(|| global.platform_api_url.clone());
        let base = named
            .or_else(|| chosen.map(|(_, profile)| profile.api_url.clone()))
            .or_else(last_standalone)
            .unwrap_or_else(|| DEFAULT_URL.to_owned());
        let base = base_of(&base);
        let given = match (&global.api_key_file, &global.platform_api_token) {
            (Some(path), _) => Some(Key(read_secret(path, "the API key")?)),
            (None, token) => token.clone().map(Key),
        };
        // A login is shown only to the service it was made at.
        let saved = chosen.filter(|(_, profile)| given.is_none() && base_of(&profile.api_url) == base);
        let credential = given
            .or_else(|| saved.and_then(|(_, profile)| profile.token.clone()).map(Key))
            .or_else(|| local_key(&base));
        Ok(Self {
            http,
            base,
            credential: Mutex::new(credential),
            saved: saved.zip(folder).map(|((name, _), folder)| Saved {
                folder,
                profile: name.to_owned(),
            }),
        })
    }

    /// For a service that one has not logged in at: with the key of a standalone of ours, or none.
    pub(crate) fn fresh_at(base: &str) -> Result<Self, Fault> {
        Self::at(base, local_key(&base_of(base)).map(|Key(key)| key))
    }

    /// For another service or credential than the saved ones.
    pub(crate) fn at(base: &str, token: Option<String>) -> Result<Self, Fault> {
        Ok(Self {
            http: http_client()?,
            base: base_of(base),
            credential: Mutex::new(token.map(Key)),
            saved: None,
        })
    }

    /// Where it asks.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// What it presents, for those who log in elsewhere with it.
    pub(crate) fn credential(&self) -> Option<String> {
        self.key().map(|Key(text)| text)
    }

    /// Whether it presents anything.
    pub(crate) fn has_credential(&self) -> bool {
        self.key().is_some()
    }

    fn key(&self) -> Option<Key> {
        self.credential.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Exchanges the saved refresh token; `false` when there is none or it no longer works.
    async fn renew(&self) -> Result<bool, Fault> {
        let Some(saved) = &self.saved else { return Ok(false) };
        let mut profiles = Profiles::read(&saved.folder)?;
        let Some(profile) = profiles.accounts.get_mut(&saved.profile) else {
            return Ok(false);
        };
        let Some(refresh) = profile.refresh_token.clone() else {
            return Ok(false);
        };
        let url = format!("{}/api/v1/auth/refresh", self.base);
        let answer = self
            .http
            .post(&url)
            .timeout(ANSWER_WAIT_MAX)
            .json(&serde_json::json!({ "refresh_token": refresh }))
            .send()
            .await;
        let response = answer.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Ok(false);
        }
        let granted: Granted = self.read(response).await?;
        granted.keep(profile);
        profiles.write(&saved.folder)?;
        *self.credential.lock().unwrap_or_else(PoisonError::into_inner) = Some(Key(granted.access_token));
        Ok(true)
    }

    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Fault> {
        self.read(self.ask(Method::GET, path, query, None).await?).await
    }

    /// Sends a document and reads the answer.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, Fault> {
        self.read(self.ask(method, path, &[], body).await?).await
    }

    /// Sends a document and takes the answer as it is.
    pub(crate) async fn send_for_text(&self, method: Method, path: &str, body: &serde_json::Value) -> Result<String, Fault> {
        let response = self.ask(method, path, &[], Some(body)).await?;
        response.text().await.map_err(|error| self.unreachable(&error))
    }

    /// Asks for a stream.
    pub(crate) async fn open(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Fault> {
        self.ask(Method::GET, path, query, None).await
    }

    /// Follows server-sent events: the `id` and `data` of each.
    pub(crate) async fn follow(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<impl Stream<Item = Result<(String, String), Fault>> + use<>, Fault> {
        let mut bytes = self.open(path, query).await?.bytes_stream();
        let base = self.base.clone();
        Ok(async_events(async move || match bytes.next().await {
            None => Ok(None),
            Some(Ok(chunk)) => Ok(Some(chunk.to_vec())),
            Some(Err(error)) => Err(Fault::new(Exit::Failed, format!("reading the stream from {base}")).caused_by(&error)),
        }))
    }

    /// Asks, and when the login has run out, renews it and asks once more.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&serde_json::Value>,
    ) -> Result<Response, Fault> {
        let mut response = self.ask_once(method.clone(), path, query, body).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.renew().await? {
            response = self.ask_once(method, path, query, body).await?;
        }
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refused(response).await)
        }
    }

    async fn ask_once(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&serde_json::Value>,
    ) -> Result<Response, Fault> {
        let url = format!("{}{path}", self.base);
        let mut request = self
            .http
            .request(method, &url)
            .query(query)
            .header(reqwest::header::ACCEPT, "application/json, text/event-stream");
        if let Some(Key(key)) = self.key() {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, request.send()).await;
        let answer = answer.map_err(|_| {
            Fault::new(
                Exit::Failed,
                format!("no answer from {url} within {} s", ANSWER_WAIT_MAX.as_secs()),
            )
        })?;
        answer.map_err(|error| self.unreachable(&error))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, Fault> {
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Fault::new(
                Exit::Failed,
                format!("{} answered something that this version does not understand", self.base),
            )
            .caused_by(&error)
            .hint("is the address that of a platform API of the same version?")
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Fault {
        if cfg!(not(feature = "tls")) && self.base.starts_with("https:") {
            return Fault::new(
                Exit::Usage,
                format!("{} needs TLS, which this build does not speak", self.base),
            )
            .hint("build it with TLS: cargo build -p cli --features tls");
        }
        Fault::new(Exit::Failed, format!("no platform API answers at {}", self.base))
            .caused_by(error)
            .hint("start one with `mcp-runtime up`, or name another with --api-url")
    }
}

/// The answer to a login.
#[derive(Deserialize)]
pub(crate) struct Granted {
    pub(crate) access_token: String,
    expires_in: u64,
    refresh_token: String,
    pub(crate) user: GrantedUser,
}

#[derive(Deserialize)]
pub(crate) struct GrantedUser {
    pub(crate) email: String,
    pub(crate) role: String,
}

impl Granted {
    /// Keeps the tokens in a profile.
    pub(crate) fn keep(&self, profile: &mut Profile) {
        profile.token = Some(self.access_token.clone());
        profile.refresh_token = Some(self.refresh_token.clone());
        profile.expires_at = Some(crate::text::now().plus(Duration::from_secs(self.expires_in)));
        profile.role.clone_from(&self.user.role);
        profile.username.clone_from(&self.user.email);
    }
}

/// An address as it is compared: without what people paste after it.
fn base_of(url: &str) -> String {
    let url = url.trim().trim_end_matches('/');
    let url = url
        .strip_suffix("/api/v1")
        .or_else(|| url.strip_suffix("/api"))
        .unwrap_or(url);
    url.trim_end_matches('/').to_owned()
}

fn http_client() -> Result<reqwest::Client, Fault> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_WAIT_MAX)
        .user_agent(concat!("mcp-runtime/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Fault::new(Exit::Failed, "preparing the HTTP client").caused_by(&error))
}

async fn refused(response: Response) -> Fault {
    let status = response.status();
    let exit = match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAllowed,
        StatusCode::CONFLICT => Exit::Conflict,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Exit::Usage,
        _ => Exit::Failed,
    };
    let body = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => {
            let message = if problem.message.is_empty() {
                &problem.error
            } else {
                &problem.message
            };
            let fault = Fault::new(exit, crate::text::safe(message)).code(problem.error);
            match problem.hint {
                Some(hint) => fault.hint(crate::text::safe(&hint)),
                None => fault,
            }
        }
        Err(_) => Fault::new(exit, format!("the API answered {status}")),
    }
}

/// Cuts a byte stream into server-sent events.
fn async_events<F>(next: F) -> impl Stream<Item = Result<(String, String), Fault>>
where
    F: AsyncFnMut() -> Result<Option<Vec<u8>>, Fault>,
{
    let state = (next, Vec::new(), std::collections::VecDeque::new());
    futures::stream::try_unfold(state, async |(mut next, mut rest, mut ready)| {
        loop {
            if let Some(event) = ready.pop_front() {
                return Ok(Some((event, (next, rest, ready))));
            }
            let Some(chunk) = next().await? else { return Ok(None) };
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = rest.drain(..end + 2).collect();
                ready.extend(event_of(&String::from_utf8_lossy(&block)));
            }
        }
    })
}

fn event_of(block: &str) -> Option<(String, String)> {
    let field = |name: &str| {
        block
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .map(|value| value.strip_prefix(' ').unwrap_or(value))
            .collect::<Vec<_>>()
    };
    let data = field("data:");
    (!data.is_empty()).then(|| (field("id:").concat(), data.join("\n")))
}

/// What proves something, from a file.
pub(crate) fn read_secret(path: &Path, what: &str) -> Result<String, Fault> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Fault::new(Exit::Usage, format!("reading {what} from {}", path.display())).caused_by(&error))?;
    Ok(text.trim().to_owned())
}

/// Where `up` notes the address it listens on, for commands in another terminal.
pub(crate) fn standalone_note() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".mcpruntime").join("standalone.json"))
}

/// What a standalone tells of itself, to its owner alone.
#[derive(Deserialize)]
struct Note {
    url: String,
    #[serde(default)]
    data_dir: Option<PathBuf>,
}

impl Note {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

fn last_standalone() -> Option<String> {
    Note::read(&standalone_note()?).map(|note| note.url)
}

/// The key of the standalone at this address, when its data folder is ours: the one started last, or the one in the usual place.
fn local_key(base: &str) -> Option<Key> {
    let last = standalone_note()
        .as_deref()
        .and_then(Note::read)
        .and_then(|note| note.data_dir);
    let usual = std::env::home_dir().map(|home| home.join(".mcpruntime").join("data"));
    let numeric = |url: &str| base_of(url).replacen("//localhost", "//127.0.0.1", 1);
    last.into_iter().chain(usual).find_map(|folder| {
        let running = Note::read(&folder.join("run.json"))?;
        let is_meant = numeric(&running.url) == numeric(base);
        let key = is_meant.then(|| std::fs::read_to_string(folder.join("owner.key")).ok())??;
        Some(Key(key.trim().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_found_however_the_bytes_are_cut() {
        let wire = b": hello\n\nid: 0:7\ndata: {\"a\":1}\n\nid: 0:8\ndata: x\ndata: y\n\n";
        for size in 1..wire.len() {
            let mut chunks = wire
                .chunks(size)
                .map(<[u8]>::to_vec)
                .collect::<std::collections::VecDeque<_>>();
            let events: Vec<_> = async_events(async move || Ok(chunks.pop_front())).collect().await;
            let events: Vec<_> = events.into_iter().map(Result::unwrap).collect();
            assert_eq!(
                events,
                [
                    ("0:7".to_owned(), "{\"a\":1}".to_owned()),
                    ("0:8".to_owned(), "x\ny".to_owned())
                ]
            );
        }
    }
}
