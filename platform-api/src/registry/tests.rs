use super::*;

fn repository(name: &str, actions: &[Action]) -> Asked {
    Asked::Repository {
        name: name.to_owned(),
        actions: actions.to_vec(),
    }
}

#[test]
fn scopes_are_read_as_the_specification_writes_them() {
    use Action::{Delete, Pull, Push};
    for (scope, expected) in [
        (
            "repository:acme/payments:pull,push",
            Some(repository("acme/payments", &[Pull, Push])),
        ),
        (
            "repository:acme/payments:push,push,fly",
            Some(repository("acme/payments", &[Push])),
        ),
        (
            "repository(plugin):acme/x:*",
            Some(repository("acme/x", &[Pull, Push, Delete])),
        ),
        ("registry:catalog:*", Some(Asked::Catalog)),
        ("repository:../x:pull", None),
        ("repository:Acme/x:pull", None),
        ("repository:acme//x:pull", None),
        ("repository:acme", None),
        ("planet:earth:pull", None),
        ("", None),
    ] {
        assert_eq!(parse_scope(scope), expected, "{scope}");
    }
}

#[test]
fn requests_are_read_with_what_they_mount() {
    use Action::{Delete, Pull, Push};
    for (method, uri, expected) in [
        ("GET", "/v2/", Some(vec![Asked::Ping])),
        ("GET", "/v2/_catalog?n=5", Some(vec![Asked::Catalog])),
        ("HEAD", "/v2/acme/x/manifests/v1", Some(vec![repository("acme/x", &[Pull])])),
        ("PUT", "/v2/acme/x/manifests/v1", Some(vec![repository("acme/x", &[Push])])),
        (
            "DELETE",
            "/v2/acme/x/blobs/sha256:1",
            Some(vec![repository("acme/x", &[Delete])]),
        ),
        (
            "GET",
            "/v2/acme/blobs/x/tags/list",
            Some(vec![repository("acme/blobs/x", &[Pull])]),
        ),
        (
            "POST",
            "/v2/acme/x/blobs/uploads/?mount=sha256:1&from=globex%2Fy",
            Some(vec![repository("acme/x", &[Push]), repository("globex/y", &[Pull])]),
        ),
        ("POST", "/v2/acme/x/blobs/uploads/?mount=sha256:1&from=..", None),
        ("GET", "/v2/acme/x", None),
        ("GET", "/api/v1/auth/me", None),
        ("GET", "/v2/../../etc/manifests/x", None),
    ] {
        assert_eq!(parse_request(method, uri), expected, "{method} {uri}");
    }
}

#[test]
fn the_first_part_of_a_name_is_its_place() {
    for (name, namespace, image) in [
        ("org/payments", "mcp-servers-org", "payments"),
        ("public/payments/debug", "mcp-servers-public", "payments"),
        ("acme/payments", "mcp-team-acme", "payments"),
        ("mcp-team-acme/payments", "mcp-team-acme", "payments"),
        ("mcp-servers/payments", "mcp-servers", "payments"),
        ("acme", "mcp-team-acme", ""),
    ] {
        assert_eq!(place(name), (namespace.to_owned(), image), "{name}");
    }
}
