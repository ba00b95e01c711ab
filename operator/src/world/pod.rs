//! What a pod says about itself, in the few words that matter.

use serde_json::Value;

use crate::object::{label, text};
use crate::{APP, TRACK};

/// Longest message taken over from a pod, in characters.
const MESSAGE_CHARS_MAX: usize = 512;

/// One pod of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    pub server: String,
    pub name: String,
    /// `stable` or `canary`.
    pub track: String,
    pub is_ready: bool,
    /// Why it is not, when it says so.
    pub trouble: Option<Trouble>,
}

/// What keeps a pod from being ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word of ours.
    pub reason: &'static str,
    /// The pod's own words.
    pub message: String,
}

impl Pod {
    /// Reads a pod as the API server sends it.
    pub fn read(object: &Value) -> Self {
        let is_ready = condition(object, "Ready").is_some_and(|ready| text(ready, "/status") == "True");
        Self {
            server: label(object, APP).to_owned(),
            name: text(object, "/metadata/name").to_owned(),
            track: label(object, TRACK).to_owned(),
            is_ready,
            trouble: if is_ready { None } else { trouble(object) },
        }
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| text(condition, "/type") == kind)
}

fn trouble(object: &Value) -> Option<Trouble> {
    let containers = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let containers = containers
        .iter()
        .filter_map(|list| object.pointer(list)?.as_array())
        .flatten();
    let mut of_containers = containers.filter_map(|container| {
        let name = text(container, "/name");
        let waiting = text(container, "/state/waiting/reason");
        let said = text(container, "/state/waiting/message");
        let reason = match waiting {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "RegistryUnavailable" => {
                "ImagePullFailed"
            }
            "CrashLoopBackOff" => "ContainerCrashing",
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => "ContainerNotStarted",
            _ => {
                let code = container.pointer("/state/terminated/exitCode")?.as_i64()?;
                return (code != 0).then(|| exited(container, name, "/state/terminated"));
            }
        };
        if reason == "ContainerCrashing" && container.pointer("/lastState/terminated").is_some() {
            return Some(exited(container, name, "/lastState/terminated"));
        }
        Some(Trouble {
            reason,
            message: bounded(&format!(
                "container {name}: {waiting}{}{said}",
                if said.is_empty() { "" } else { ": " }
            )),
        })
    });
    let unscheduled = condition(object, "PodScheduled").filter(|scheduled| text(scheduled, "/status") == "False");
    of_containers.next_back().or_else(|| {
        unscheduled.map(|scheduled| Trouble {
            reason: "Unschedulable",
            message: bounded(text(scheduled, "/message")),
        })
    })
}

fn exited(container: &Value, name: &str, state: &str) -> Trouble {
    let code = container
        .pointer(&format!("{state}/exitCode"))
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let (reason, said) = (
        text(container, &format!("{state}/reason")),
        text(container, &format!("{state}/message")),
    );
    let restarts = container.get("restartCount").and_then(Value::as_i64).unwrap_or_default();
    let separator = if said.is_empty() { "" } else { ": " };
    Trouble {
        reason: "ContainerCrashing",
        // The number of restarts grows by itself; saying it exactly would rewrite the status for ever.
        message: bounded(&format!(
            "container {name} ends with exit code {code} ({reason}){}{separator}{}",
            if restarts > 1 { " again and again" } else { "" },
            said.trim()
        )),
    }
}

fn bounded(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &Value) -> Pod {
        Pod::read(&json!({"metadata": {"name": "p", "labels": {"app": "payments", TRACK: "stable"}}, "status": status}))
    }

    #[test]
    fn a_pod_tells_its_own_reason() {
        for (status, reason, words) in [
            (
                json!({"containerStatuses": [{"name": "payments", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}),
                "ImagePullFailed",
                "container payments: ImagePullBackOff: no such image",
            ),
            (
                json!({"containerStatuses": [{"name": "payments", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no port\n"}}}]}),
                "ContainerCrashing",
                "container payments ends with exit code 3 (Error) again and again: no port",
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}),
                "Unschedulable",
                "0/3 nodes are available",
            ),
        ] {
            let trouble = pod(&status).trouble.unwrap();
            assert_eq!((trouble.reason, trouble.message.as_str()), (reason, words));
        }
    }

    #[test]
    fn a_ready_pod_has_no_trouble() {
        let pod = pod(&json!({"conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "x", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}));
        assert!(pod.is_ready && pod.trouble.is_none());
        assert_eq!((pod.server.as_str(), pod.track.as_str()), ("payments", "stable"));
    }
}
