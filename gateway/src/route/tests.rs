use http::Uri;

use super::{Route, RouteFault, RouteTable};

fn route(server: &str, upstream: &str) -> Route {
    Route::new(server, "acme", upstream.parse().unwrap())
}

fn target(table: &RouteTable, path: &str) -> Option<String> {
    let uri: Uri = path.parse().unwrap();
    let site = table.find(uri.path())?;
    let address = site.state.upstream.address().to_string();
    Some(format!(
        "{} {}{}",
        site.route.server,
        address.trim_end_matches('/'),
        site.target(&uri)?
    ))
}

#[test]
fn each_prefix_leads_to_its_server_and_nothing_else_does() {
    let table = RouteTable::new(vec![
        route("pay", "http://127.0.0.1:9000/mcp").at("payments"),
        route("git", "https://git.example:8443").at("git"),
    ])
    .unwrap();
    for (path, wanted) in [
        ("/payments/mcp", Some("pay http://127.0.0.1:9000/mcp")),
        ("/payments/mcp?a=1", Some("pay http://127.0.0.1:9000/mcp?a=1")),
        ("/payments/mcp/x/y", Some("pay http://127.0.0.1:9000/mcp/x/y")),
        ("/git/mcp", Some("git https://git.example:8443/")),
        ("/git/mcp/", Some("git https://git.example:8443/")),
        ("/payments", None),
        ("/payments/mcpx", None),
        ("/payments/other", None),
        ("/", None),
        ("/mcp", None),
        ("/Payments/mcp", None),
        ("/payments//mcp", None),
        ("/payments/../git/mcp", None),
    ] {
        assert_eq!(target(&table, path).as_deref(), wanted, "{path}");
    }
}

#[test]
fn a_sidecar_passes_every_path() {
    let table = RouteTable::new(vec![route("pay", "http://127.0.0.1:8088")]).unwrap();
    assert_eq!(
        target(&table, "/mcp?x=%20y").as_deref(),
        Some("pay http://127.0.0.1:8088/mcp?x=%20y")
    );
    assert_eq!(target(&table, "/").as_deref(), Some("pay http://127.0.0.1:8088/"));
    let table = RouteTable::new(vec![route("pay", "http://127.0.0.1:8088/base/")]).unwrap();
    assert_eq!(target(&table, "/mcp").as_deref(), Some("pay http://127.0.0.1:8088/base/mcp"));
}

#[test]
fn routes_that_cannot_work_are_refused_and_the_old_ones_stay() {
    let table = RouteTable::new(vec![route("pay", "http://127.0.0.1:9000").at("payments")]).unwrap();
    for (routes, wanted) in [
        (vec![route("a", "/only/a/path")], "upstream"),
        (vec![route("a", "ftp://host/")], "upstream"),
        (vec![route("a", "http://h").at("a/b")], "prefix"),
        (vec![route("a", "http://h").at("..")], "prefix"),
        (
            vec![route("a", "http://h").at("x"), route("b", "http://h").at("x")],
            "two servers",
        ),
    ] {
        let fault: RouteFault = table.replace(routes).unwrap_err();
        assert!(fault.to_string().contains(wanted), "{fault}");
    }
    assert!(target(&table, "/payments/mcp").is_some());
    table.replace(vec![route("git", "http://h").at("git")]).unwrap();
    assert!(target(&table, "/payments/mcp").is_none() && target(&table, "/git/mcp").is_some());
    assert_eq!(table.routes().len(), 1);
}
