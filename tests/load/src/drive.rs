//! A closed-loop HTTP client: so many connections, each sending its next request once the last answer is in.
//!
//! Requests are encoded beforehand and answers are read no further than needed to find their end, so that the client takes as
//! little as possible of the cores that it shares with what it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for one answer; a benchmark that hangs is no figure.
const ANSWER_MAX: Duration = Duration::from_mins(1);
/// Before a request that was answered with 503 is sent again.
const PAUSE: Duration = Duration::from_millis(50);
const HEAD_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 64 << 10;

/// An HTTP/1.1 request as bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Bytes {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n");
    let length = body.len().to_string();
    let length = (method != "GET").then_some(("content-length", length.as_str()));
    for (name, value) in headers.iter().copied().chain(length) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat().into()
}

/// One kept-alive connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are used up.
    done: usize,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunked,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(READ_BYTES),
            done: 0,
        })
    }

    /// Sends a request and reads its answer to the end; gives the status.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.call_with(request, |_| ()).await
    }

    /// The same, and gives the body, too.
    pub async fn fetch(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut body = Vec::new();
        let status = self.call_with(request, |piece| body.extend_from_slice(piece)).await?;
        Ok((status, body))
    }

    /// The same; every piece of the body is shown as it comes.
    pub async fn call_with(&mut self, request: &[u8], piece: impl FnMut(&[u8])) -> anyhow::Result<u16> {
        timeout(ANSWER_MAX, self.exchange(request, piece))
            .await
            .context("an answer took longer than a minute")?
    }

    /// Sends a request and reads only the head of its answer, leaving a stream open.
    pub async fn open(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await.context("sending a request")?;
        Ok(timeout(ANSWER_MAX, self.head())
            .await
            .context("waiting for the head of a stream")??
            .0)
    }

    async fn exchange(&mut self, request: &[u8], mut piece: impl FnMut(&[u8])) -> anyhow::Result<u16> {
        self.stream.write_all(request).await.context("sending a request")?;
        let (status, length) = self.head().await?;
        match length {
            Length::Bytes(bytes) => self.take(bytes, &mut piece).await?,
            Length::Chunked => loop {
                let bytes = self.chunk_size().await?;
                self.take(bytes, &mut piece).await?;
                self.take(2, &mut |_| ()).await?;
                if bytes == 0 {
                    break;
                }
            },
        }
        Ok(status)
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.done == self.buffer.len() {
            self.buffer.clear();
            self.done = 0;
        }
        let read = self.stream.read_buf(&mut self.buffer).await.context("reading an answer")?;
        ensure!(read > 0, "the connection was closed within an answer");
        Ok(())
    }

    async fn head(&mut self) -> anyhow::Result<(u16, Length)> {
        loop {
            if let Some(end) = memmem::find(&self.buffer[self.done..], b"\r\n\r\n") {
                let head = &self.buffer[self.done..self.done + end];
                let parsed = parse_head(head).with_context(|| String::from_utf8_lossy(head).into_owned())?;
                self.done += end + 4;
                return Ok(parsed);
            }
            ensure!(
                self.buffer.len() - self.done < HEAD_BYTES_MAX,
                "the head of an answer is longer than 64 KiB"
            );
            self.more().await?;
        }
    }

    async fn chunk_size(&mut self) -> anyhow::Result<u64> {
        loop {
            if let Some(end) = memmem::find(&self.buffer[self.done..], b"\r\n") {
                let line = std::str::from_utf8(&self.buffer[self.done..self.done + end])?;
                let size = u64::from_str_radix(line.trim(), 16).with_context(|| format!("{line:?} is no size of a chunk"))?;
                self.done += end + 2;
                return Ok(size);
            }
            self.more().await?;
        }
    }

    async fn take(&mut self, mut bytes: u64, piece: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        while bytes > 0 {
            let there = self.buffer.len() - self.done;
            if there == 0 {
                self.more().await?;
                continue;
            }
            let now = there.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            piece(&self.buffer[self.done..self.done + now]);
            self.done += now;
            bytes -= now as u64;
        }
        Ok(())
    }
}

fn parse_head(head: &[u8]) -> anyhow::Result<(u16, Length)> {
    let head = std::str::from_utf8(head)?;
    let status: u16 = head.split(' ').nth(1).context("no status line")?.parse()?;
    for line in head.split("\r\n").skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok((status, Length::Bytes(value.trim().parse()?)));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked") {
            return Ok((status, Length::Chunked));
        }
    }
    match status {
        204 | 304 => Ok((status, Length::Bytes(0))),
        _ => bail!("the answer has no length"),
    }
}

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// To whom.
    pub address: SocketAddr,
    /// Whole requests, taken in turn.
    pub requests: Vec<Bytes>,
    /// Connections, each with one request in flight.
    pub connections: usize,
    /// For how long.
    pub time: Duration,
}

/// What came of a [`Load`].
#[derive(Debug)]
pub struct Outcome {
    /// Latencies in nanoseconds.
    pub latency: Histogram<u64>,
    /// Answers with a status of 2xx.
    pub answered: u64,
    /// Other answers.
    pub refused: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Outcome {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_bounds(100, 120_000_000_000, 3)?,
            answered: 0,
            refused: 0,
            elapsed: Duration::ZERO,
        })
    }

    /// Good answers per second.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latency in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds far below 2^53")]
    pub fn micros(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }

    fn note(&mut self, status: u16, took: Duration) {
        self.latency
            .saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if (200..300).contains(&status) {
            self.answered += 1;
        } else {
            self.refused += 1;
        }
    }

    fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency)?;
        self.answered += other.answered;
        self.refused += other.refused;
        self.elapsed = self.elapsed.max(other.elapsed);
        Ok(())
    }
}

/// Runs a load on as many tasks as it has connections.
pub async fn closed_loop(load: &Load) -> anyhow::Result<Outcome> {
    let mut tasks = JoinSet::new();
    for connection in 0..load.connections {
        let load = load.clone();
        let mut client = Client::connect(load.address).await?;
        tasks.spawn(async move {
            let mut outcome = Outcome::new()?;
            let start = Instant::now();
            let first = connection * load.requests.len() / load.connections;
            for request in load.requests.iter().cycle().skip(first) {
                let sent = Instant::now();
                let status = client.call(request).await?;
                outcome.note(status, sent.elapsed());
                if start.elapsed() >= load.time {
                    break;
                }
            }
            outcome.elapsed = start.elapsed();
            anyhow::Ok(outcome)
        });
    }
    let mut all = Outcome::new()?;
    while let Some(outcome) = tasks.join_next().await {
        all.merge(&outcome??)?;
    }
    Ok(all)
}

/// Sends each request once, over several connections, and each again for as long as it is answered with 503: that is what
/// senders are asked to do. Gives the latencies of the answers that counted.
pub async fn send_once(address: SocketAddr, requests: Vec<Bytes>, connections: usize) -> anyhow::Result<Outcome> {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        let mut client = Client::connect(address).await?;
        tasks.spawn(async move {
            let mut outcome = Outcome::new()?;
            let start = Instant::now();
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                let status = loop {
                    match client.call(request).await? {
                        503 => outcome.refused += 1,
                        status => break status,
                    }
                    ensure!(sent.elapsed() < ANSWER_MAX, "the server answered 503 for a minute");
                    sleep(PAUSE).await;
                };
                ensure!((200..300).contains(&status), "a request was answered with {status}");
                outcome.note(status, sent.elapsed());
            }
            outcome.elapsed = start.elapsed();
            anyhow::Ok(outcome)
        });
    }
    let mut all = Outcome::new()?;
    while let Some(outcome) = tasks.join_next().await {
        all.merge(&outcome??)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answers(pieces: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener
                .into_std()
                .map(|l| {
                    l.set_nonblocking(false).unwrap();
                    l.accept().unwrap()
                })
                .unwrap();
            std::io::Read::read(&mut stream, &mut [0; 1024]).unwrap();
            for piece in pieces {
                std::io::Write::write_all(&mut stream, piece).unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn an_answer_in_chunks_is_read_to_its_end_and_no_further() {
        let address = answers(&[
            b"HTTP/1.1 200 OK\r\nTransfer-Enc",
            b"oding: chunked\r\n\r\n5\r\nhel",
            b"lo\r\nA\r\n, my world\r\n0\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        ])
        .await;
        let mut client = Client::connect(address).await.unwrap();
        assert_eq!(
            client.fetch(&request("GET", "/", &[], b"")).await.unwrap(),
            (200, b"hello, my world".to_vec())
        );
        let (_, length) = (client.done, client.head().await.unwrap());
        assert_eq!(length, (404, Length::Bytes(2)));
    }

    #[tokio::test]
    async fn a_connection_that_ends_early_is_no_answer() {
        let address = answers(&[b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"]).await;
        let mut client = Client::connect(address).await.unwrap();
        let fault = client.call(&request("POST", "/", &[], b"{}")).await.unwrap_err();
        assert!(fault.to_string().contains("closed within an answer"), "{fault:#}");
    }
}
