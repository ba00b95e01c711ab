use serde_json::json;

use super::*;

fn config(groups: &[&str]) -> OidcConfig {
    OidcConfig {
        issuer: Issuer::new("https://id.example.com").unwrap(),
        client_id: "mcp".to_owned(),
        client_secret: Some(ClientSecret::new("hush")),
        scopes: vec!["openid".to_owned()],
        groups_claim: "groups".to_owned(),
        groups: groups.iter().map(|text| GroupRule::parse(text).unwrap()).collect(),
        redirects: vec!["https://mcp.example.com/auth/callback".to_owned()],
    }
}

fn person(claims: &Value, nonce: Option<&str>) -> Result<Person, PersonFault> {
    let config = config(&["devs=team:acme", "leads=team:acme:owner", "cn=ops,dc=x=admin"]);
    Person::of(&config, claims.as_object().unwrap(), nonce, 10_000)
}

#[test]
fn an_address_counts_only_when_the_provider_says_it_is_theirs() {
    for (verified, expected) in [
        (json!(true), Some("ada@example.com")),
        (json!("true"), Some("ada@example.com")),
        (json!(false), None),
        (json!(null), None),
    ] {
        let claims = json!({"sub": "1", "nonce": "n", "email": "ada@example.com", "email_verified": verified});
        assert_eq!(person(&claims, Some("n")).unwrap().email.as_deref(), expected, "{verified}");
    }
}

#[test]
fn a_token_of_another_login_client_or_time_is_none() {
    let claims = json!({"sub": "1", "nonce": "n", "iat": 9_000});
    assert_eq!(person(&claims, Some("other")), Err(PersonFault::Nonce));
    assert_eq!(person(&claims, None), Err(PersonFault::Old));
    assert!(person(&json!({"sub": "1", "iat": 9_500}), None).is_ok());
    assert_eq!(
        person(&json!({"sub": "1", "iat": 9_500, "azp": "other"}), None),
        Err(PersonFault::Party)
    );
    assert_eq!(person(&json!({"iat": 9_500}), None), Err(PersonFault::Nobody));
}

#[test]
fn groups_give_roles_and_teams_once_each() {
    let claims = json!({"sub": "1", "nonce": "n", "groups": ["devs", "leads", "cn=ops,dc=x", "others"]});
    let mapped = person(&claims, Some("n")).unwrap().mapped;
    assert!(mapped.admin);
    assert_eq!(mapped.teams, [("acme".to_owned(), TeamRole::Owner)]);
    assert!(
        person(&json!({"sub": "1", "nonce": "n", "groups": "others"}), Some("n"))
            .unwrap()
            .mapped
            .is_empty()
    );
    for wrong in [
        "devs",
        "=admin",
        "devs=team",
        "devs=team:",
        "devs=team:acme:king",
        "devs=root",
    ] {
        assert!(GroupRule::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_login_returns_to_known_pages_and_ones_own_machine() {
    let redirects = config(&[]).redirects;
    for fine in [
        "https://mcp.example.com/auth/callback",
        "http://127.0.0.1:49152/callback",
        "http://[::1]:49152/",
        "http://localhost/cb",
    ] {
        assert!(may_return_to(&redirects, fine), "{fine}");
    }
    for wrong in [
        "https://mcp.example.com/other",
        "http://mcp.example.com/auth/callback",
        "https://127.0.0.1/callback",
        "http://127.0.0.1@evil.example/callback",
        "http://x@127.0.0.1/callback",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.1/callback#x",
        "callback",
    ] {
        assert!(!may_return_to(&redirects, wrong), "{wrong}");
    }
}

#[test]
fn what_a_flow_stands_for_differs_and_fits_the_challenge() {
    let flow = Flow::of("mcpd_secret");
    assert_eq!(flow.verifier.len(), 43);
    assert_ne!(flow.state, flow.nonce);
    assert_ne!(Flow::of("mcpd_other").state, flow.state);
    assert_eq!(flow.challenge(), hashed(&flow.verifier));
    assert!(!format!("{:?}", config(&[])).contains("hush"));
}
