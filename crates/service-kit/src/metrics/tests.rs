use std::collections::BTreeSet;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Metrics;

#[derive(Debug)]
struct Probe {
    calls: Counter,
}

fn build(registry: &mut Registry) -> Probe {
    let calls = Counter::default();
    registry.register("calls", "Calls of the probe", calls.clone());
    Probe { calls }
}

#[test]
fn a_second_instance_shares_the_first_ones_metrics() {
    let metrics = Metrics::new();
    let first = metrics.register("probe", build);
    let second = metrics.clone().register("probe", build);
    assert!(Arc::ptr_eq(&first, &second));
    second.calls.inc_by(3);
    let text = metrics.encode().unwrap();
    assert!(text.contains("\nprobe_calls_total 3\n"), "{text}");
}

/// Reads the text as Prometheus does, as far as we write it: comments, then `name{labels} value`, and an end mark.
#[test]
fn the_text_can_be_read_and_names_no_series_twice() {
    let metrics = Metrics::new();
    metrics.register("probe", build);
    let text = metrics.encode().unwrap();
    let mut series = BTreeSet::new();
    let mut lines = text.lines();
    assert_eq!(lines.next_back(), Some("# EOF"));
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(
                ["HELP ", "TYPE ", "UNIT "].iter().any(|word| comment.starts_with(word)),
                "{line}"
            );
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(name.starts_with(|first: char| first.is_ascii_alphabetic()), "{line}");
        assert!(series.insert(name), "{name} is there twice");
    }
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_threads",
    ] {
        assert!(series.contains(name), "{name} is missing in {text}");
    }
}
