//! The demo: an example MCP server in this process, and callers that keep it busy through the gateway.

use demo_server::client::{Amount, Caller, Traffic};
use service_kit::{Stage, Tasks};

/// Calls a second over all callers: enough to see rates move, few enough to read along.
const CALLS_PER_SECOND: f64 = 4.0;
const CALLERS: usize = 6;

/// Starts the example server on a free port of this machine; gives its URL.
pub(crate) fn start_server(tasks: &Tasks) -> anyhow::Result<String> {
    let listener = service_kit::http::bind(([127, 0, 0, 1], 0).into())?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    let shutdown = tasks.shutdown(Stage::Pipeline).requested_owned();
    tasks.spawn(Stage::Pipeline, "demo server", async move {
        demo_server::serve(listener, shutdown).await
    });
    Ok(url)
}

/// Calls the server through the gateway until the process stops.
pub(crate) fn start_callers(base: &str, tasks: &Tasks) {
    let url = format!("{base}/payments/mcp");
    let shutdown = tasks.shutdown(Stage::Intake);
    tasks.spawn(Stage::Intake, "demo callers", async move {
        let (sender, mut calls) = tokio::sync::mpsc::channel(64);
        let traffic = Traffic {
            seed: 1,
            amount: Amount::For(std::time::Duration::from_hours(24 * 365)),
            rate: CALLS_PER_SECOND,
            callers: Caller::cast(CALLERS),
        };
        let seen = async { while calls.recv().await.is_some() {} };
        // Dropping the callers ends their connections; what they called is recorded all the same.
        let _stopped = shutdown
            .or(async { tokio::join!(demo_server::client::drive(&url, traffic, sender), seen) })
            .await;
        Ok(())
    });
}

/// What the demo adds to the banner.
pub(crate) fn banner(base: &str) -> String {
    format!(
        "\nThe demo server `payments` is being called through {base}/payments/mcp, some {CALLS_PER_SECOND} calls a second by {CALLERS} agents."
    )
}
