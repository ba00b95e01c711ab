use super::*;
use proptest::prelude::*;

#[test]
fn stars_and_slashes() {
    for (pattern, name, matches) in [
        ("", "", true),
        ("", "a", false),
        ("greet", "greet", true),
        ("greet", "greeting", false),
        ("greet*", "greeting", true),
        ("*", "a/b", false),
        ("**", "a/b", true),
        ("**", "", true),
        ("file:///data/*", "file:///data/a", true),
        ("file:///data/*", "file:///data/a/b", false),
        ("file:///data/**", "file:///data/a/b", true),
        ("file:///*/c", "file:///a/b/c", false),
        ("file:///**/c", "file:///a/b/c", true),
        ("**/*.md", "docs/a/b.md", true),
        ("**/*.md", "docs/a/b.txt", false),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("a?c", "aäc", true),
        ("**a*b", "xx/aa/ab", true),
        ("*a*b*c", "aabbcc", true),
        ("*a*b*c", "aabbccd", false),
        ("**/b*/**/c", "a/b/x/b1/y/z/c", true),
    ] {
        let glob = Glob::over_names(pattern);
        assert_eq!(glob.surely_matches(&Subject::name(name)), matches, "{pattern} of {name}");
        assert_eq!(glob.maybe_matches(&Subject::name(name)), matches, "{pattern} of {name}");
    }
}

#[test]
fn another_spelling_neither_gets_in_nor_gets_past() {
    let allowed = Glob::over_uris("file:///data/**");
    let denied = Glob::over_uris("file:///etc/**");
    for uri in [
        "file:///data/../etc/passwd",
        "file:///data/%2e%2e/etc/passwd",
        "file:///data/%252e%252e/etc/passwd",
        "file:///data/.%2e/etc/passwd",
        "file:///data/..%2fetc/passwd",
        "file:///data/..\\etc\\passwd",
        "file:///data/..%5cetc/passwd",
        "file:///data/./../etc/passwd",
        "FILE:///etc/passwd",
        "file:///%65tc/passwd",
        "file:///etc/./passwd",
    ] {
        let subject = Subject::uri(uri);
        assert!(!allowed.surely_matches(&subject), "{uri} is let in");
        assert!(denied.maybe_matches(&subject), "{uri} gets past");
    }
    for uri in [
        "file:///data/a",
        "file:///data/a%20b/c",
        "file:///data/..a",
        "file:///data/a..",
    ] {
        assert!(allowed.surely_matches(&Subject::uri(uri)), "{uri} is kept out");
        assert!(!denied.maybe_matches(&Subject::uri(uri)), "{uri} is forbidden");
    }
    assert!(Glob::over_uris("file:///my%20docs/*").surely_matches(&Subject::uri("file:///my%20docs/a")));
}

/// Tries every way to match.
fn slowly(pattern: &[Piece], text: &str) -> bool {
    let Some((piece, pattern)) = pattern.split_first() else {
        return text.is_empty();
    };
    let splits = || (0..=text.len()).filter_map(|at| text.split_at_checked(at));
    match piece {
        Piece::Text(own) => text.strip_prefix(&**own).is_some_and(|rest| slowly(pattern, rest)),
        Piece::One => next(text, |letter| letter != '/').is_some_and(|rest| slowly(pattern, rest)),
        Piece::Some => splits()
            .take_while(|(taken, _)| !taken.contains('/'))
            .any(|(_, rest)| slowly(pattern, rest)),
        Piece::Any => splits().any(|(_, rest)| slowly(pattern, rest)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn two_places_to_return_to_are_enough(pattern in "[ab/*?]{0,8}", text in "[ab/]{0,10}") {
        prop_assert_eq!(matches(&pieces(&pattern), &text), slowly(&pieces(&pattern), &text));
    }

    #[test]
    fn a_text_without_stars_matches_itself(text in "[a-z/:.]{0,20}") {
        prop_assert!(Glob::over_names(&text).surely_matches(&Subject::name(&text)));
        prop_assert!(Glob::over_uris(&text).surely_matches(&Subject::uri(&text)));
    }

    #[test]
    fn plain_spelling_is_final(uri in "\\PC{0,20}") {
        let once = plain(&uri).into_owned();
        prop_assert!(!once.contains("/../"));
    }
}
