use super::*;
use crate::routes::ROUTES;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn route(path: &str) -> &'static Route {
    ROUTES.iter().find(|route| route.path == path).unwrap()
}

fn read(path: &str, query: &str) -> Result<Params, Problem> {
    Params::read(route(path), Some(query), NOW)
}

fn caller(scope: Scope) -> Caller {
    Caller {
        name: "test".to_owned(),
        scope,
        admin: false,
        rights: Vec::new(),
        namespaces: None,
        principal: None,
    }
}

#[test]
fn times_are_relative_or_exact() {
    for (text, ago) in [
        ("15m", 900),
        ("2h", 7_200),
        ("7d", 604_800),
        ("90s", 90),
        ("now", 0),
        ("2027-01-15T08:00:00Z", 0),
        ("2027-01-15T09:00:00%2B01:00", 0),
        ("2027-01-15T09:00:00+01:00", 0),
    ] {
        let params = read("/api/v1/events", &format!("since={text}")).unwrap();
        assert_eq!(params.time("since"), Some(NOW.minus(Duration::from_secs(ago))), "{text}");
    }
    for text in ["yesterday", "15", "-15m", "15x", "2027-01-15", "1800000000"] {
        let problem = read("/api/v1/events", &format!("since={text}")).unwrap_err();
        assert_eq!(
            (problem.status.as_u16(), problem.code),
            (400, "invalid_query_param"),
            "{text}"
        );
    }
}

#[test]
fn empty_and_future_windows_are_refused() {
    for query in ["since=1h&until=2h", "since=1h&until=1h", "since=2030-01-01T00:00:00Z"] {
        assert!(read("/api/v1/events", query).unwrap().open_window().is_err(), "{query}");
    }
    let params = read("/api/v1/events", "since=2h&until=1h").unwrap();
    let hour = Duration::from_hours(1);
    assert_eq!(
        params.open_window().unwrap(),
        (Some(NOW.minus(hour * 2)), Some(NOW.minus(hour)))
    );
    assert_eq!(
        read("/api/v1/events", "").unwrap().window(hour).unwrap(),
        (NOW.minus(hour), NOW)
    );
}

#[test]
fn each_wrong_parameter_says_what_would_be_right() {
    let mut seen = Vec::new();
    for (path, query) in [
        ("/api/v1/events", "limit=0"),
        ("/api/v1/events", "limit=1001"),
        ("/api/v1/events", "limit=ten"),
        ("/api/v1/events", "limit=1&limit=2"),
        ("/api/v1/events", "servr=a"),
        ("/api/v1/events", "tool_nam=a"),
        ("/api/v1/events", "xyzzy=a"),
        ("/api/v1/events", "order=oldest"),
        ("/api/v1/events", "outcome=fine"),
        ("/api/v1/events", "decision=maybe"),
        ("/api/v1/events", "status=many"),
        ("/api/v1/events", "status=70000"),
        ("/api/v1/events", "rpc_code=x"),
        ("/api/v1/events", "trace_id=00"),
        ("/api/v1/events", "id=7"),
        ("/api/v1/events", "since=soon"),
        ("/api/v1/analytics/series", "metric=call"),
        ("/api/v1/analytics/series", "step=0s"),
        ("/api/v1/analytics/series", "top=51"),
        ("/api/v1/analytics/usage", "window_days=366"),
        ("/api/v1/analytics/export", "format=xlsx"),
        ("/api/v1/sentinel/logs/{component}", "follow=yes"),
        ("/api/v1/sentinel/logs/{component}", "tool_name=a"),
        ("/api/v1/sentinel/dlq", "after=-1"),
    ] {
        let problem = read(path, query).expect_err(query);
        assert_eq!(
            (problem.status.as_u16(), problem.code),
            (400, "invalid_query_param"),
            "{query}"
        );
        let hint = problem.hint.map(|hint| format!("\n  {hint}")).unwrap_or_default();
        seen.push(format!("{query}\n  {}{hint}", problem.message));
    }
    insta::assert_snapshot!(seen.join("\n"));
}

#[test]
fn filters_take_many_values_and_each_column() {
    let all: Vec<_> = COLUMNS.iter().map(|column| format!("{}=", column.name)).collect();
    let filter = read("/api/v1/events", &all.join("&"))
        .unwrap()
        .filter(&caller(Scope::All))
        .unwrap();
    assert_eq!(filter.equals.len(), COLUMNS.len());
    let filter = read("/api/v1/events", "tool=a&server=x&tool_name=b&TRACE=")
        .err()
        .map(|problem| problem.hint.unwrap());
    assert_eq!(
        filter.as_deref(),
        Some("the parameters of each path are in /api/v1/openapi.json")
    );
    let filter = read(
        "/api/v1/events",
        "tool=a&server=x&tool_name=b&trace_id=0AF7651916CD43DD8448EB211C80319C",
    )
    .unwrap()
    .filter(&caller(Scope::All))
    .unwrap();
    let expected = [
        ("tool_name", vec!["a", "b"]),
        ("server", vec!["x"]),
        ("trace_id", vec!["0af7651916cd43dd8448eb211c80319c"]),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect::<Vec<_>>()))
        .collect();
    assert_eq!(filter.equals, expected);
}

#[test]
fn another_namespace_is_refused_and_teams_may_be_anywhere() {
    let scope = |teams: &[&str]| Scope::Only {
        namespaces: vec!["acme".to_owned()],
        teams: teams.iter().map(|team| (*team).to_owned()).collect(),
    };
    let params = read("/api/v1/events", "namespace=acme&namespace=globex").unwrap();
    assert_eq!(params.filter(&caller(scope(&[]))).unwrap_err().code, "forbidden_namespace");
    assert_eq!(params.filter(&caller(scope(&["t1"]))).unwrap().scope, scope(&["t1"]));
    let own = read("/api/v1/events", "namespace=acme").unwrap();
    assert_eq!(own.filter(&caller(scope(&[]))).unwrap().scope, scope(&[]));
}

#[test]
fn questions_are_the_same_in_any_order_and_links_keep_everything() {
    let one = read("/api/v1/events", "server=a%26b&since=15m&limit=5&cursor=x").unwrap();
    let other = read("/api/v1/events", "since=15m&server=a%26b").unwrap();
    assert_eq!(one.question(), other.question());
    assert_eq!(one.link("/p", "cursor", "y"), "/p?server=a%26b&since=15m&limit=5&cursor=y");
}

#[test]
fn sizes_are_bounded() {
    assert!(read("/api/v1/events", &format!("server={}", "a".repeat(5_000))).is_err());
    assert!(read("/api/v1/events", &"server=a&".repeat(200)).is_err());
}
