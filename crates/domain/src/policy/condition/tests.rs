use super::*;

fn ask(condition: &str, arguments: &str) -> Answer {
    Condition::parse(condition)
        .unwrap_or_else(|fault| panic!("{condition}: {fault}"))
        .ask(&ArgumentsOnce::new(arguments))
}

#[test]
fn conditions_hold_as_cel_has_it() {
    for (condition, arguments) in [
        ("arguments.amount <= 100", r#"{"amount": 100}"#),
        ("arguments.amount <= 100", r#"{"amount": 99.5}"#),
        (
            "arguments.amount < 100.5 && arguments.currency in [\"EUR\", 'USD']",
            r#"{"amount": 100, "currency": "USD"}"#,
        ),
        ("!has(arguments.force) || arguments.force == false", "{}"),
        ("!has(arguments.force) || arguments.force == false", ""),
        (
            "arguments.path.startsWith('/data/') && !arguments.path.contains('..')",
            r#"{"path": "/data/x"}"#,
        ),
        ("arguments.path.endsWith(\".csv\")", r#"{"path": "/data/x.csv"}"#),
        ("arguments.id.matches(r'^inv-\\d+$')", r#"{"id": "inv-12"}"#),
        (
            "arguments.items.all(item, item.price < 100.0)",
            r#"{"items": [{"price": 1}, {"price": 99.9}]}"#,
        ),
        ("arguments.items.all(item, item.price < 100.0)", r#"{"items": []}"#),
        (
            "arguments.tags.exists(t, t == 'a') && arguments.tags.exists_one(t, t == 'b')",
            r#"{"tags": ["a", "a", "b"]}"#,
        ),
        ("arguments.rows.all(r, r.all(c, c > 0))", r#"{"rows": [[1, 2], [3]]}"#),
        (
            "size(arguments.items) == 2 && arguments.items.size() == 2 && size('äb') == 2",
            r#"{"items": [1, 2]}"#,
        ),
        (
            "arguments.items[1] == 2 && arguments['items'][0] == 1",
            r#"{"items": [1, 2]}"#,
        ),
        ("(arguments.a ? arguments.b : arguments.c) == 7", r#"{"a": true, "b": 7}"#),
        ("arguments.a * 2 + 1 - 7 % 4 == 5 / 2 + 0", r#"{"a": 2}"#),
        ("-arguments.a == 2 && !(arguments.a == 1)", r#"{"a": -2}"#),
        ("arguments.text == \"a\\u0041\\n\\\"\"", r#"{"text": "aA\n\""}"#),
        ("arguments.list == [1, 2.0, 'x', null]", r#"{"list": [1, 2, "x", null]}"#),
        ("'a' in arguments.map && !('b' in arguments.map)", r#"{"map": {"a": 1}}"#),
        // One side that decides makes up for another without a value.
        ("arguments.missing == 1 || true", "{}"),
        ("!(arguments.missing == 1 && false)", "{}"),
        // Types that differ are unequal.
        ("arguments.a != 1", r#"{"a": "1"}"#),
        ("arguments.big == 18446744073709551615u", r#"{"big": 18446744073709551615}"#),
    ] {
        assert_eq!(ask(condition, arguments), Answer::Holds, "{condition} of {arguments}");
        let negated = format!("!({condition})");
        assert_eq!(ask(&negated, arguments), Answer::DoesNotHold, "{negated} of {arguments}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_has_no_value() {
    let nested = format!("{{\"amount\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    for (condition, arguments) in [
        ("arguments.amount <= 100", r#"{"amount": 1, "amount": 1000}"#),
        ("arguments.amount <= 100", r#"{"amount": 1, "\u0061mount": 1000}"#),
        ("arguments.amount <= 100", r#"{"amount": 1, "Amount": 1000}"#),
        ("!has(arguments.amount)", r#"{"AMOUNT": 1000}"#),
        ("arguments['amount'] <= 100", r#"{"amount": 1, "aMount": 1000}"#),
        ("arguments.amount <= 100", r#"{"amount": 1e999}"#),
        ("arguments.amount <= 100", "[1]"),
        ("arguments.amount <= 100", "null"),
        ("arguments.amount <= 100", r#"{"amount": 1"#),
        ("arguments.amount <= 100", &nested),
    ] {
        assert_eq!(ask(condition, arguments), Answer::Unclear, "{condition} of {arguments}");
    }
}

#[test]
fn what_is_missing_or_does_not_fit_has_no_value() {
    for (condition, arguments) in [
        ("arguments.amount <= 100", "{}"),
        ("arguments.amount <= 100", r#"{"amount": "1"}"#),
        ("arguments.a.b == 1", r#"{"a": 1}"#),
        ("arguments.items[5] == 1", r#"{"items": [1]}"#),
        ("arguments.items[-1] == 1", r#"{"items": [1]}"#),
        ("arguments.a", r#"{"a": 1}"#),
        ("arguments.a / 0 == 1", r#"{"a": 1}"#),
        ("arguments.a.startsWith(1)", r#"{"a": "1"}"#),
        ("arguments.items.exists(i, i.x == 1)", r#"{"items": [{"x": 1}, {}]}"#),
        ("arguments.a == arguments.a", r#"{"a": {}}"#),
    ] {
        assert_eq!(ask(condition, arguments), Answer::Unclear, "{condition} of {arguments}");
    }
}

#[test]
fn a_strangers_data_cannot_make_it_slow() {
    let items = serde_json::json!({"items": vec![1; 100_000], "text": "a".repeat(900_000)}).to_string();
    for condition in [
        "arguments.items.all(a, arguments.items.all(b, a == b))",
        "arguments.items.all(a, a in arguments.items)",
        "arguments.items.all(a, arguments.text.contains('b'))",
        "arguments.items.all(a, arguments.text.matches('(a|aa)+$'))",
        "arguments.items == arguments.items && arguments.items == arguments.items",
    ] {
        assert_eq!(ask(condition, &items), Answer::Unclear, "{condition}");
    }
}

#[test]
fn what_is_no_condition_is_told_with_its_place() {
    let deep = format!("{}1{} == 1", "(".repeat(100), ")".repeat(100));
    let long = vec!["true"; 100].join(" && ");
    let huge = "x".repeat(TEXT_BYTES_MAX + 1);
    for (text, message, column) in [
        ("", "expected a value", 1),
        ("arguments.", "expected a name", 11),
        ("arguments.amount <=", "expected a value", 20),
        ("amount <= 100", "`amount` is not known; conditions speak of `arguments`", 1),
        ("arguments.a = 1", "expected the end of the condition", 13),
        (
            "arguments.a.lower() == 'x'",
            "`lower` is no function that conditions have",
            19,
        ),
        (
            "has(arguments)",
            "`has` asks for a field, such as `has(arguments.amount)`",
            14,
        ),
        (
            "arguments.a.matches(arguments.b)",
            "`matches` needs its pattern as a literal text",
            21,
        ),
        (
            "arguments.a.matches('(')",
            "this is no regular expression, or too large a one",
            21,
        ),
        (
            "arguments.a.matches('(a{1000}){1000}')",
            "this is no regular expression, or too large a one",
            21,
        ),
        (
            "arguments.a == 'x",
            "this text does not end, or has an escape that is not known",
            16,
        ),
        ("arguments.a § 1", "this sign has no meaning here", 13),
        (
            "arguments.a.all(arguments, true)",
            "`arguments` is taken; name the variable otherwise",
            26,
        ),
        (&deep, "this is nested more than 32 levels deep", 33),
        (&long, "more than 32 links in one chain", 265),
        (&huge, "a condition has at most 2048 bytes", 1),
    ] {
        let fault = Condition::parse(text).unwrap_err();
        assert_eq!((fault.message.as_str(), fault.column), (message, column), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[a-z().,'\"\\[\\]!&|<=+*/ 0-9\\-]{0,60}", arguments in "\\PC{0,30}") {
        if let Ok(condition) = Condition::parse(&text) {
            condition.ask(&ArgumentsOnce::new(&arguments));
        }
    }
}
