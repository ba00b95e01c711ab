//! A gateway in this process, in front of one server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use domain::policy::Document;
use gateway::{CallerRules, Gateway, GatewayLimits, Recorder, RecorderLimits, Route, RouteTable};
use serde_json::json;
use service_kit::http::bind;
use service_kit::{Running, Tasks};

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A gateway that judges every request and refuses none: the suite names nobody.
#[derive(Debug)]
pub struct Governed {
    /// Where clients call it.
    pub url: String,
    /// What it recorded.
    pub recorder: Recorder,
    _running: Running,
}

impl Governed {
    /// A gateway for the server at this address.
    pub fn start(upstream: &str) -> anyhow::Result<Self> {
        let running = Tasks::for_test();
        let route = Route::new("fixture", "acme", upstream.parse().context("reading the address")?).at("fixture");
        route.policy.apply(policy()?);
        let recorder = Recorder::new(RecorderLimits::default());
        let limits = GatewayLimits {
            callers: CallerRules::of_listener(LOCAL),
            ..GatewayLimits::default()
        };
        let table = RouteTable::new(vec![route])?;
        let gateway = Gateway::new(table, recorder.clone(), limits, &running.tasks());
        let address = gateway::listen(&gateway, bind(LOCAL)?, &running.tasks())?;
        Ok(Self {
            url: format!("http://{address}/fixture/mcp"),
            recorder,
            _running: running,
        })
    }
}

fn policy() -> anyhow::Result<Document> {
    let document = json!({
        "schema_version": "v1",
        "server": {"name": "fixture", "namespace": "acme"},
        "auth": {"mode": "none"},
        "policy": {"mode": "allow-list", "default_decision": "allow"},
    });
    let (document, faults) = Document::parse(document.to_string().as_bytes()).context("reading the policy")?;
    anyhow::ensure!(faults.is_empty(), "{faults:?}");
    Ok(document)
}
