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

/// Pings a server. Of one behind TLS only the connection is tried: whether its certificate is trusted is the gateway's to find out.
pub(crate) async fn ping(server: &Uri) -> Answer {
    match tokio::time::timeout(WAIT_MAX, attempt(server)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Not(match error.kind() {
            std::io::ErrorKind::ConnectionRefused => format!("nothing listens on {}", authority(server)),
            _ => format!("{} does not answer: {error}", authority(server)),
        }),
        Err(_late) => Answer::Not(format!(
            "{} has not answered within {} s",
            authority(server),
            WAIT_MAX.as_secs()
        )),
    }
}

fn authority(server: &Uri) -> &str {
    server.authority().map_or("", http::uri::Authority::as_str)
}

async fn attempt(server: &Uri) -> std::io::Result<Answer> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_plain = server.scheme_str() == Some("http");
    let port = server.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    let mut stream = TcpStream::connect((host, port)).await?;
    if !is_plain {
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
