use super::*;

fn of(name: &'static str, value: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_static(value));
    headers
}

#[test]
fn content_types_name_the_layout() {
    for (value, wanted) in [
        ("application/json", Layout::Json),
        ("Application/JSON; Charset=\"UTF-8\"", Layout::Json),
        ("application/x-ndjson", Layout::Lines),
        ("application/ndjson;charset=utf-8", Layout::Lines),
        ("application/jsonl", Layout::Lines),
    ] {
        assert_eq!(layout(&of("content-type", value)).unwrap(), wanted, "{value}");
    }
    for value in ["text/json", "application/json; charset=latin1", "multipart/form-data", "json"] {
        assert!(layout(&of("content-type", value)).is_err(), "{value}");
    }
    assert_eq!(layout(&HeaderMap::new()).unwrap(), Layout::Json);
}

#[test]
fn only_one_packing_is_unpacked() {
    for (value, wanted) in [
        ("gzip", Coding::Gzip),
        ("x-gzip", Coding::Gzip),
        ("ZSTD", Coding::Zstd),
        ("identity", Coding::Identity),
        ("identity, zstd ,identity", Coding::Zstd),
    ] {
        assert_eq!(coding(&of("content-encoding", value)).unwrap(), wanted, "{value}");
    }
    for value in ["br", "gzip, gzip", "gzip, zstd", "deflate"] {
        assert!(coding(&of("content-encoding", value)).is_err(), "{value}");
    }
    let mut twice = of("content-encoding", "gzip");
    twice.append("content-encoding", HeaderValue::from_static("gzip"));
    assert!(coding(&twice).is_err(), "two headers are one list");
}

#[tokio::test]
async fn a_body_that_pauses_is_told_from_one_that_breaks_off() {
    let read_failing = async |error: Box<dyn Error + Send + Sync>| {
        let pieces = [Ok(Bytes::from_static(b"half")), Err(error)];
        let mut held = crate::budget::Budget::new(100, prometheus_client::metrics::gauge::Gauge::default()).hold();
        read(&mut Body::from_stream(futures::stream::iter(pieces)), 100, &mut held).await
    };
    let paused = BodyIdle::Paused(Duration::from_secs(1));
    assert_eq!(read_failing(paused.into()).await, Err(BodyFault::Paused));
    assert_eq!(read_failing("reset by peer".into()).await, Err(BodyFault::CutOff));
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    // Always another empty piece, never the end; yielding lets the clock be looked at.
    let drip = futures::stream::unfold((), async |()| {
        tokio::task::yield_now().await;
        Some((Ok::<_, std::io::Error>(Bytes::new()), ()))
    });
    let mut held = crate::budget::Budget::new(100, prometheus_client::metrics::gauge::Gauge::default()).hold();
    assert_eq!(
        read_within(Duration::from_millis(20), &mut Body::from_stream(drip), 100, &mut held).await,
        Err(BodyFault::Paused)
    );
}
