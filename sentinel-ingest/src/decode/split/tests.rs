use proptest::prelude::*;

use super::*;

fn texts(items: &[Item<'_>]) -> Vec<String> {
    let text = |item: &Item<'_>| match item {
        Item::Json(json) => String::from_utf8_lossy(json).into_owned(),
        Item::Broken(fault) => format!("broken: {}", fault.code),
    };
    items.iter().map(text).collect()
}

fn json(text: &str) -> Vec<String> {
    texts(&split(text.as_bytes(), Layout::Json, 100).unwrap())
}

#[test]
fn documents_may_be_spread_over_lines_or_share_one() {
    assert_eq!(json("{\"a\":\n{\"b\":1}}"), ["{\"a\":\n{\"b\":1}}"]);
    assert_eq!(json("{\"a\":1}{\"b\":2} {\"c\":3}"), ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]);
    assert_eq!(json("[{\"a\":1}, 2]"), ["{\"a\":1}", "2"]);
}

#[test]
fn a_broken_line_ends_at_its_end() {
    assert_eq!(json("{\"a\":1}\n{\"b\":\n{\"c\":3}\n"), ["{\"a\":1}", "{\"b\":", "{\"c\":3}"]);
}

#[test]
fn without_lines_one_fault_speaks_for_the_rest() {
    assert_eq!(json("{\"a\":1} {\n  \"b\": oops\n}"), ["{\"a\":1}", "broken: invalid_json"]);
}

#[test]
fn the_bound_on_events_holds_in_every_layout() {
    for (text, layout) in [("1\n2\n3", Layout::Lines), ("1 2 3", Layout::Json), ("[1,2,3]", Layout::Json)] {
        assert_eq!(
            split(text.as_bytes(), layout, 2),
            Err(BodyFault::TooManyEvents { events_max: 2 }),
            "{text}"
        );
        assert_eq!(split(text.as_bytes(), layout, 3).unwrap().len(), 3, "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_breaks_the_split(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for layout in [Layout::Json, Layout::Lines] {
            let _outcome = split(&bytes, layout, 10);
        }
    }

    #[test]
    fn nearly_json_breaks_nothing(text in r#"[\[\]{}",:\\ \nau0-9]{0,60}"#) {
        for layout in [Layout::Json, Layout::Lines] {
            let _outcome = split(text.as_bytes(), layout, 10);
        }
    }

    #[test]
    fn every_layout_finds_every_document(documents in proptest::collection::vec(r#"\{"[a-z]{0,5}":"[^"\\\p{Cc}]{0,20}"\}"#, 1..20)) {
        let lines = documents.join("\n");
        let array = format!("[{}]", documents.join(" ,\n"));
        for (text, layout) in [(lines.clone(), Layout::Lines), (lines, Layout::Json), (array, Layout::Json), (documents.concat(), Layout::Json)] {
            prop_assert_eq!(texts(&split(text.as_bytes(), layout, 100).unwrap()), documents.clone());
        }
    }
}
