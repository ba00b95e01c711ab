use super::*;

const MANIFESTS: &str = r"
apiVersion: mcpruntime.org/v1alpha1
kind: MCPServer
metadata: {name: payments, namespace: mcp-team-acme}
spec:
  image: payments
  gateway: {enabled: true}
  session: {required: false}
  tools:
    - {name: list_invoices, requiredTrust: low, sideEffect: read}
    - {name: refund_invoice, requiredTrust: high, sideEffect: destructive}
---
apiVersion: mcpruntime.org/v1alpha1
kind: MCPAccessGrant
metadata: {name: cursor-reads, namespace: mcp-team-acme}
spec:
  serverRef: {name: payments}
  subject: {agentID: cursor}
  maxTrust: medium
  allowedSideEffects: [read]
  toolRules:
    - {name: list_invoices, decision: allow}
";

fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), text).unwrap();
    folder
}

fn read(text: &str) -> Inspected {
    Source::Manifests(folder(text).path(), None).read().unwrap()
}

fn fits(text: String) -> String {
    let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    assert!(longest <= 100, "{longest} columns:\n{text}");
    text
}

fn question(words: &[&str]) -> ExplainArgs {
    use clap::Parser as _;
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        explain: ExplainArgs,
    }
    Line::parse_from(["explain"].iter().chain(words)).explain
}

#[test]
fn a_policy_is_shown_with_its_tools_grants_and_sessions() {
    insta::assert_snapshot!(fits(view::inspected(&read(MANIFESTS))));
}

#[test]
fn an_allowed_call_names_the_grant_that_decides() {
    let told = locally(
        &read(MANIFESTS),
        &question(&["--human", "ada", "--agent", "cursor", "--tool", "list_invoices"]),
    )
    .unwrap();
    insta::assert_snapshot!(fits(view::explained(&told)));
}

#[test]
fn a_refused_call_names_the_check_that_stops_it_and_the_nearest_grant() {
    let told = locally(
        &read(MANIFESTS),
        &question(&["--agent", "cursor", "--tool", "refund_invoice"]),
    )
    .unwrap();
    assert_eq!(told.decision, "deny");
    insta::assert_snapshot!(fits(view::explained(&told)));
}

#[test]
fn a_change_tells_who_gains_and_who_loses() {
    let before = read(MANIFESTS);
    let after = read(&MANIFESTS.replace("agentID: cursor", "agentID: claude"));
    let compared = view::Compared::of(&domain::policy::diff(&before.policy, &after.policy, text::now()));
    insta::assert_snapshot!(fits(view::compared(&compared)));
}

#[test]
fn a_table_of_expectations_tells_each_case_that_is_otherwise() {
    let table: Table = serde_saphyr::from_str(
        "cases:\n  - {name: cursor reads, agent: cursor, tool: list_invoices, expect: allow}\n  - {name: claude reads, agent: claude, tool: list_invoices, expect: allow}\n",
    )
    .unwrap();
    let policy = Policy::compile(&read(MANIFESTS).policy);
    let cases: Vec<_> = table
        .cases
        .iter()
        .map(|case| view::Tested::of(case, &case.run(&policy, text::now())))
        .collect();
    insta::assert_snapshot!(fits(view::tested(&cases)));
}

#[test]
fn a_folder_of_several_servers_asks_which_is_meant() {
    let two = format!(
        "{MANIFESTS}---\napiVersion: mcpruntime.org/v1alpha1\nkind: MCPServer\nmetadata: {{name: hr, namespace: mcp-team-acme}}\nspec: {{image: hr}}\n"
    );
    let folder = folder(&two);
    let fault = Source::Manifests(folder.path(), None).read().unwrap_err();
    assert_eq!(fault.exit, Exit::Usage);
    assert!(
        fault.to_string().contains("hr") && fault.to_string().contains("payments"),
        "{fault}"
    );
    assert_eq!(
        Source::Manifests(folder.path(), Some("hr"))
            .read()
            .unwrap()
            .policy
            .server
            .name,
        "hr"
    );
    assert_eq!(
        Source::Manifests(folder.path(), Some("none")).read().unwrap_err().exit,
        Exit::NotFound
    );
}
