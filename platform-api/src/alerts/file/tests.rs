use super::*;

fn rules(text: &str) -> (Vec<FileRule>, Vec<String>) {
    parse(text).unwrap()
}

#[test]
fn a_rule_has_what_is_written_and_defaults_for_the_rest() {
    let (rules, faults) = rules(
        "rules:\n  - name: refunds fail\n    metric: error_rate\n    above: 0.05\n    window: 10m\n    \
         filter: { server: payments, tool_name: [refund_invoice, void_invoice] }\n    calls_min: 20\n    \
         webhook: https://hooks.example.com/services/T0/secret\n  - { name: lag, metric: lag_seconds, above: 30 }\n",
    );
    assert_eq!(faults, Vec::<String>::new());
    let first = serde_json::to_value(&rules[0].rule).unwrap();
    assert_eq!(
        first,
        serde_json::json!({
            "name": "refunds fail", "metric": "error_rate", "above": 0.05, "window_seconds": 600, "calls_min": 20,
            "filter": { "server": ["payments"], "tool_name": ["refund_invoice", "void_invoice"] },
        })
    );
    assert_eq!(rules[1].rule.window_seconds, 300);
    assert_eq!(rules[1].rule.calls_min, 1);
    assert!(rules[1].webhook.is_none());
}

#[test]
fn the_address_of_a_webhook_is_not_shown() {
    let (rules, _) = rules("rules: [{ name: a, metric: calls, below: 1, webhook: 'https://hooks.example.com/secret' }]");
    let shown = format!("{rules:?} {:?}", rules[0].webhook.as_ref().unwrap().status());
    assert!(shown.contains("hooks.example.com") && !shown.contains("secret"), "{shown}");
}

#[test]
fn a_wrong_rule_is_told_and_takes_no_other_down() {
    let wrong = [
        ("{ name: w, metric: calls }", "give exactly one of"),
        ("{ name: w, metric: calls, above: 1, below: 2 }", "give exactly one of"),
        ("{ name: w, metric: callz, above: 1 }", "unknown variant `callz`"),
        (
            "{ name: w, metric: calls, above: 1, threshhold: 2 }",
            "unknown field `threshhold`",
        ),
        ("{ name: w, metric: calls, above: 1, window: soon }", "not a time such as 5m"),
        (
            "{ name: w, metric: calls, above: 1, window: 1s }",
            "`window` must be 10 s to 31 days",
        ),
        ("{ name: w, metric: calls, changes_by: 1 }", "must be more than 1"),
        (
            "{ name: w, metric: calls, above: 1, filter: { tool: x } }",
            "did you mean `tool_name`?",
        ),
        (
            "{ name: w, metric: lag_seconds, above: 1, filter: { server: x } }",
            "neither `filter`",
        ),
        (
            "{ name: w, metric: calls, above: 1, webhook: 'ftp://x' }",
            "not an http or https address",
        ),
        ("{ name: '', metric: calls, above: 1 }", "visible characters"),
        ("{ name: good, metric: calls, above: 1 }", "another rule has this name"),
        ("7", "rule 2 (without a name)"),
    ];
    for (text, expected) in wrong {
        let (rules, faults) = rules(&format!(
            "rules:\n  - {{ name: good, metric: calls, below: 1 }}\n  - {text}\n"
        ));
        assert_eq!(rules.len(), 1, "{text}");
        assert!(
            matches!(&faults[..], [fault] if fault.contains(expected)),
            "{text}: {faults:?}"
        );
    }
}

#[test]
fn what_is_no_list_of_rules_is_a_fault_of_the_file() {
    assert!(parse("rules: [").is_err());
    assert!(parse("alerts: []").is_err());
    assert!(parse("rules: [{ name: w, metric: calls, above: .nan }]").is_err());
    assert!(parse(&format!("rules: [{}]", "{},".repeat(RULES_MAX + 1))).is_err());
    assert!(parse("").unwrap().0.is_empty());
    assert!(parse("rules: []").unwrap().0.is_empty());
}
