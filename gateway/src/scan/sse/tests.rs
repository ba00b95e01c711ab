use proptest::prelude::*;

use super::SseScan;
use crate::scan::Found;

fn read(pieces: &[&[u8]]) -> (Vec<Option<Found>>, SseScan) {
    let mut scan = SseScan::default();
    let mut messages = Vec::new();
    for piece in pieces {
        scan.feed(piece, |message| messages.push(message));
    }
    (messages, scan)
}

#[test]
fn events_are_read_whatever_ends_their_lines() {
    for end in ["\n", "\r\n", "\r"] {
        let text = format!(
            ": hello{end}{end}id: 1{end}data:{end}{end}event: message{end}data: {{\"id\":1,{end}data: \"result\":{{\"isError\":true}}}}{end}{end}retry: 5{end}data:{{\"method\":\"m\"}}{end}{end}"
        );
        let (messages, scan) = read(&[text.as_bytes()]);
        assert_eq!(messages.len(), 2, "{text:?}");
        assert!(messages[0].as_ref().unwrap().is_error);
        assert_eq!(messages[1].as_ref().unwrap().method.as_deref(), Some("m"));
        assert!(scan.ids_seen() && scan.at_boundary());
        assert_eq!(scan.events(), 2, "an event that only brings an id is none");
    }
}

#[test]
fn an_unfinished_event_is_none() {
    let (messages, scan) = read(&[b"data: {\"id\":1,\"result\":{}}\n"]);
    assert!(messages.is_empty() && !scan.at_boundary());
    let (messages, scan) = read(&[b"data: {\"id\""]);
    assert!(messages.is_empty() && !scan.at_boundary());
}

#[test]
fn data_that_is_no_json_counts_as_an_event_without_message() {
    let (messages, scan) = read(&[b"\xef\xbb\xbfdata: hello\n\ndataset: {}\n\n"]);
    assert_eq!((messages, scan.events()), (vec![None], 1));
}

#[test]
fn an_event_may_be_of_any_length() {
    let mut scan = SseScan::default();
    let mut messages = Vec::new();
    let mut feed = |bytes: &[u8]| scan.feed(bytes, |message| messages.push(message));
    feed(b"data: {\"result\":{\"content\":\"");
    for _ in 0..500 {
        feed(&[b'x'; 10_000]);
    }
    feed(b"\",\"isError\":true},\"id\":\"a\"}\r\n\r\n");
    assert!(messages[0].as_ref().unwrap().is_error);
}

proptest! {
    #[test]
    fn every_split_reads_the_same(
        lines in prop::collection::vec(
            prop_oneof![
                Just("data: {\"id\":1,\"result\":{}}"), Just("data:{\"method\":"), Just("data: \"x\"}"), Just("id: 7"), Just(""),
                Just(""), Just(": c"), Just("data"), Just("event: message"), Just("data: nope"),
            ],
            0..12,
        ),
        ends in prop::collection::vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r")], 12),
    ) {
        let text: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
        let (wanted, whole) = read(&[text.as_bytes()]);
        for at in 0..=text.len() {
            let (left, right) = text.as_bytes().split_at(at);
            let (messages, scan) = read(&[left, right]);
            prop_assert_eq!(&messages, &wanted, "split at {} of {:?}", at, text);
            prop_assert_eq!(scan.events(), whole.events());
            prop_assert_eq!(scan.at_boundary(), whole.at_boundary());
        }
    }
}
