//! The API server asks before it takes objects in, and believes the operator by a certificate that nobody had to provide.

use operator::object::{Kind, text};
use serde_json::{Value, json};

use crate::harness::{OWN_POLICIES, World, grant, guide, session, wait};

/// The configurations, with the operator's address in place of its Service.
fn configurations(url: &str) -> String {
    let mut configurations = operator::webhook::configurations();
    for configuration in &mut configurations {
        let hook = &mut configuration["webhooks"][0];
        let path = text(hook, "/clientConfig/service/path").to_owned();
        hook["clientConfig"] = json!({ "url": format!("{url}{path}") });
        // Here a silent webhook is a fault of the test.
        hook["failurePolicy"] = json!("Fail");
    }
    operator::print::yaml(&configurations)
}

fn bundles(world: &World) -> Vec<String> {
    ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"]
        .map(|kind| {
            let get = [
                "get",
                kind,
                operator::webhook::NAME,
                "-o=jsonpath={.webhooks[0].clientConfig.caBundle}",
            ];
            world.cluster.kubectl(&get, "").unwrap_or_default()
        })
        .into()
}

fn forget(world: &World) {
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let delete = ["delete", "--ignore-not-found", kind, operator::webhook::NAME];
        world.cluster.kubectl(&delete, "").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_cannot_see_is_refused_and_what_is_left_out_is_filled_in() {
    const NAMESPACE: &str = "op-webhooks";
    let Some(world) = World::new(NAMESPACE).await else { return };
    if !world.cluster.is_ours() {
        println!("skipped: this cluster cannot reach webhooks on this machine");
        return;
    }
    forget(&world);
    // Before the operator: it is told of them when it looks, whichever was there first.
    let operator = world.operator(&[OWN_POLICIES]).await;
    world.apply(&configurations(&operator.policies));
    operator.stop().await;
    let operator = world.operator(&[OWN_POLICIES]).await;
    world.apply(&configurations(&operator.policies));
    wait("both configurations to have an authority", || async {
        bundles(&world).iter().all(|bundle| !bundle.is_empty()).then_some(())
    })
    .await;
    // The API server takes a moment to take in its own configuration.
    wait("webhooks to be asked", || async {
        let bare = guide(NAMESPACE)
            .replace("  port: 8088\n", "")
            .replace("  publicPathPrefix: payments\n", "");
        world.try_apply(&bare).ok()?;
        let server = world.get(Kind::Server, "payments").await?;
        (server["spec"]["publicPathPrefix"] == "payments" && server["spec"]["servicePort"] == 80).then_some(())
    })
    .await;
    let refused = |what: &str, yaml: &str, words: &str| {
        let said = world.try_apply(yaml).expect_err(what);
        assert!(said.contains(words), "{what}: {said}");
    };
    wait("the server to be known", || async {
        let rival = guide(NAMESPACE).replace("name: payments", "name: zz-rival");
        world.try_apply(&rival).err().filter(|said| said.contains("claimed it first"))
    })
    .await;
    refused(
        "a request above its limit",
        &(guide(NAMESPACE) + "  resources: {limits: {cpu: 100m}, requests: {cpu: 200m}}\n"),
        "is more than its limit",
    );
    let condition =
        grant(NAMESPACE, "cursor", "payments") + "  toolRules: [{name: pay, decision: allow, when: 'arguments.amount <'}]\n";
    refused("a condition that is none", &condition, "when of the rule");
    world.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: op-webhooks-foreign}\n");
    let foreign = session("op-webhooks-foreign", "mine", "payments")
        .replace("{name: payments}", "{name: payments, namespace: op-webhooks}");
    refused(
        "a session from elsewhere",
        &foreign,
        "does not admit namespace op-webhooks-foreign",
    );

    world.apply(&session(NAMESPACE, "ada", "payments"));
    world
        .edit(Kind::Session, "ada", &json!({ "spec": { "revoked": true } }))
        .await;
    let revoked: Value = world.get(Kind::Session, "ada").await.unwrap();
    assert!(text(&revoked, "/spec/revokedAt").starts_with("20"), "{revoked:#}");
    forget(&world);
    world.clean().await;
    operator.stop().await;
}
