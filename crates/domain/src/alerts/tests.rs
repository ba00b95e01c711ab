use super::*;

fn rule(metric: AlertMetric, bound: Bound) -> Rule {
    Rule {
        name: "a rule".to_owned(),
        metric,
        bound,
        window_seconds: 300,
        filter: BTreeMap::new(),
        calls_min: 1,
    }
}

fn measured(value: Option<f64>, before: Option<f64>) -> Measured {
    Measured {
        value,
        before,
        calls: 10,
    }
}

#[test]
fn a_bound_is_crossed_beyond_it_and_not_at_it() {
    use AlertState::{Firing, NoData, Ok};
    let table = [
        (Bound::Above(5.0), Some(5.0), None, Ok),
        (Bound::Above(5.0), Some(5.1), None, Firing),
        (Bound::Below(1.0), Some(1.0), None, Ok),
        (Bound::Below(1.0), Some(0.0), None, Firing),
        (Bound::ChangesBy(3.0), Some(29.0), Some(10.0), Ok),
        (Bound::ChangesBy(3.0), Some(30.0), Some(10.0), Firing),
        (Bound::ChangesBy(3.0), Some(4.0), Some(10.0), Ok),
        (Bound::ChangesBy(2.0), Some(5.0), Some(10.0), Firing),
        (Bound::ChangesBy(2.0), Some(0.0), Some(10.0), Firing),
        (Bound::ChangesBy(2.0), Some(5.0), Some(0.0), NoData),
        (Bound::ChangesBy(2.0), Some(5.0), None, NoData),
        (Bound::Above(5.0), None, None, NoData),
    ];
    for (bound, value, before, expected) in table {
        let state = rule(AlertMetric::Errors, bound).judge(measured(value, before));
        assert_eq!(state, expected, "{bound} with {value:?} after {before:?}");
    }
}

#[test]
fn few_calls_prove_nothing_about_a_rate() {
    let rare = Rule {
        calls_min: 20,
        ..rule(AlertMetric::ErrorRate, Bound::Above(0.1))
    };
    assert_eq!(rare.judge(measured(Some(1.0), None)), AlertState::NoData);
    let enough = Measured {
        calls: 20,
        ..measured(Some(1.0), None)
    };
    assert_eq!(rare.judge(enough), AlertState::Firing);
}

#[test]
fn that_nobody_calls_can_be_watched() {
    let silent = Rule {
        calls_min: 0,
        ..rule(AlertMetric::Calls, Bound::Below(1.0))
    };
    let nothing = Measured {
        value: AlertMetric::Calls.of_calls(&CallCounts::default()),
        before: None,
        calls: 0,
    };
    assert_eq!(silent.judge(nothing), AlertState::Firing);
}

#[test]
fn each_metric_has_a_value_in_one_of_the_two_places() {
    let calls = CallCounts {
        events: 4,
        errors: 1,
        denied: 2,
        latency_p50_us: Some(1_500),
        latency_p95_us: Some(2_500),
        latency_p99_us: Some(3_500),
        bytes_in: 10,
        bytes_out: 20,
        ..CallCounts::default()
    };
    let pipeline = PipelineStatus {
        lag_seconds: 7.5,
        dead_letters: 3,
        dropped: 2,
        missing: 1,
        ..PipelineStatus::default()
    };
    let table = [
        ("calls", Some(4.0), None),
        ("errors", Some(1.0), None),
        ("denied", Some(2.0), None),
        ("error_rate", Some(0.25), None),
        ("deny_rate", Some(0.5), None),
        ("latency_p50", Some(1.5), None),
        ("latency_p95", Some(2.5), None),
        ("latency_p99", Some(3.5), None),
        ("bytes", Some(30.0), None),
        ("lag_seconds", None, Some(7.5)),
        ("dead_letters", None, Some(3.0)),
        ("dropped", None, Some(2.0)),
        ("missing", None, Some(1.0)),
    ];
    for (name, of_calls, of_status) in table {
        let metric: AlertMetric = serde_json::from_value(name.into()).unwrap();
        assert_eq!(metric.to_string(), name);
        assert_eq!(
            (metric.of_calls(&calls), metric.of_status(&pipeline)),
            (of_calls, of_status),
            "{name}"
        );
        assert_eq!(metric.of_pipeline(), of_status.is_some(), "{name}");
    }
}
