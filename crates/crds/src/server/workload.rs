//! How the server runs: environment, amounts of resources, rollout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::SecretKeyRef;
use crate::word::{CanaryAction, RolloutStrategy};

/// Requests and limits of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Most that the container may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
    /// What is set aside for the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
}

/// Amounts of processor time and memory, in Kubernetes' notation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ResourceAmounts {
    /// Processor time, such as `500m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]{1,3})?|[0-9]+m)?$"))]
    pub cpu: Option<String>,
    /// Memory, such as `256Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?)?$"))]
    pub memory: Option<String>,
}

/// One variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 32_768))]
    pub value: String,
}

/// One variable of the environment, from a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretEnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"))]
    pub name: String,
    /// Where its value is.
    pub secret_key_ref: SecretKeyRef,
}

/// How new revisions come in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RolloutSpec {
    /// `RollingUpdate` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RolloutStrategy>,
    /// Most pods missing while rolling, as a number or in percent; `25%` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = r"^([0-9]+%?)?$"))]
    pub max_unavailable: Option<String>,
    /// Most pods too many while rolling, as a number or in percent; `25%` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = r"^([0-9]+%?)?$"))]
    pub max_surge: Option<String>,
    /// How many of the replicas are canaries; fewer than all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub canary_replicas: Option<u32>,
    /// Image of the canary; the server's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^[^ \t\r\n]*$"))]
    pub canary_image: Option<String>,
    /// Image tag of the canary; the server's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$"))]
    pub canary_image_tag: Option<String>,
    /// Percentage of requests that the canary gets; its share of the pods when absent. Exact with NGINX and `httpRoute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub canary_weight: Option<u8>,
    /// What becomes of the canary; `hold` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_action: Option<CanaryAction>,
}

impl RolloutSpec {
    /// How a new revision replaces the old one.
    pub fn strategy(&self) -> RolloutStrategy {
        self.strategy.unwrap_or(RolloutStrategy::RollingUpdate)
    }

    /// What becomes of the canary.
    pub fn canary_action(&self) -> CanaryAction {
        self.canary_action.unwrap_or(CanaryAction::Hold)
    }
}
