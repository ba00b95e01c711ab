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
