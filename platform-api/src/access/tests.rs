use super::*;

const SECRET: &str = "s3cr3t-of-forty-random-characters-or-so";

fn access(open_loopback: OpenLoopback) -> StaticAccess {
    let key = ServiceKey::of_secret(
        "grafana",
        SECRET,
        Scope::Only {
            namespaces: vec!["acme".to_owned()],
            teams: vec![],
        },
        false,
    );
    StaticAccess::new(vec![key], open_loopback, vec!["http://localhost:5173".to_owned()])
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn ask(access: &StaticAccess, peer: &str, pairs: &[(&'static str, &str)]) -> Result<String, Denied> {
    let headers = headers(pairs);
    access
        .decide(Credentials {
            headers: &headers,
            peer: Some(peer.parse().unwrap()),
        })
        .map(|caller| caller.name)
}

const LOCAL: &str = "127.0.0.1:50000";

#[test]
fn local_callers_are_administrators_only_when_told_and_only_from_here() {
    let open = access(OpenLoopback::Yes);
    for host in [
        "127.0.0.1",
        "127.0.0.1:8085",
        "localhost",
        "LOCALHOST:1",
        "[::1]",
        "[::1]:8085",
    ] {
        assert_eq!(ask(&open, LOCAL, &[("host", host)]), Ok("local".to_owned()), "{host}");
    }
    assert_eq!(
        ask(&open, "[::ffff:127.0.0.1]:1", &[("host", "localhost")]),
        Ok("local".to_owned())
    );
    assert_eq!(ask(&open, "10.0.0.7:50000", &[("host", "localhost")]), Err(Denied::Missing));
    assert_eq!(
        ask(&open, LOCAL, &[("host", "localhost"), ("x-forwarded-for", "10.0.0.7")]),
        Err(Denied::Missing)
    );
    assert_eq!(
        ask(&access(OpenLoopback::No), LOCAL, &[("host", "localhost")]),
        Err(Denied::Missing)
    );
}

#[test]
fn a_page_that_rebinds_its_name_is_refused() {
    let open = access(OpenLoopback::Yes);
    for host in [
        "evil.example",
        "evil.example:8085",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost:80:90",
        "[::1].evil",
        "",
        "127.0.0.1:",
        "localhost@evil",
    ] {
        assert_eq!(ask(&open, LOCAL, &[("host", host)]), Err(Denied::ForeignHost), "{host}");
        assert_eq!(
            ask(&open, LOCAL, &[("host", host), ("x-api-key", SECRET)]),
            Err(Denied::ForeignHost),
            "{host}"
        );
    }
    assert_eq!(ask(&open, LOCAL, &[]), Err(Denied::ForeignHost));
}

#[test]
fn a_page_of_another_origin_is_refused() {
    let open = access(OpenLoopback::Yes);
    for (origin, good) in [
        ("http://localhost:8085", true),
        ("http://localhost:5173", true),
        ("http://localhost:3000", false),
        ("https://evil.example", false),
        ("null", false),
        ("http://127.0.0.1:8085", false),
    ] {
        let answer = ask(&open, LOCAL, &[("host", "localhost:8085"), ("origin", origin)]);
        assert_eq!(answer.is_ok(), good, "{origin}: {answer:?}");
    }
}

#[test]
fn a_picture_in_another_page_is_refused() {
    let open = access(OpenLoopback::Yes);
    for (site, good) in [
        ("none", true),
        ("same-origin", true),
        ("same-site", false),
        ("cross-site", false),
    ] {
        let answer = ask(&open, LOCAL, &[("host", "localhost:8085"), ("sec-fetch-site", site)]);
        assert_eq!(answer.is_ok(), good, "{site}: {answer:?}");
    }
    let page = [
        ("host", "localhost:8085"),
        ("origin", "http://localhost:5173"),
        ("sec-fetch-site", "same-site"),
    ];
    assert_eq!(ask(&open, LOCAL, &page), Ok("local".to_owned()));
}

#[test]
fn keys_are_taken_from_either_header() {
    let closed = access(OpenLoopback::No);
    let bearer = format!("Bearer {SECRET}");
    assert_eq!(ask(&closed, "10.0.0.7:1", &[("x-api-key", SECRET)]), Ok("grafana".to_owned()));
    assert_eq!(
        ask(&closed, "10.0.0.7:1", &[("authorization", &bearer)]),
        Ok("grafana".to_owned())
    );
    for wrong in ["", "Bearer", "Bearer ", "Basic abc", "Bearer nope", SECRET] {
        assert_eq!(
            ask(&closed, "10.0.0.7:1", &[("authorization", wrong)]).is_ok(),
            wrong == SECRET,
            "{wrong}"
        );
    }
    // A wrong key is never better than none.
    assert_eq!(
        ask(
            &access(OpenLoopback::Yes),
            LOCAL,
            &[("host", "localhost"), ("x-api-key", "nope")]
        ),
        Err(Denied::Unknown)
    );
}

#[test]
fn lines_of_keys_say_what_is_wrong() {
    let hash = "0".repeat(64);
    let line = |rest: &str| ServiceKey::parse(&format!("grafana sha256:{hash} {rest}"));
    assert!(line("admin").unwrap().admin);
    assert_eq!(
        line("namespaces=a,b teams=t").unwrap().scope,
        Scope::Only {
            namespaces: vec!["a".to_owned(), "b".to_owned()],
            teams: vec!["t".to_owned()]
        }
    );
    for nothing in ["", "namespaces=", "everything", "admin namespaces=a"] {
        assert_eq!(line(nothing), Err(ServiceKeyError::Scope), "{nothing}");
    }
    assert_eq!(ServiceKey::parse("grafana"), Err(ServiceKeyError::Shape));
    assert_eq!(ServiceKey::parse("grafana md5:00 admin"), Err(ServiceKeyError::Hash));
    assert!(!format!("{:?}", access(OpenLoopback::No)).contains("sha256"));
}

#[test]
fn local_callers_may_be_let_look_and_no_more() {
    let reading = access(OpenLoopback::Reading);
    let headers = HeaderMap::from_iter([(header::HOST, "localhost".parse().unwrap())]);
    let peer = Some(LOCAL.parse().unwrap());
    let credentials = Credentials { headers: &headers, peer };
    let caller = reading.decide(credentials).unwrap();
    assert!(caller.admin && caller.scope == Scope::All);
    assert_eq!((caller.has(Right::Read), caller.has(Right::Write)), (true, false));
    let page = [("host", "127.0.0.1"), ("origin", "https://example.com")];
    assert_eq!(ask(&reading, LOCAL, &page), Err(Denied::ForeignOrigin));
    assert_eq!(ask(&reading, "10.0.0.7:1", &[("host", "localhost")]), Err(Denied::Missing));
}
