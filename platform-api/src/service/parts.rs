//! The other parts of the system, asked on their admin pages: all processes behind a name, at the same time.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use domain::operations::{ComponentState, ComponentStatus};
use futures::future::join_all;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::time::timeout;

use super::exposition::Exposition;

/// Longest wait for a page.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(2);
/// Largest page that is read.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Processes of one part that are asked; the status counts the rest in words.
const PROCESSES_MAX: usize = 64;

/// A part of the system and where its admin pages are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    key: String,
    /// Name or address, and port.
    host: String,
}

/// A part is not given as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a part as `ingest=http://host:port`")]
pub struct NotAPart;

impl FromStr for Part {
    type Err = NotAPart;

    fn from_str(text: &str) -> Result<Self, NotAPart> {
        let (key, url) = text.trim().split_once('=').ok_or(NotAPart)?;
        let url: http::Uri = url.parse().map_err(|_| NotAPart)?;
        let (host, port) = (url.host().ok_or(NotAPart)?, url.port_u16().ok_or(NotAPart)?);
        if url.scheme_str() != Some("http") || key.is_empty() {
            return Err(NotAPart);
        }
        Ok(Self {
            key: key.to_owned(),
            host: format!("{host}:{port}"),
        })
    }
}

/// Asks parts.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    parts: Vec<Part>,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// What the processes of one part say.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) status: Option<ComponentStatus>,
    pub(super) metrics: Exposition,
    /// The largest of a metric of one process: for ages, of which a sum says nothing.
    pub(super) lag_seconds_max: f64,
}

#[derive(Debug, Deserialize)]
struct Ready {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    name: String,
    ready: bool,
    reason: Option<String>,
}

/// One process: what is wrong with it, and its metrics.
struct Process {
    address: SocketAddr,
    waits_for: Vec<String>,
    metrics: String,
}

impl Parts {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(ANSWER_WAIT_MAX));
        Self {
            parts,
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Asks every process of every part.
    pub(super) async fn ask(&self) -> Vec<(String, Said)> {
        let asked = self
            .parts
            .iter()
            .map(async |part| (part.key.clone(), self.ask_part(part).await));
        join_all(asked).await
    }

    async fn ask_part(&self, part: &Part) -> Said {
        let found = timeout(ANSWER_WAIT_MAX, tokio::net::lookup_host(&part.host)).await;
        let mut addresses: Vec<SocketAddr> = match found {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        addresses.sort_unstable();
        addresses.dedup();
        let known = addresses.len();
        addresses.truncate(PROCESSES_MAX);
        let processes = join_all(addresses.into_iter().map(|address| self.ask_process(address))).await;
        summed_up(part, known, &processes)
    }

    async fn ask_process(&self, address: SocketAddr) -> Process {
        let (ready, metrics) = tokio::join!(self.page(address, "/ready"), self.page(address, "/metrics"));
        let waits_for = match ready.as_deref().map(serde_json::from_slice::<Ready>) {
            None => vec!["it does not answer".to_owned()],
            Some(Err(_)) => vec!["its answer is not understood".to_owned()],
            Some(Ok(report)) => {
                let waiting = report.conditions.into_iter().filter(|condition| !condition.ready);
                waiting
                    .map(|condition| format!("{}: {}", condition.name, condition.reason.unwrap_or_default()))
                    .collect()
            }
        };
        Process {
            address,
            waits_for,
            metrics: metrics.map_or_else(String::new, |page| String::from_utf8_lossy(&page).into_owned()),
        }
    }

    async fn page(&self, address: SocketAddr, path: &str) -> Option<Bytes> {
        let request = Request::get(format!("http://{address}{path}")).header(header::ACCEPT, "*/*");
        let read = async {
            let answer = self.client.request(request.body(Empty::new()).ok()?).await.ok()?;
            let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await.ok()?;
            Some(body.to_bytes())
        };
        timeout(ANSWER_WAIT_MAX, read).await.ok().flatten()
    }
}

fn summed_up(part: &Part, known: usize, processes: &[Process]) -> Said {
    let mut said = Said::default();
    for process in processes {
        said.metrics.add(&process.metrics);
        let mut own = Exposition::default();
        own.add(&process.metrics);
        said.lag_seconds_max = said.lag_seconds_max.max(own.sum("sentinel_processor_lag_seconds"));
    }
    let well = processes.iter().filter(|process| process.waits_for.is_empty()).count();
    let mut detail = format!("{well} of {known} process(es) ready");
    for process in processes.iter().filter(|process| !process.waits_for.is_empty()) {
        // Writing to a string cannot fail.
        let _infallible = write!(detail, "; {}: {}", process.address, process.waits_for.join(", "));
    }
    if known == 0 {
        detail = format!("nothing is found at {}", part.host);
    }
    let state = match well {
        0 => ComponentState::NotReady,
        _ if well < known => ComponentState::Degraded,
        _ => ComponentState::Ready,
    };
    said.status = Some(ComponentStatus {
        key: part.key.clone(),
        display: display(&part.key),
        state,
        detail,
        address: Some(part.host.clone()),
    });
    said
}

fn display(key: &str) -> String {
    let mut letters = key.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_a_name_and_an_address() {
        let part: Part = "ingest=http://sentinel-ingest:9091".parse().unwrap();
        assert_eq!((part.key.as_str(), part.host.as_str()), ("ingest", "sentinel-ingest:9091"));
        for wrong in [
            "",
            "ingest",
            "=http://a:1",
            "ingest=a:1",
            "ingest=https://a:1",
            "ingest=http://a",
        ] {
            assert_eq!(wrong.parse::<Part>(), Err(NotAPart), "{wrong}");
        }
    }

    #[test]
    fn processes_that_wait_are_named_with_what_they_wait_for() {
        let part: Part = "processor=http://p:9102".parse().unwrap();
        let process = |port, waits_for: &[&str]| Process {
            address: ([127, 0, 0, 1], port).into(),
            waits_for: waits_for.iter().map(|text| (*text).to_owned()).collect(),
            metrics: format!("sentinel_processor_lag_seconds {port}\nsentinel_processor_lag_events 5\n"),
        };
        let said = summed_up(&part, 2, &[process(1, &[]), process(2, &["store: connecting to ClickHouse"])]);
        let status = said.status.unwrap();
        assert_eq!(status.state, ComponentState::Degraded);
        assert_eq!(
            status.detail,
            "1 of 2 process(es) ready; 127.0.0.1:2: store: connecting to ClickHouse"
        );
        assert_eq!(
            (said.metrics.count("sentinel_processor_lag_events"), said.lag_seconds_max),
            (10, 2.0)
        );
        assert_eq!(summed_up(&part, 0, &[]).status.unwrap().state, ComponentState::NotReady);
    }
}
