//! A repository of a registry, by the distribution specification: requests, and the login that they are challenged for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Deserialize;

use crate::fault::{Exit, Fault};

const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the answer to one request; a piece of a layer goes with it.
const ANSWER_WAIT_MAX: Duration = Duration::from_mins(5);

/// What proves the right to push.
#[derive(Clone)]
pub(super) struct Login {
    basic: Option<(String, String)>,
    /// Besides the registry itself, who may see it; anybody that the registry names when absent.
    platform: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

impl Login {
    pub(super) fn none() -> Self {
        Self {
            basic: None,
            platform: None,
        }
    }

    pub(super) fn basic(name: &str, password: &str, platform: Option<&str>) -> Self {
        Self {
            basic: Some((name.to_owned(), password.to_owned())),
            platform: platform.map(str::to_owned),
        }
    }

    /// The credential, when the one who asks for it may see it.
    fn for_realm(&self, realm: &Url, registry: &Url) -> Option<&(String, String)> {
        let is_named = match &self.platform {
            None => true,
            Some(platform) => Url::parse(platform).is_ok_and(|platform| platform.origin() == realm.origin()),
        };
        self.basic
            .as_ref()
            .filter(|_| is_named || realm.origin() == registry.origin())
    }
}

/// How requests are let in.
#[derive(Clone)]
enum Pass {
    Basic(String, String),
    Bearer(String),
}

/// One repository.
pub(super) struct Remote {
    http: reqwest::Client,
    base: Url,
    host: String,
    repository: String,
    login: Login,
    pass: Mutex<Option<Pass>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Remote {
    pub(super) fn new(host: &str, repository: &str, plain_http: bool, login: Login) -> Result<Self, Fault> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_here = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
        let scheme = if plain_http || is_here { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{repository}/"))
            .map_err(|error| Fault::new(Exit::Usage, format!("`{host}` is no host of a registry")).caused_by(&error))?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WAIT_MAX)
            .timeout(ANSWER_WAIT_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("mcp-runtime/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Fault::new(Exit::Failed, "preparing the HTTP client").caused_by(&error))?;
        Ok(Self {
            http,
            base,
            host: host.to_owned(),
            repository: repository.to_owned(),
            login,
            pass: Mutex::new(None),
        })
    }

    /// Names the repository among those of all registries.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    pub(super) fn url(&self, path: &str) -> Result<Url, Fault> {
        self.base
            .join(path)
            .map_err(|error| Fault::new(Exit::Failed, format!("making the address of {path}")).caused_by(&error))
    }

    /// Where an upload goes on, as the last answer says.
    pub(super) fn location(&self, headers: &HeaderMap) -> Result<Url, Fault> {
        let told = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        told.and_then(|text| self.base.join(text).ok())
            .ok_or_else(|| Fault::new(Exit::Failed, format!("{} does not say where the upload goes on", self.host)))
    }

    /// Asks, and when the registry wants to know who asks, says so and asks again.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &Url,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Fault> {
        let response = self.once(method.clone(), url, &fill).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        self.introduce(response.headers()).await?;
        let response = self.once(method, url, &fill).await?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused()),
            _ => Ok(response),
        }
    }

    async fn once(
        &self,
        method: Method,
        url: &Url,
        fill: &impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Fault> {
        let mut request = fill(self.http.request(method, url.clone()));
        let pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Storage that the registry sends uploads to has no use for our credential.
        if url.origin() == self.base.origin() {
            request = match pass {
                Some(Pass::Basic(name, password)) => request.basic_auth(name, Some(password)),
                Some(Pass::Bearer(token)) => request.bearer_auth(token),
                None => request,
            };
        }
        request.send().await.map_err(|error| {
            Fault::new(Exit::Failed, format!("asking the registry {}", self.host))
                .caused_by(&error)
                .hint("is it the right host? name another with --registry; push again to go on where this one stopped")
        })
    }

    fn refused(&self) -> Fault {
        Fault::new(
            Exit::NotAllowed,
            format!("the registry {} does not let you push to {}", self.host, self.repository),
        )
        .hint("log in with an account that may push there, or give --username and --password-file")
    }

    /// Answers the registry's challenge.
    async fn introduce(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let mut challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenges.find_map(|value| Challenge::parse(value.to_str().ok()?));
        let pass = match challenge {
            Some(Challenge::Basic) => {
                let basic = self.login.for_realm(&self.base, &self.base);
                let (name, password) = basic.ok_or_else(|| self.refused())?;
                Pass::Basic(name.clone(), password.clone())
            }
            Some(Challenge::Bearer { realm, service }) => Pass::Bearer(self.token(&realm, service.as_deref()).await?),
            None => return Err(self.refused()),
        };
        *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
        Ok(())
    }

    async fn token(&self, realm: &str, service: Option<&str>) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(alias = "access_token")]
            token: String,
        }
        let realm = Url::parse(realm)
            .map_err(|error| Fault::new(Exit::Failed, "reading where the registry's tokens come from").caused_by(&error))?;
        let mut query = vec![("scope", format!("repository:{}:pull,push", self.repository))];
        query.extend(service.map(|service| ("service", service.to_owned())));
        let mut request = self.http.get(realm.clone()).query(&query);
        if let Some((name, password)) = self.login.for_realm(&realm, &self.base) {
            request = request.basic_auth(name, Some(password));
        }
        let fault = |error: reqwest::Error| Fault::new(Exit::Failed, format!("getting a token from {realm}")).caused_by(&error);
        let response = request.send().await.map_err(fault)?;
        if !response.status().is_success() {
            return Err(self.refused());
        }
        Ok(response.json::<Token>().await.map_err(fault)?.token)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let value = |name: &str| {
            let (_, after) = rest.split_once(&format!("{name}=\""))?;
            Some(after.split_once('"')?.0.to_owned())
        };
        scheme.eq_ignore_ascii_case("bearer").then_some(Self::Bearer {
            realm: value("realm")?,
            service: value("service"),
        })
    }
}

/// What a registry says instead of doing it.
pub(super) async fn unexpected(what: &str, response: Response) -> Fault {
    #[derive(Deserialize)]
    struct Told {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAllowed,
        _ => Exit::Failed,
    };
    let body = response.bytes().await.unwrap_or_default();
    let told = serde_json::from_slice::<Told>(&body)
        .ok()
        .and_then(|told| told.errors.into_iter().next());
    let told = told.map_or_else(String::new, |error| format!(": {} {}", error.code, error.message));
    Fault::new(
        exit,
        crate::text::safe(&format!("{what}: the registry answered {status}{told}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            Challenge::parse(r#"Bearer realm="https://a/token",service="r",scope="repository:x:pull""#),
            Some(Challenge::Bearer {
                realm: "https://a/token".to_owned(),
                service: Some("r".to_owned())
            })
        );
        assert_eq!(Challenge::parse("Digest x"), None);
    }

    #[test]
    fn the_platforms_credential_is_shown_to_the_platform_and_its_registry_alone() {
        let registry = Url::parse("https://registry.example.com/v2/x/").unwrap();
        let login = Login::basic("mcp", "token", Some("https://platform.example.com"));
        let shown = |realm: &str| login.for_realm(&Url::parse(realm).unwrap(), &registry).is_some();
        assert!(shown("https://platform.example.com/api/v1/registry/token"));
        assert!(shown("https://registry.example.com/token"));
        assert!(!shown("https://evil.example/token"));
        assert!(!format!("{login:?}").contains("token"));
    }
}
