//! The catalogue of tools: what is declared, beside what gateways saw servers list.

use domain::inventory::{EVENT_TYPE, Inventory, ListedTool};
use domain::policy::SideEffect;
use serde_json::{Value, json};

use crate::control::{Platform, server};
use crate::world::event;

/// What a gateway tells once it has seen the server's list.
async fn listed(platform: &Platform, at: u64, names: &[&str]) {
    let inventory = Inventory {
        tools: names
            .iter()
            .map(|name| ListedTool {
                name: (*name).to_owned(),
                hash: "ab".to_owned(),
                hint: name.contains("delete").then_some(SideEffect::Destructive),
            })
            .collect(),
        is_complete: true,
    };
    let mut event = event(at, 600 - at);
    EVENT_TYPE.clone_into(&mut event.event_type);
    event.payload.namespace = Some("mcp-team-acme".to_owned());
    event.payload.tool_name = None;
    event.payload.attributes = inventory.to_attributes();
    platform.world.store.insert(event).await;
}

fn drifts(answer: &Value) -> Vec<(&str, &str)> {
    let tools = answer["tools"].as_array().unwrap();
    let text = |tool: &'_ Value, name: &str| -> &str { tool[name].as_str().unwrap().to_owned().leak() };
    tools
        .iter()
        .map(|tool| (text(tool, "tool_name"), text(tool, "drift_status")))
        .collect()
}

#[tokio::test]
async fn declared_tools_are_compared_with_what_the_gateway_saw() {
    let platform = Platform::new().await;
    let ada = platform.person("ada@example.com", &[("acme", "owner")]).await;
    let eve = platform.person("eve@example.com", &[("globex", "owner")]).await;
    platform
        .done("POST", "/api/v1/runtime/servers", &ada, server("payments"))
        .await;
    let get = async |query: &str| {
        platform
            .done("GET", &format!("/api/v1/runtime/tools{query}"), &ada, Value::Null)
            .await
    };
    let before = get("").await;
    assert_eq!(
        drifts(&before),
        [("list_invoices", "declared"), ("refund_invoice", "declared")]
    );
    assert!(before["tools"][0].get("live").is_none(), "nobody has looked yet: {before}");
    listed(&platform, 1, &["list_invoices", "refund_invoice"]).await;
    listed(&platform, 2, &["list_invoices", "delete_invoice"]).await;
    let after = get("").await;
    assert_eq!(
        drifts(&after),
        [
            ("delete_invoice", "ungoverned"),
            ("list_invoices", "declared"),
            ("refund_invoice", "missing")
        ]
    );
    let (hidden, refund) = (&after["tools"][0], &after["tools"][2]);
    assert_eq!(
        (
            &hidden["declared"],
            &hidden["suggested_side_effect"],
            hidden.get("risk_level")
        ),
        (&json!(false), &json!("destructive"), None)
    );
    assert_eq!((&refund["risk_level"], &refund["live"]), (&json!("high"), &json!(false)));
    assert_eq!(drifts(&get("?drift=missing").await), [("refund_invoice", "missing")]);
    assert_eq!(drifts(&get("?q=REFUND&risk=high").await), [("refund_invoice", "missing")]);
    assert_eq!(drifts(&get("?side_effect=write").await), []);
    let page = get("?limit=2").await;
    let rest = platform.done("GET", page["next"].as_str().unwrap(), &ada, Value::Null).await;
    assert_eq!((drifts(&rest), rest.get("next")), (vec![("refund_invoice", "missing")], None));
    let others = platform.done("GET", "/api/v1/runtime/tools", &eve, Value::Null).await;
    assert_eq!(drifts(&others), []);
}
