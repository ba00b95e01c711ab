use super::*;

fn cursor() -> Cursor {
    let place = Position {
        partition: 2,
        offset: 77,
    };
    Cursor {
        order: Order::Newest(Some((Timestamp::from_nanos(-5), place))),
        since: Some(Timestamp::from_nanos(1)),
        until: None,
    }
}

#[test]
fn a_cursor_reads_back_for_its_own_question() {
    let text = cursor().write("server=a").unwrap();
    assert_eq!(Cursor::read(&text, "server=a").unwrap(), cursor());
    let arrival = Cursor {
        order: Order::Arrival(Some(Position { partition: 0, offset: 1 })),
        ..cursor()
    };
    assert_eq!(Cursor::read(&arrival.write("").unwrap(), "").unwrap(), arrival);
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'),
        "{text}"
    );
}

#[test]
fn a_cursor_of_another_question_is_told_so() {
    let text = cursor().write("server=a").unwrap();
    let problem = Cursor::read(&text, "server=b").unwrap_err();
    assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_query_param"));
    assert!(problem.message.contains("another query"), "{}", problem.message);
}

#[test]
fn nonsense_is_no_cursor() {
    let later = URL_SAFE_NO_PAD.encode(r#"{"v":2,"d":"older","t":1,"p":0,"o":1,"q":""}"#);
    let offset = URL_SAFE_NO_PAD.encode(r#"{"offset":100}"#);
    for text in ["", "x", "===", &later, &offset, &"a".repeat(2_000)] {
        assert_eq!(Cursor::read(text, "").unwrap_err().status.as_u16(), 400, "{text}");
    }
}
