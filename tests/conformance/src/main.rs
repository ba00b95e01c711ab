//! Serves the fixture by hand: prints its address, and ends with its input.

use std::io::Read as _;

use anyhow::Context as _;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is what whoever starts it waits for")]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse::<u16>());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.context("reading the port")?)).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    let input_ends = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    conformance::serve(listener, async move { drop(input_ends.await) }).await
}
