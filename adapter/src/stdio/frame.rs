//! Lines on standard input and output: one message each.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc;

/// What a client sent next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Bytes),
    /// Longer than the bound; it was read to its end and thrown away.
    TooLong,
    End,
}

/// Reads the next line that holds anything.
pub(super) async fn next_line<R: AsyncBufRead + Unpin>(input: &mut R, bytes_max: usize) -> std::io::Result<Line> {
    let mut line = BytesMut::new();
    let mut is_too_long = false;
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(match (is_too_long, trimmed(line)) {
                (true, _) => Line::TooLong,
                (false, Some(line)) => Line::Text(line),
                (false, None) => Line::End,
            });
        }
        let end = memchr::memchr(b'\n', buffer);
        let text = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        is_too_long |= line.len() + text.len() > bytes_max;
        if is_too_long {
            line.clear();
        } else {
            line.extend_from_slice(text);
        }
        let used = text.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_none() {
            continue;
        }
        if is_too_long {
            return Ok(Line::TooLong);
        }
        if let Some(line) = trimmed(std::mem::take(&mut line)) {
            return Ok(Line::Text(line));
        }
    }
}

fn trimmed(line: BytesMut) -> Option<Bytes> {
    let line = line.freeze();
    let text = line.trim_ascii();
    (!text.is_empty()).then(|| line.slice_ref(text))
}

/// Writes messages as lines until nobody sends any more, and flushes whenever there is none to write.
pub(super) async fn write_lines<W: AsyncWrite + Unpin>(output: W, mut lines: mpsc::Receiver<Bytes>) -> std::io::Result<()> {
    let mut output = BufWriter::new(output);
    while let Some(line) = lines.recv().await {
        let mut next = Some(line);
        while let Some(line) = next {
            output.write_all(&line).await?;
            output.write_all(b"\n").await?;
            next = lines.try_recv().ok();
        }
        output.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn lines_are_read_whatever_their_ends_and_too_long_ones_spoil_no_other() {
        let wire = b"{\"a\":1}\r\n\n  \n0123456789abcdef\n{\"b\":2}\n{\"c\":3}";
        for capacity in [1, 3, 64] {
            let mut input = BufReader::with_capacity(capacity, &wire[..]);
            let mut lines = Vec::new();
            loop {
                match next_line(&mut input, 10).await.unwrap() {
                    Line::End => break,
                    line => lines.push(line),
                }
            }
            let text = |text: &'static str| Line::Text(Bytes::from_static(text.as_bytes()));
            let wanted = [text("{\"a\":1}"), Line::TooLong, text("{\"b\":2}"), text("{\"c\":3}")];
            assert_eq!(lines, wanted, "capacity {capacity}");
        }
    }
}
