use domain::{Decision, Event, EventBatch, EventId, Outcome, Payload, Span, Timestamp};
use sentinel_store::memory::MemoryStore;
use sentinel_store::query::Order;
use sentinel_store::{EventQuery, EventReader as _, EventWriter as _};

use super::*;

fn event(at: u64) -> Event {
    let pick = |of: &[&str]| of[usize::try_from(at).unwrap() % of.len()].to_owned();
    let text = |of: &[&str]| Some(pick(of)).filter(|text| !text.is_empty());
    Event {
        version: domain::event::WireVersion,
        id: EventId::from_bytes(u128::from(at + 1).to_be_bytes()),
        timestamp: Timestamp::from_seconds(i64::try_from(at).unwrap()),
        received_at: Timestamp::from_seconds(1_000),
        received_by: None,
        source: pick(&["a-gateway", "b-gateway"]),
        event_type: pick(&["mcp.request", "mcp.request", "audit"]),
        trace_id: at
            .is_multiple_of(2)
            .then(|| "0af7651916cd43dd8448eb211c80319c".parse().unwrap()),
        span_id: None,
        parent_span_id: None,
        producer: None,
        producer_seq: None,
        payload: Box::new(Payload {
            namespace: text(&["acme", "globex", ""]),
            team_id: text(&["", "t1", "", "t2", ""]),
            server: text(&["a", "b", "c", "d"]),
            status: [None, Some(200), Some(403)][usize::try_from(at % 3).unwrap()],
            rpc_code: [None, Some(-32_000)][usize::try_from(at % 2).unwrap()],
            outcome: [None, Some(Outcome::Ok), Some(Outcome::Denied)][usize::try_from(at % 3).unwrap()],
            decision: Some(Decision::Allow),
            ..Payload::default()
        }),
    }
}

/// What a filter means is said by the stores; this must be the same.
#[tokio::test]
async fn the_sieve_means_what_the_store_means() {
    let events: Vec<_> = (0..60).map(event).collect();
    let store = MemoryStore::new();
    let batch = EventBatch {
        span: Span {
            partition: 0,
            first: 0,
            end: 60,
        },
        events: (0..).zip(events.clone()).collect(),
        complete_through: Timestamp::default(),
    };
    store.insert(batch.into()).await.unwrap();
    let only = |namespaces: &[&str], teams: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Scope::Only {
            namespaces: owned(namespaces),
            teams: owned(teams),
        }
    };
    let scopes = [
        Scope::All,
        only(&[], &[]),
        only(&["acme"], &[]),
        only(&[], &["t1"]),
        only(&["globex"], &["t2"]),
        only(&[""], &[""]),
    ];
    let equals: [(&str, &[&str]); 10] = [
        ("source", &["a-gateway"]),
        ("event_type", &["audit", "mcp.request"]),
        ("trace_id", &["0af7651916cd43dd8448eb211c80319c"]),
        ("trace_id", &[""]),
        ("id", &["00000000-0000-0000-0000-000000000005"]),
        ("server", &["a", "d"]),
        ("status", &["403", ""]),
        ("rpc_code", &["-32000"]),
        ("outcome", &["denied"]),
        ("tool_name", &["x"]),
    ];
    for scope in scopes {
        for (name, values) in equals {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let filter = Filter {
                scope: scope.clone(),
                since: Some(Timestamp::from_seconds(3)),
                until: Some(Timestamp::from_seconds(50)),
                equals: vec![(name.to_owned(), values)],
            };
            let query = EventQuery {
                filter: filter.clone(),
                order: Order::Arrival(None),
                limit: 1_000,
            };
            let stored: Vec<_> = store
                .events(query)
                .await
                .unwrap()
                .events
                .into_iter()
                .map(|stored| stored.event.id)
                .collect();
            let sieved: Vec<_> = events
                .iter()
                .filter(|event| passes(&filter, event))
                .map(|event| event.id)
                .collect();
            assert_eq!(sieved, stored, "{filter:?}");
        }
    }
}
