//! One broker and one engine for everybody, and what is between them and the processes.

use std::sync::Arc;

use clickhouse_service::Engine;
use kafka_service::Cluster;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::proxy::Proxy;

/// What the tests of this process share. The test that starts first waits for it.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) kafka: Cluster,
    pub(crate) engine: Engine,
    /// Between the broker and every process.
    pub(crate) network: Proxy,
}

impl Backends {
    /// Starts a broker behind a proxy, and an engine; `None`, and told, where there is none to start.
    pub(crate) async fn start() -> Option<Arc<Self>> {
        if !clickhouse_service::available() {
            return None;
        }
        let network = Proxy::bind(0);
        let address = network.address;
        let kafka = tokio::task::spawn_blocking(move || Cluster::start_behind(address));
        let engine = tokio::task::spawn_blocking(Engine::start);
        let (kafka, engine) = (kafka.await.expect("a broker"), engine.await.expect("an engine"));
        network.lead_to(kafka.behind_proxy());
        Some(Arc::new(Self { kafka, engine, network }))
    }

    /// Those of all tests that leave them alone. They end with the process.
    pub(crate) async fn shared() -> Option<Arc<Self>> {
        static SHARED: OnceCell<Option<Arc<Backends>>> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await.clone()
    }

    /// Rows of an SQL statement, asked past every proxy.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<Vec<Value>>, String> {
        self.rows_in("default", sql).await
    }

    /// The same, where tables without a database are those of this one.
    pub(crate) async fn rows_in(&self, database: &str, sql: &str) -> Result<Vec<Vec<Value>>, String> {
        let url = format!("{}/?database={database}&default_format=JSONCompactEachRow", self.engine.url());
        let sent = super::http(super::DEADLINE).post(url).body(sql.to_owned()).send().await;
        let answer = sent.map_err(|error| error.to_string())?;
        let well = answer.status().is_success();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if !well {
            return Err(text);
        }
        let rows = text
            .lines()
            .map(|line| serde_json::from_str(line).map_err(|error| format!("{error}: {line}")));
        rows.collect()
    }
}
