//! `kubectl`, for commands that ask a cluster itself.
//!
//! People have it, set up for their clusters, with the plugins by which they log in; a client of our own would know less. What it prints
//! as JSON is read, what it complains about is passed on.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fault::{Exit, Fault};

/// Asks for JSON.
pub(crate) fn json(args: &[&str]) -> Result<Value, Fault> {
    let text = run(&[args, &["-o", "json"]].concat())?;
    serde_json::from_str(&text).map_err(|error| Fault::new(Exit::Failed, "reading what kubectl printed").caused_by(&error))
}

/// Runs it, and gives what it printed.
fn run(args: &[&str]) -> Result<String, Fault> {
    let output = Command::new("kubectl")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refused(&String::from_utf8_lossy(&output.stderr)))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn missing(error: std::io::Error) -> Fault {
    Fault::new(Exit::Failed, "running kubectl")
        .caused_by(&error)
        .hint("install kubectl, and see that it is in PATH")
}

fn refused(complaint: &str) -> Fault {
    let text = complaint.trim();
    let exit = if text.contains("(NotFound)") {
        Exit::NotFound
    } else if text.contains("(Forbidden)") || text.contains("(Unauthorized)") || text.contains("must be logged in") {
        Exit::NotAllowed
    } else if text.contains("(Conflict)") || text.contains("(AlreadyExists)") {
        Exit::Conflict
    } else {
        Exit::Failed
    };
    let fault = Fault::new(exit, format!("kubectl says: {}", crate::text::safe(text)));
    if text.contains("connection refused") || text.contains("was refused") || text.contains("no configuration") {
        return fault.hint("choose a cluster: kubectl config get-contexts, or set KUBECONFIG");
    }
    if text.contains("doesn't have a resource type") || text.contains("no matches for kind") {
        return fault.hint("install the custom resources: mcp-operator crds | kubectl apply --server-side -f -");
    }
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_become_exit_codes_and_advice() {
        for (complaint, exit, hint) in [
            ("Error from server (NotFound): mcpservers \"x\" not found", Exit::NotFound, ""),
            ("Error from server (Forbidden): no", Exit::NotAllowed, ""),
            (
                "The connection to the server localhost:8080 was refused",
                Exit::Failed,
                "choose a cluster",
            ),
            (
                "error: the server doesn't have a resource type \"mcpservers\"",
                Exit::Failed,
                "install the custom resources",
            ),
        ] {
            let fault = refused(complaint);
            assert_eq!(fault.exit, exit, "{complaint}");
            assert!(fault.to_string().contains(hint), "{fault}");
        }
    }
}
