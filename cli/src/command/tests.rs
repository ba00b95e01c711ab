use clap::CommandFactory as _;

use crate::args::Cli;

#[test]
fn every_command_that_does_something_shows_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let leaf = command.get_subcommands().next().is_none();
        assert!(!leaf || command.get_after_help().is_some(), "{path} has no example");
        command
            .get_subcommands()
            .filter(|child| child.get_name() != "help")
            .for_each(|child| check(child, &path));
    }
    Cli::command().debug_assert();
    check(&Cli::command(), "");
}

/// The commands of the publishing guide, each as it stands there.
const GUIDE: &str = "
mcp-runtime auth login --api-url https://platform.example.com
mcp-runtime server init payments --scope org --tool list_invoices --tool refund_invoice
mcp-runtime server init payments --scope org --tool list_invoices --tool-spec refund_invoice:high:destructive
mcp-runtime server init payments --force --policy-mode allow-list --default-decision deny --session-required=false
mcp-runtime server validate --metadata-dir .mcp
mcp-runtime server build image payments --tag v1.0.0 --platform linux/amd64
mcp-runtime registry push --scope org --image registry.example.com/org/payments:v1.0.0
mcp-runtime registry push --scope public --image payments:v1.0.0
mcp-runtime registry push --scope tenant --image payments:v1.0.0
mcp-runtime server deploy payments --scope org --metadata-dir .mcp
mcp-runtime server deploy payments --scope org --metadata-dir .mcp --update
mcp-runtime server deploy payments --scope public --image payments --tag v1.0.0
mcp-runtime server generate --metadata-dir .mcp --output manifests/
mcp-runtime server apply --file payments.yaml --use-kube
mcp-runtime server status
mcp-runtime server status --use-kube
mcp-runtime server list
mcp-runtime server get payments
mcp-runtime server delete payments
mcp-runtime server logs payments --follow --use-kube
mcp-runtime server connect-config payments --client claude
mcp-runtime server connect-config payments --client vscode
mcp-runtime access grant init payments-globex-cursor --namespace mcp-team-acme --server payments --team-id t1 --agent-id cursor --tool list_invoices --tool-rule refund_invoice:allow:high --side-effect read --output grant.yaml
mcp-runtime access session init cursor-session --namespace mcp-team-acme --server payments --human-id u1 --agent-id cursor --trust medium --expires-in 1h --output session.yaml
mcp-runtime access grant apply --file grant.yaml
mcp-runtime access session apply --file session.yaml
mcp-runtime adapter stdio --server payments --agent cursor --auto-refresh
mcp-runtime server policy inspect payments
mcp-runtime status
mcp-runtime sentinel status
mcp-runtime sentinel logs gateway --follow
mcp-runtime sentinel logs ingest --follow
mcp-runtime sentinel logs processor --follow
";

#[test]
fn every_command_of_the_publishing_guide_is_understood() {
    for line in GUIDE.lines().filter(|line| !line.is_empty()) {
        let parsed = <Cli as clap::Parser>::try_parse_from(line.split(' '));
        assert!(parsed.is_ok(), "{line}\n{}", parsed.unwrap_err());
    }
}
