//! Server scenarios: the fixture passes what is scored, and a gateway in front of it changes nothing for the worse.

use conformance::Governed;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::suite::{Results, Status};

/// The fixture; it ends when this is dropped.
struct Fixture {
    url: String,
    _stop: oneshot::Sender<()>,
}

impl Fixture {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        #[expect(clippy::disallowed_methods, reason = "it ends with its sender, at the end of the test")]
        tokio::spawn(conformance::serve(listener, async move { drop(stopped.await) }));
        Self { url, _stop: stop }
    }
}

async fn compare(revision: &str, scored: usize) {
    let fixture = Fixture::start().await;
    let governed = Governed::start(&fixture.url).unwrap();
    let (before, after) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (direct, passed, said) = Results::of_server(&fixture.url, revision, before.path()).await;
    assert!(passed, "the fixture itself fails what is scored:\n{said}");
    assert!(direct.count(Status::Success) >= scored, "{direct:?}");
    let (through, passed, said) = Results::of_server(&governed.url, revision, after.path()).await;
    let worse = through.worse_than(&direct);
    assert!(worse.is_empty(), "worse through the gateway:\n{}\n{said}", worse.join("\n"));
    assert!(passed, "{said}");
    let events = governed.recorder.drain(100_000);
    assert!(events.len() > scored, "each request is recorded: {}", events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_2025_11_25_sees_no_gateway() {
    compare("2025-11-25", 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_of_2026_07_28_sees_no_gateway() {
    compare("2026-07-28", 100).await;
}
