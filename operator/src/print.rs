//! What the operator prints instead of running: the YAML that `deploy/` holds.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::args::Command;
use crate::rbac;

/// Prints what a command asks for.
pub fn print(command: Command) -> ExitCode {
    let text = match command {
        Command::Crds => crds(),
        Command::Rbac => yaml(&rbac::objects()),
        Command::Webhooks => yaml(&crate::webhook::configurations()),
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads on.
        Err(_) => ExitCode::FAILURE,
    }
}

/// The definitions of the custom resources, as YAML.
pub fn crds() -> String {
    let definitions = ::crds::cluster::definitions();
    let definitions: Vec<_> = definitions
        .iter()
        .map(|definition| serde_json::to_value(definition).unwrap_or_default())
        .collect();
    yaml(&definitions)
}

/// Objects as one YAML text.
pub fn yaml(objects: &[serde_json::Value]) -> String {
    let documents = objects
        .iter()
        .map(|object| serde_saphyr::to_string(object).unwrap_or_default());
    documents.fold(String::new(), |text, document| text + "---\n" + &document)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_roles_in_deploy_are_these() {
        let is_same = super::yaml(&crate::rbac::objects()) == include_str!("../../deploy/operator/rbac.yaml");
        assert!(
            is_same,
            "run `mcp-operator rbac > deploy/operator/rbac.yaml`, and review what changed"
        );
    }

    #[test]
    fn the_definitions_in_deploy_are_these() {
        let kept = include_str!("../../deploy/crds/mcpruntime.org.yaml");
        let is_same = super::crds() == kept;
        assert!(
            is_same,
            "run `mcp-operator crds > deploy/crds/mcpruntime.org.yaml`, and review what changed"
        );
    }
}
