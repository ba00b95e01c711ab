//! Delivers notices to webhooks: bounded, in order, with a few tries each, every one given up counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::Timestamp;
use domain::alerts::{AlertNotice, AlertState, Rule};
use http::{Method, Request, header};
use http_body_util::Full;
use service_kit::{Backoff, BackoffPolicy, Pause, Shutdown, Stage, Tasks};
use tokio::sync::mpsc;

use super::file::Webhook;
use crate::https::{HttpClient, client};

/// Notices that wait for delivery; further ones are given up.
const QUEUE_MAX: usize = 256;
/// Longest wait for a webhook's answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
const TRIES: BackoffPolicy = BackoffPolicy {
    first: Duration::from_secs(1),
    pause_max: Duration::from_secs(10),
    attempts_max: Some(3),
};

/// The queue in front of the task that delivers.
#[derive(Debug)]
pub(super) struct Notices(mpsc::Sender<(Arc<Webhook>, AlertNotice)>);

impl Notices {
    pub(super) fn start(tasks: &Tasks) -> Self {
        let (sender, mut waiting) = mpsc::channel::<(Arc<Webhook>, AlertNotice)>(QUEUE_MAX);
        let shutdown = tasks.shutdown(Stage::Query);
        tasks.spawn(Stage::Query, "alert notices", async move {
            let client = client();
            loop {
                let (webhook, notice) = tokio::select! {
                    () = shutdown.requested() => return Ok(()),
                    next = waiting.recv() => match next {
                        Some(next) => next,
                        None => return Ok(()),
                    },
                };
                let delivered = deliver(&client, &webhook, &notice, &shutdown).await;
                if let Err(fault) = &delivered {
                    tracing::warn!(
                        rule = notice.rule.name,
                        host = webhook.url.host(),
                        fault,
                        "alert notice given up"
                    );
                }
                webhook.count(delivered);
            }
        });
        Self(sender)
    }

    pub(super) fn send(&self, webhook: &Arc<Webhook>, rule: &Rule, state: AlertState, since: Timestamp, value: Option<f64>) {
        let notice = AlertNotice {
            id: uuid::Uuid::now_v7().to_string(),
            text: text(rule, state, value),
            rule: rule.clone(),
            state,
            since,
            value,
        };
        if self.0.try_send((Arc::clone(webhook), notice)).is_err() {
            webhook.count(Err(format!("{QUEUE_MAX} notices were waiting already")));
        }
    }
}

fn text(rule: &Rule, state: AlertState, value: Option<f64>) -> String {
    let value = value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.3}"));
    let what = match state {
        AlertState::Firing => "fires",
        AlertState::Ok | AlertState::NoData => "is well again",
    };
    format!("{} {what}: {} is {value} (rule: {})", rule.name, rule.metric, rule.bound)
}

/// `Err` says why nobody took it, for operators.
async fn deliver(client: &HttpClient, webhook: &Webhook, notice: &AlertNotice, shutdown: &Shutdown) -> Result<(), String> {
    let body = Bytes::from(serde_json::to_vec(notice).map_err(|error| error.to_string())?);
    let mut pauses = Backoff::new(TRIES);
    loop {
        let fault = match post(client, webhook, body.clone()).await {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        match pauses.pause(shutdown).await {
            Pause::Elapsed => {}
            Pause::ShutdownRequested | Pause::Exhausted => return Err(fault),
        }
    }
}

async fn post(client: &HttpClient, webhook: &Webhook, body: Bytes) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(webhook.url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(ANSWER_WAIT_MAX, client.request(request)).await {
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(format!("it answered {}", answer.status())),
        Ok(Err(_unreachable)) => Err("it could not be reached".to_owned()),
        Err(_late) => Err(format!("it did not answer within {} s", ANSWER_WAIT_MAX.as_secs())),
    }
}
