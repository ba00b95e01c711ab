//! Whether an MCP server answers: one ping over HTTP, which opens no session and calls nothing.

use std::time::Duration;

use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for a connection and for an answer.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// A request of JSON-RPC that every era of the protocol answers in some way.
const PING: &str = r#"{"jsonrpc":"2.0","id":"mcp-runtime-probe","method":"ping"}"#;

/// What came of a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Something that speaks HTTP is there and knows the path.
    Here,
    /// It is there, but knows no such path.
    NoSuchPath,
    /// It is not there, or not well; the text says why.
    Not(String),
}

/// Whether a server that answered still listens. Nothing is sent: it need not be asked again and again.
pub(crate) async fn listens(server: &Uri) -> Result<(), String> {
    match tokio::time::timeout(WAIT_MAX, connect(server)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(why(server, &error)),
        Err(_late) => Err(late(server)),
    }
}

/// Pings a server. Of one behind TLS only the connection is tried: whether its certificate is trusted is the gateway's to find out.
pub(crate) async fn ping(server: &Uri) -> Answer {
    match tokio::time::timeout(WAIT_MAX, attempt(server)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Not(why(server, &error)),
        Err(_late) => Answer::Not(late(server)),
    }
}

fn why(server: &Uri, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => format!("nothing listens on {}", authority(server)),
        _ => format!("{} does not answer: {error}", authority(server)),
    }
}

fn late(server: &Uri) -> String {
    format!("{} has not answered within {} s", authority(server), WAIT_MAX.as_secs())
}

async fn connect(server: &Uri) -> std::io::Result<TcpStream> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let usual = if is_plain(server) { 80 } else { 443 };
    TcpStream::connect((host, server.port_u16().unwrap_or(usual))).await
}

fn is_plain(server: &Uri) -> bool {
    server.scheme_str() == Some("http")
}

fn authority(server: &Uri) -> &str {
    server.authority().map_or("", http::uri::Authority::as_str)
}

async fn attempt(server: &Uri) -> std::io::Result<Answer> {
    let mut stream = connect(server).await?;
    if !is_plain(server) {
        return Ok(Answer::Here);
    }
    let path = server.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: mcp-runtime-probe\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PING}",
        authority(server),
        PING.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let status = head
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..))
        .and_then(|digits| std::str::from_utf8(digits).ok());
    Ok(match status.and_then(|digits| digits.parse::<u16>().ok()) {
        Some(404) => Answer::NoSuchPath,
        Some(status) if status < 500 => Answer::Here,
        Some(status) => Answer::Not(format!("{} answers a ping with {status}", authority(server))),
        None => Answer::Not(format!("what listens on {} does not speak HTTP", authority(server))),
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(answer: &'static [u8]) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let _read = stream.read(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        format!("http://{address}/mcp").parse().unwrap()
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        for (bytes, expected) in [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), Answer::Here),
            (b"HTTP/1.0 404 Not Found\r\n\r\n", Answer::NoSuchPath),
        ] {
            assert_eq!(ping(&answering(bytes).await).await, expected);
        }
        for (bytes, said) in [
            (b"HTTP/1.1 503 Busy\r\n\r\n".as_slice(), "answers a ping with 503"),
            (b"220 mail.example.com\r\n", "does not speak HTTP"),
            (b"", "does not answer"),
        ] {
            let answer = ping(&answering(bytes).await).await;
            assert!(matches!(&answer, Answer::Not(why) if why.contains(said)), "{answer:?}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone: Uri = format!("http://{}/mcp", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let answer = ping(&gone).await;
        assert!(
            matches!(&answer, Answer::Not(why) if why.starts_with("nothing listens on 127.0.0.1:")),
            "{answer:?}"
        );
    }
}
