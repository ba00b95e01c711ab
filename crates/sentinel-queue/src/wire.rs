//! One event as one line: the wire form of [`domain::Event`] as JSON. JSON escapes line ends, so lines can be told apart.

use domain::Event;

use crate::Record;

/// Appends an event and a line end.
pub(crate) fn push_line(event: &Event, lines: &mut Vec<u8>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *lines, event)?;
    lines.push(b'\n');
    Ok(())
}

/// Reads one line, without its end. What is no event comes back whole, with the reason.
pub(crate) fn read_line(offset: u64, line: &[u8]) -> Record {
    match serde_json::from_slice(line) {
        Ok(event) => Record::Event { offset, event },
        Err(error) => Record::Undecodable {
            offset,
            bytes: line.to_vec(),
            reason: format!("the record is no event: {error}"),
        },
    }
}
