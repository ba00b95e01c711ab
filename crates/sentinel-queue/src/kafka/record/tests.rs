use proptest::prelude::*;

use super::*;
use crate::contract::event;

fn of(namespace: &str, server: &str, number: u64) -> Event {
    let mut event = event(number);
    event.payload.namespace = Some(namespace.to_owned());
    event.payload.server = Some(server.to_owned());
    event
}

fn read(records: &[Packed]) -> Vec<Event> {
    let lines = (0..).zip(records).flat_map(|(at, packed)| unpack(at, &packed.lines, 0));
    let event = |line: Line| match line.record {
        Record::Event { event, .. } => event,
        Record::Undecodable { reason, .. } => panic!("{reason}"),
    };
    lines.map(event).collect()
}

proptest! {
    #[test]
    fn records_hold_every_event_once_in_order_of_its_server(servers in prop::collection::vec(0..4_u8, 1..80), bytes_max in 600..4_000_usize) {
        let events: Vec<Event> = (0..).zip(&servers).map(|(number, server)| of("acme", &format!("s{server}"), number)).collect();
        let records = pack(&events, bytes_max).unwrap();
        for record in &records {
            prop_assert!(record.lines.len() <= bytes_max);
            prop_assert_eq!(record.count, memchr::memchr_iter(b'\n', &record.lines).count());
        }
        let back = read(&records);
        prop_assert_eq!(back.len(), events.len());
        for server in 0..4_u8 {
            let name = format!("s{server}");
            let sent: Vec<&Event> = events.iter().filter(|event| event.server() == name).collect();
            let got: Vec<&Event> = back.iter().filter(|event| event.server() == name).collect();
            prop_assert_eq!(sent, got);
        }
    }
}

#[test]
fn a_key_names_namespace_and_server_and_a_header_the_trace() {
    let mut traced = of("acme", "payments", 1);
    traced.trace_id = "0af7651916cd43dd8448eb211c80319c".parse().ok();
    traced.span_id = "b7ad6b7169203331".parse().ok();
    let records = pack(&[of("acme", "payments", 0), traced, of("acme", "mail", 2)], 1 << 20).unwrap();
    let keys: Vec<(&str, usize)> = records.iter().map(|record| (record.key.as_str(), record.count)).collect();
    assert_eq!(keys, [("acme/payments", 2), ("acme/mail", 1)]);
    assert_eq!(
        records[0].traceparent.as_deref(),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    );
    assert_eq!(records[1].traceparent, None);
}

#[test]
fn an_event_too_large_for_a_record_is_told_and_nothing_is_sent() {
    let fault = pack(&[of("acme", "payments", 0)], 100).unwrap_err();
    assert!(matches!(fault, AppendError::TooLarge { bytes_max: 100, .. }), "{fault:?}");
}

#[test]
fn lines_keep_their_offsets_whatever_is_between() {
    let line = serde_json::to_vec(&event(7)).unwrap();
    let value = [b"nonsense\n\n".as_slice(), &line, b"\n\n"].concat();
    let offsets = |from| {
        let kind = |line: &Line| match &line.record {
            Record::Event { offset, .. } => (*offset, true),
            Record::Undecodable { offset, .. } => (*offset, false),
        };
        unpack(3, &value, from).iter().map(kind).collect::<Vec<_>>()
    };
    let base = offset_of(3, 0);
    assert_eq!(offsets(0), [(base, false), (base + 2, true)]);
    assert_eq!(offsets(base + 1), [(base + 2, true)]);
    for (value, reason) in [
        (b"".as_slice(), "empty"),
        (&vec![b'\n'; LINES_MAX + 1], "more than 65536 lines"),
    ] {
        let lines = unpack(3, value, 0);
        let [
            Line {
                record: Record::Undecodable { reason: told, .. },
                ..
            },
        ] = &lines[..]
        else {
            panic!("{lines:?}")
        };
        assert!(told.contains(reason), "{told}");
    }
}
