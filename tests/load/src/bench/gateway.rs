//! The gateway beside a bare hyper proxy and nginx, each with one worker on the second core; client and upstream share the first.
//!
//! Rounds alternate between the targets, so that whatever else the machine does hits all of them, and the middle round counts.

mod instructions;
mod policy;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use memchr::memmem;
use service_kit::Clock;
use tempfile::TempDir;

use crate::Common;
use crate::drive::{Client, Load, closed_loop, request};
use crate::process::{Cores, Running, Used, free_address};
use crate::report::{Report, median, print_machine};
use crate::upstream;

const BUSY_CONNECTIONS: usize = 64;
const IDLE_STREAMS: u32 = 1_000;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The gateway
    #[arg(long)]
    gateway: PathBuf,
    /// nginx, left out when it cannot be started
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// Rounds of each target
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Count the instructions of a call with valgrind, and measure nothing else
    #[arg(long)]
    instructions: bool,
    /// Seconds of each busy round; a quiet one takes half of it
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    #[command(flatten)]
    common: Common,
}

/// One way to the upstream, with what its rounds gave.
#[derive(Debug)]
struct Target {
    name: &'static str,
    address: SocketAddr,
    process: Running,
    idle: Used,
    /// Middle latency at one connection, in microseconds.
    quiet: Vec<f64>,
    /// Requests per second at many connections.
    rate: Vec<f64>,
    /// Processor time of a request at many connections, in microseconds.
    cpu: Vec<f64>,
    refused: u64,
}

impl Target {
    async fn new(name: &'static str, address: SocketAddr, mut process: Running) -> anyhow::Result<Self> {
        process.listening(address).await?;
        let idle = process.used()?;
        Ok(Self {
            name,
            address,
            process,
            idle,
            quiet: Vec::new(),
            rate: Vec::new(),
            cpu: Vec::new(),
            refused: 0,
        })
    }

    fn load(&self, connections: usize, time: Duration) -> Load {
        Load {
            address: self.address,
            requests: vec![tool_call("echo")],
            connections,
            time,
        }
    }

    async fn round(&mut self, time: Duration) -> anyhow::Result<()> {
        let quiet = closed_loop(&self.load(1, time / 2))
            .await
            .with_context(|| format!("{} at one connection", self.name))?;
        self.quiet.push(quiet.micros(0.5));
        let before = self.process.used()?;
        let busy = closed_loop(&self.load(BUSY_CONNECTIONS, time))
            .await
            .with_context(|| format!("{} under load", self.name))?;
        let cpu = self.process.used()?.cpu - before.cpu;
        self.rate.push(busy.rate());
        self.cpu.push(cpu / (busy.rate() * busy.elapsed.as_secs_f64()) * 1e6);
        self.refused += quiet.refused + busy.refused;
        Ok(())
    }
}

fn tool_call(tool: &str) -> Bytes {
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", tool),
        ("x-mcp-agent-session", policy::CREDENTIAL),
    ];
    request("POST", "/mcp", &headers, &upstream::call(tool))
}

/// Measures, and prints a table.
pub async fn measure(args: Args) -> anyhow::Result<()> {
    print_machine(&args.common.profile);
    let scratch = TempDir::new_in(&args.common.scratch)?;
    let folder = scratch.path();
    let own = std::env::current_exe()?;

    if args.instructions {
        return instructions::count(&args.gateway, folder).await;
    }
    let upstream = free_address()?;
    let mut server = Running::start(
        &own,
        &["upstream", "--listen", &upstream.to_string()],
        Cores::All,
        &folder.join("upstream.log"),
    )?;
    server.listening(upstream).await?;
    let mut targets = vec![
        Target::new("direct", upstream, server).await?,
        start_proxy(&own, upstream, folder).await?,
        start_gateway(&args.gateway, Governed::Many, upstream, folder).await?,
        start_gateway(&args.gateway, Governed::Few, upstream, folder).await?,
        start_gateway(&args.gateway, Governed::Not, upstream, folder).await?,
    ];
    let nginx = start_nginx(&args.nginx, upstream, folder).await;
    let missing = nginx.as_ref().err().map(|error| format!("{error:#}"));
    targets.extend(nginx);

    for _ in 0..args.rounds {
        for target in &mut targets {
            target.round(Duration::from_secs(args.seconds)).await?;
        }
    }
    for target in &targets {
        ensure!(target.refused == 0, "{} refused {} requests", target.name, target.refused);
    }
    let mut report = table(&targets)?;
    // After the load, so that pools and arenas are warm and only streams add to the memory.
    for target in &mut targets {
        match target.name {
            "direct" => delays(target, &mut report).await?,
            "gateway, 10 grants" | "gateway, no policy" => {}
            _ => streams(target, &mut report).await?,
        }
    }
    if let Some(missing) = missing {
        report.note(format!("nginx is left out: {missing}"));
    }
    report.note("Recording is on, towards a sink that answers 202. Each call presents a session; the policy has 10 000 grants and sessions unless said otherwise.");
    report.print();
    Ok(())
}

fn table(targets: &[Target]) -> anyhow::Result<Report> {
    let mut report = Report::new(format!(
        "Gateway: tools/call of 419 bytes, answer of {} bytes, one worker each",
        upstream::SMALL.len()
    ));
    let [direct, bare, gateway, few, ungoverned, ..] = targets else {
        anyhow::bail!("targets are missing")
    };
    let cpu = |target: &Target| median(target.cpu.clone());
    let rate = |target: &Target| median(target.rate.clone());
    let quiet = |target: &Target| median(target.quiet.clone());
    each(targets, &mut report)?;
    report.row(
        "gateway: CPU a request over bare hyper proxy",
        format!("{:.2} ×", cpu(gateway) / cpu(bare)),
        "≤ 1.5 ×",
    );
    report.row(
        "gateway: CPU a request with 10 000 grants and sessions over 10",
        format!("{:.2} ×", cpu(gateway) / cpu(few)),
        "no growth",
    );
    report.row(
        "gateway: judging, share of CPU a request",
        format!("{:+.1} µs", cpu(gateway) - cpu(ungoverned)),
        "",
    );
    report.row(
        "gateway: p50 added over bare hyper proxy",
        format!("{:+.0} µs", quiet(gateway) - quiet(bare)),
        "≤ 25 µs",
    );
    report.row(
        "gateway: p50 added over direct",
        format!("{:+.0} µs", quiet(gateway) - quiet(direct)),
        "",
    );
    report.row(
        "gateway: throughput over bare hyper proxy",
        format!("{:.2} ×", rate(gateway) / rate(bare)),
        "",
    );
    if let Some(nginx) = targets.get(5) {
        report.row(
            "gateway: throughput over nginx",
            format!("{:.2} ×", rate(gateway) / rate(nginx)),
            "≥ 0.5 ×",
        );
        report.row(
            "gateway: CPU a request over nginx",
            format!("{:.2} ×", cpu(gateway) / cpu(nginx)),
            "",
        );
    }
    let memory = gateway.process.used()?;
    report.row(
        "gateway: resident memory idle / under load",
        format!("{:.1} / {:.1} MiB", gateway.idle.rss, memory.rss_peak),
        "≤ 10 / 25 MiB",
    );
    Ok(report)
}

/// One line a target.
fn each(targets: &[Target], report: &mut Report) -> anyhow::Result<()> {
    for target in targets {
        let memory = target.process.used()?;
        report.row(
            target.name,
            format!(
                "p50 {:.0} µs at 1 connection; {:.0} requests/s and {:.1} µs CPU a request at {BUSY_CONNECTIONS}; RSS {:.1} MiB idle, {:.1} under load",
                median(target.quiet.clone()),
                median(target.rate.clone()),
                median(target.cpu.clone()),
                target.idle.rss,
                memory.rss_peak
            ),
            "",
        );
    }
    Ok(())
}

/// Delay of events in streams, memory of silent streams, and of a large answer.
async fn streams(target: &Target, report: &mut Report) -> anyhow::Result<()> {
    delays(target, report).await?;
    let bar = if target.name == "gateway" {
        ["constant", "≤ 16 KiB"]
    } else {
        [""; 2]
    };
    let before = target.process.used()?;
    let mut large = Client::connect(target.address).await?;
    let mut bytes = 0_u64;
    let status = large
        .call_with(&tool_call("large"), |piece| bytes += piece.len() as u64)
        .await?;
    ensure!(
        status == 200 && bytes == upstream::LARGE_BYTES,
        "{}: {status} with {bytes} bytes instead of 100 MiB",
        target.name
    );
    let grown = target.process.used()?.rss_peak - before.rss_peak;
    report.row(
        format!("{}: memory for an answer of 100 MiB", target.name),
        format!("{grown:+.1} MiB"),
        bar[0],
    );

    let before = target.process.used()?.rss;
    let listen = request(
        "GET",
        "/mcp",
        &[("accept", "text/event-stream"), ("mcp-session-id", "s-1")],
        b"",
    );
    let mut open = Vec::new();
    for _ in 0..IDLE_STREAMS {
        let mut client = Client::connect(target.address).await?;
        let status = client.open(&listen).await?;
        ensure!(status == 200, "{}: a stream was refused with {status}", target.name);
        open.push(client);
    }
    let each = (target.process.used()?.rss - before) * 1_024.0 / f64::from(IDLE_STREAMS);
    report.row(
        format!("{}: memory of an idle stream ({IDLE_STREAMS} open)", target.name),
        format!("{each:.1} KiB"),
        bar[1],
    );
    Ok(())
}

async fn delays(target: &Target, report: &mut Report) -> anyhow::Result<()> {
    let delays = tick_delays(target.address).await?;
    let micros = |quantile| f64::from(u32::try_from(delays.value_at_quantile(quantile)).unwrap_or(u32::MAX)) / 1e3;
    report.row(
        format!("{}: event in a stream, written to read", target.name),
        format!("p50 {:.0} µs, p99 {:.0} µs", micros(0.5), micros(0.99)),
        if target.name == "gateway" {
            "≤ 1000 µs more than direct"
        } else {
            ""
        },
    );
    Ok(())
}

/// How long events take from the upstream's write to our read, in nanoseconds.
async fn tick_delays(address: SocketAddr) -> anyhow::Result<Histogram<u64>> {
    let clock = Clock::system();
    let mut delays = Histogram::new_with_bounds(100, 10_000_000_000, 3)?;
    for _ in 0..2 {
        let mut client = Client::connect(address).await?;
        let mut seen = 0_u32;
        let read = |piece: &[u8]| {
            let now = clock.unix_ns();
            let finder = memmem::Finder::new(br#""sent":"#);
            for at in finder.find_iter(piece) {
                let digits = piece[at + 7..]
                    .split(|byte| !byte.is_ascii_digit())
                    .next()
                    .unwrap_or_default();
                let sent: i64 = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(now);
                delays.saturating_record(u64::try_from(now - sent).unwrap_or_default());
                seen += 1;
            }
        };
        let status = client.call_with(&tool_call("ticks"), read).await?;
        ensure!(
            status == 200 && seen == upstream::TICKS,
            "a stream ended with {status} after {seen} events"
        );
    }
    Ok(delays)
}

async fn start_proxy(own: &Path, upstream: SocketAddr, folder: &Path) -> anyhow::Result<Target> {
    let address = free_address()?;
    let args = ["proxy", "--listen", &address.to_string(), "--upstream", &upstream.to_string()];
    Target::new(
        "hyper",
        address,
        Running::start(own, &args, Cores::Second, &folder.join("hyper.log"))?,
    )
    .await
}

/// Which policy judges the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Governed {
    /// One of 10 000 grants and sessions.
    Many,
    /// One of 10.
    Few,
    Not,
}

impl Governed {
    fn name(self) -> &'static str {
        match self {
            Self::Many => "gateway",
            Self::Few => "gateway, 10 grants",
            Self::Not => "gateway, no policy",
        }
    }

    fn entries(self) -> usize {
        match self {
            Self::Many => 10_000,
            Self::Few => 10,
            Self::Not => 0,
        }
    }
}

/// The options of a gateway with one worker that delivers its events to the upstream.
fn gateway_options(address: SocketAddr, admin: SocketAddr, upstream: SocketAddr, policy: Option<&Path>) -> Vec<String> {
    let mut options: Vec<String> = [
        "--server-name",
        "load",
        "--host",
        "127.0.0.1",
        "--worker-threads",
        "1",
        "--log-level",
        "warn",
    ]
    .map(str::to_owned)
    .into();
    let mut add = |option: &str, value: String| options.extend([option.to_owned(), value]);
    add("--upstream-url", format!("http://{upstream}"));
    add("--analytics-ingest-url", format!("http://{upstream}/events"));
    add("--port", address.port().to_string());
    add("--admin-port", admin.port().to_string());
    if let Some(policy) = policy {
        add("--policy-file", policy.display().to_string());
    }
    options
}

async fn start_gateway(program: &Path, governed: Governed, upstream: SocketAddr, folder: &Path) -> anyhow::Result<Target> {
    let (address, admin) = (free_address()?, free_address()?);
    let name = governed.name();
    let path = folder.join(format!("{name}.json"));
    let policy = (governed != Governed::Not).then_some(path.as_path());
    if let Some(path) = policy {
        fs::write(path, policy::document(governed.entries()))?;
    }
    let options = gateway_options(address, admin, upstream, policy);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Target::new(
        name,
        address,
        Running::start(program, &options, Cores::Second, &folder.join(format!("{name}.log")))?,
    )
    .await
}

async fn start_nginx(program: &Path, upstream: SocketAddr, folder: &Path) -> anyhow::Result<Target> {
    let address = free_address()?;
    let folder_name = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {folder_name}/nginx.pid; error_log {folder_name}/nginx-error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; tcp_nodelay on; keepalive_requests 1000000000; client_body_buffer_size 64k;
  client_body_temp_path {folder_name}/body; proxy_temp_path {folder_name}/proxy; fastcgi_temp_path {folder_name}/fastcgi;
  uwsgi_temp_path {folder_name}/uwsgi; scgi_temp_path {folder_name}/scgi;
  upstream mcp {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen {address} backlog=4096;
    location / {{
      proxy_pass http://mcp; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_read_timeout 10m;
    }}
  }}
}}
"
    );
    let path = folder.join("nginx.conf");
    fs::write(&path, config)?;
    let path = path.to_string_lossy();
    let log = folder.join("nginx.log");
    let process = Running::start(program, &["-c", &path, "-p", &folder_name.to_string()], Cores::Second, &log)?;
    Target::new("nginx", address, process).await
}
