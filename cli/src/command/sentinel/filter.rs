//! Which events a command is about; the same options on every command that reads events.

use clap::Args;

/// Options that choose events.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which events")]
pub(crate) struct FilterArgs {
    /// From when on: RFC 3339, or how long ago (30s, 15m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Until when, not included; same forms
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only of this namespace
    #[arg(long, short, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Only of this server
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// Only of this tool
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Option<String>,
    /// Only with this outcome: ok, denied, `tool_error`, `rpc_error`, `transport_error`, cancelled, …
    #[arg(long, value_name = "OUTCOME")]
    pub(crate) outcome: Option<String>,
    /// Only with this decision: allow or deny
    #[arg(long, value_name = "DECISION")]
    pub(crate) decision: Option<String>,
    /// Only by this agent
    #[arg(long, value_name = "ID")]
    pub(crate) agent: Option<String>,
    /// Only for this person
    #[arg(long, value_name = "ID")]
    pub(crate) human: Option<String>,
    /// Only of this trace
    #[arg(long, value_name = "ID")]
    pub(crate) trace: Option<String>,
}

impl FilterArgs {
    /// As parameters of the API.
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        let pairs = [
            ("since", &self.since),
            ("until", &self.until),
            ("namespace", &self.namespace),
            ("server", &self.server),
            ("tool_name", &self.tool),
            ("outcome", &self.outcome),
            ("decision", &self.decision),
            ("agent_id", &self.agent),
            ("human_id", &self.human),
            ("trace_id", &self.trace),
        ];
        pairs
            .into_iter()
            .filter_map(|(name, value)| value.clone().map(|value| (name, value)))
            .collect()
    }
}
