use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderName;
use service_kit::{Stage, Tasks};

use super::*;

/// Gives sessions with a life, and refuses after so many.
struct Source {
    asked: Arc<AtomicU32>,
    life: Duration,
    refuses_after: u32,
}

impl SessionSource for Source {
    fn issue<'a>(&'a self, _last: Option<&'a Session>) -> BoxFuture<'a, Result<Session, SessionError>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if asked >= self.refuses_after {
                return Err(SessionError {
                    remedy: Remedy::Refused,
                    reason: "session_revoked",
                    message: "the session was revoked".to_owned(),
                    hint: None,
                });
            }
            let now = Timestamp::from_nanos(Clock::system().unix_ns());
            Ok(Session {
                endpoint: "http://127.0.0.1:1/mcp".parse().unwrap(),
                name: format!("s{asked}"),
                headers: [(HeaderName::from_static("x-mcp-agent-session"), secret("mcpa_secret").unwrap())]
                    .into_iter()
                    .collect(),
                expires_at: Some(now.plus(self.life)),
            })
        })
    }

    fn end<'a>(&'a self, _session: &'a Session) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

fn sessions(life: Duration, refuses_after: u32, auto_refresh: bool) -> (Sessions, Arc<AtomicU32>, service_kit::Running) {
    let running = Tasks::for_test();
    let asked = Arc::new(AtomicU32::new(0));
    let source = Source {
        asked: Arc::clone(&asked),
        life,
        refuses_after,
    };
    (Sessions::new(source, auto_refresh, &running.tasks()), asked, running)
}

#[tokio::test]
async fn many_requests_ask_once() {
    let (sessions, asked, _running) = sessions(Duration::from_hours(1), 9, false);
    let all = futures::future::join_all((0..50).map(|_| sessions.current())).await;
    assert!(all.into_iter().all(|session| session.is_ok()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(!format!("{:?}", sessions.current().await.unwrap()).contains("secret"));
}

#[tokio::test]
async fn a_refused_renewal_is_told_to_every_request_and_not_asked_for_each() {
    let (sessions, asked, _running) = sessions(Duration::from_hours(1), 1, false);
    let first = sessions.current().await.unwrap();
    let told = futures::future::join_all((0..5).map(|_| sessions.replace(Some(&first)))).await;
    assert!(
        told.into_iter()
            .all(|told| told.is_err_and(|refusal| refusal.reason == "session_revoked"))
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(sessions.current().await.unwrap_err().reason, "session_revoked");
}

#[tokio::test]
async fn an_ended_session_is_told_when_nobody_may_renew_it() {
    let (sessions, asked, _running) = sessions(Duration::ZERO, 9, false);
    // The one that was asked for is handed out; the next request finds that it is over.
    sessions.current().await.unwrap();
    assert_eq!(sessions.current().await.unwrap_err().reason, "session_expired");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_session_is_renewed_ahead_of_its_end() {
    let (sessions, _asked, running) = sessions(Duration::from_millis(400), 99, true);
    let first = sessions.current().await.unwrap();
    let tasks = running.tasks();
    tasks.spawn(
        Stage::Pipeline,
        "keep",
        sessions.clone().keep(tasks.shutdown(Stage::Pipeline)),
    );
    let mut changes = sessions.0.state.subscribe();
    let renewed = changes.wait_for(|state| state.session.as_ref().is_some_and(|session| session.name != first.name));
    tokio::time::timeout(Duration::from_mins(1), renewed).await.unwrap().unwrap();
    assert!(running.stop().await.is_clean());
}

#[test]
fn renewal_starts_five_minutes_before_the_end_of_a_long_life() {
    let now = Timestamp::from_seconds(1_000_000);
    assert_eq!(
        renewal(now.plus(Duration::from_hours(1)), now),
        now.plus(Duration::from_mins(55))
    );
    assert_eq!(
        renewal(now.plus(Duration::from_secs(40)), now),
        now.plus(Duration::from_secs(30))
    );
}
