use super::*;

fn key() -> Key {
    Key::new("team", "payments")
}

#[expect(clippy::unnecessary_wraps, reason = "as it is published and received")]
fn published(revision: &str) -> Option<Published> {
    Some(Published {
        revision: revision.into(),
        text: format!("{{\"revision\":\"{revision}\"}}").into(),
    })
}

fn feed() -> (Feed, Arc<Queue>) {
    let queue = Arc::new(Queue::default());
    let feed = Feed::new(Arc::clone(&queue));
    feed.set_working(true);
    (feed, queue)
}

fn said(feed: &Feed, pods: &[&str], now: Instant) -> Vec<(String, String)> {
    let said = feed.acknowledgements(&key(), &pods.iter().copied().collect(), now);
    let said = said.revisions.into_iter();
    said.map(|(pod, revision)| (pod, revision.to_string())).collect()
}

#[tokio::test]
async fn a_gateway_waits_for_another_revision_and_says_which_it_runs() {
    let (feed, queue) = feed();
    let running = Tasks::for_test();
    let stop = running.tasks().shutdown(Stage::Query);
    let (now, moment, long) = (Instant::now(), Duration::from_millis(1), Duration::from_mins(1));
    assert!(feed.attend(&key(), "a", "", now).is_none(), "nothing is known yet");
    assert!(feed.publish(&key(), published("1")));
    assert!(!feed.publish(&key(), published("1")), "the same is no news");
    let mut first = feed.attend(&key(), "a", "", now).unwrap();
    assert_eq!(first.next("", long, &stop).await, published("1"));
    drop(first);
    let mut second = feed.attend(&key(), "a", "1", now).unwrap();
    assert_eq!(queue.take(now), Some(key()), "what it says is news");
    assert_eq!(said(&feed, &["a"], now), [("a".to_owned(), "1".to_owned())]);
    assert_eq!(second.next("1", moment, &stop).await, None);
    let (answer, _) = tokio::join!(second.next("1", long, &stop), async { feed.publish(&key(), published("2")) });
    assert_eq!(answer, published("2"));
    assert!(feed.publish(&key(), None));
    assert_eq!(second.next("2", long, &stop).await, None, "the server is gone");
}

#[tokio::test]
async fn a_pass_waits_a_moment_for_those_who_are_there() {
    let (feed, _) = feed();
    feed.publish(&key(), published("1"));
    let old = feed.attend(&key(), "a", "0", Instant::now()).unwrap();
    let start = Instant::now();
    feed.acknowledged(&key()).await;
    assert!(start.elapsed() >= ACKNOWLEDGED_WITHIN, "nobody said a word");
    let key = key();
    let (new, ()) = tokio::join!(async { feed.attend(&key, "a", "1", Instant::now()) }, feed.acknowledged(&key));
    assert!(feed.is_acknowledged(&key));
    drop((old, new));
}

#[test]
fn who_is_silent_has_gone_and_that_is_news() {
    let (feed, queue) = feed();
    feed.publish(&key(), published("1"));
    let start = Instant::now();
    drop(feed.attend(&key(), "a", "1", start).unwrap());
    queue.take(start).unwrap();
    queue.finish(key(), crate::queue::Next::Wait, start);
    assert_eq!(said(&feed, &["a"], start).len(), 1, "between two requests it is still there");
    let later = Instant::now() + SILENCE_MAX;
    assert_eq!(said(&feed, &["a"], later), []);
    assert_eq!(feed.sweep(start, later), [key()]);
    assert_eq!(feed.sweep(later, later + Duration::from_secs(1)), [], "it is told once");
    let back = feed.attend(&key(), "a", "1", later).unwrap();
    assert_eq!(queue.take(later), Some(key()), "coming back is news");
    assert_eq!(
        said(&feed, &[], later).len(),
        1,
        "who waits is there, whatever the watch says"
    );
    drop(back);
    assert_eq!(said(&feed, &[], later), [], "whose pod is gone is forgotten");
}

#[tokio::test]
async fn an_operator_that_stops_working_sends_gateways_away() {
    let (feed, _) = feed();
    let running = Tasks::for_test();
    let stop = running.tasks().shutdown(Stage::Query);
    feed.publish(&key(), published("1"));
    let mut waiting = feed.attend(&key(), "a", "1", Instant::now()).unwrap();
    let (answer, ()) = tokio::join!(waiting.next("1", Duration::from_hours(1), &stop), async {
        feed.set_working(false);
    });
    assert_eq!(answer, None);
}
