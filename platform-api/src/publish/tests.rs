use domain::Timestamp;
use serde_json::json;

use super::*;
use crate::identity::{Account, Membership, Principal, Role, TeamRole};

fn caller(teams: &[(&str, TeamRole)], role: Role) -> Caller {
    let teams = teams.iter().map(|(slug, role)| Membership {
        id: format!("id-{slug}"),
        slug: (*slug).to_owned(),
        name: (*slug).to_owned(),
        namespace: format!("mcp-team-{slug}"),
        role: *role,
    });
    Caller::of_principal(Principal {
        account: Account {
            id: "u1".to_owned(),
            email: "ada@example.com".to_owned(),
            role,
            created_at: Timestamp::default(),
            last_login_at: None,
            disabled_at: None,
        },
        teams: teams.collect(),
        login: None,
    })
}

#[test]
fn the_namespace_follows_from_scope_and_teams() {
    let member = caller(&[("acme", TeamRole::Member)], Role::User);
    let of_two = caller(&[("acme", TeamRole::Member), ("globex", TeamRole::Owner)], Role::User);
    let nobody = caller(&[], Role::User);
    let admin = caller(&[], Role::Admin);
    let said = |caller: &Caller, scope, namespace| {
        target(caller, scope, namespace).unwrap_or_else(|problem| format!("{} {}", problem.status.as_u16(), problem.code))
    };
    for (caller, scope, namespace, expected) in [
        (&member, None, None, "mcp-team-acme"),
        (&member, Some(Scope::Tenant), None, "mcp-team-acme"),
        (&member, Some(Scope::Org), None, "mcp-servers-org"),
        (&member, Some(Scope::Public), None, "mcp-servers-public"),
        (&member, Some(Scope::Org), Some("mcp-team-acme"), "422 invalid"),
        (&member, Some(Scope::Tenant), Some("mcp-servers-org"), "422 invalid"),
        (&member, None, Some("mcp-team-globex"), "403 forbidden_namespace"),
        (&member, None, Some("mcp-servers"), "403 forbidden_namespace"),
        (&of_two, None, None, "422 invalid"),
        (&of_two, None, Some("mcp-team-globex"), "mcp-team-globex"),
        (&nobody, None, None, "422 invalid"),
        (&nobody, Some(Scope::Org), None, "mcp-servers-org"),
        (&admin, None, None, "mcp-servers"),
        (&admin, None, Some("mcp-team-acme"), "mcp-team-acme"),
    ] {
        assert_eq!(said(caller, scope, namespace), expected, "{scope:?} {namespace:?}");
    }
}

#[test]
fn a_confined_key_publishes_only_where_it_works() {
    let member = caller(&[("acme", TeamRole::Member), ("globex", TeamRole::Owner)], Role::User);
    let confined = Caller {
        namespaces: Some(vec!["mcp-team-globex".to_owned()]),
        ..member
    };
    assert_eq!(target(&confined, None, None).unwrap(), "mcp-team-globex");
    assert_eq!(
        target(&confined, None, Some("mcp-team-acme")).unwrap_err().code,
        "forbidden_namespace"
    );
    assert_eq!(
        target(&confined, Some(Scope::Org), None).unwrap_err().code,
        "forbidden_namespace"
    );
}

fn completed(spec: Value) -> Result<Value, Problem> {
    let spec = strict(spec, "spec")?;
    let name = ServerName::parse("payments").unwrap();
    let spec = complete(&name, "mcp-team-acme", Some("t1"), Some("registry.example.com"), spec)?;
    Ok(serde_json::to_value(spec).unwrap())
}

#[test]
fn a_spec_is_completed() {
    let spec =
        completed(json!({"image": "payments", "imageTag": "v1", "envVars": [{"name": "MCP_PATH", "value": "/x"}]})).unwrap();
    assert_eq!(spec["image"], "registry.example.com/acme/payments");
    assert_eq!(spec["publicPathPrefix"], "payments");
    assert_eq!(spec["teamID"], "t1");
    assert_eq!(spec["gateway"]["enabled"], true);
    assert_eq!(spec["envVars"], json!([{"name": "MCP_PATH", "value": "/payments/mcp"}]));
    let kept =
        completed(json!({"image": "ghcr.io/acme/x", "publicPathPrefix": "/pay/", "gateway": {"enabled": false}})).unwrap();
    assert_eq!(
        (&kept["image"], &kept["publicPathPrefix"], &kept["gateway"]["enabled"]),
        (&json!("ghcr.io/acme/x"), &json!("pay"), &json!(false))
    );
    assert!(completed(json!({"gateway": {"enabled": true, "upstreamURL": "http://127.0.0.1:3001/mcp"}})).is_ok());
}

#[test]
fn a_wrong_spec_is_refused_with_what_would_be_right() {
    let tool = |name: &str| json!({"name": name, "sideEffect": "read"});
    for (spec, why) in [
        (json!({}), "neither `image` nor `command`"),
        (json!({"image": "x", "prot": 1}), "unknown field `prot`"),
        (json!({"image": "x", "tools": [{"name": "a"}]}), "missing field `sideEffect`"),
        (json!({"image": "x", "tools": [tool("a"), tool("a")]}), "`a` twice"),
        (json!({"image": "x", "tools": [tool(" ")]}), "`tools[0].name` is empty"),
        (json!({"image": "x", "port": 8091}), "both 8091"),
        (json!({"image": "x", "auth": {"mode": "oauth"}}), "issuerURL"),
        (json!({"image": "x", "auth": {"mode": "mtls"}}), "trustDomain"),
        (json!({"image": "x", "teamID": "other"}), "does not own"),
    ] {
        let problem = completed(spec.clone()).unwrap_err();
        assert!(problem.message.contains(why), "{spec}: {}", problem.message);
    }
    assert_eq!(
        completed(json!({"image": "x", "prot": 1})).unwrap_err().hint.unwrap(),
        "did you mean `port`?"
    );
}
