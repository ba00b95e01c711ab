use super::*;

const NOW: i64 = 1_800_000_000;

fn names() -> Vec<String> {
    vec!["mcp-operator.mcp-runtime.svc".to_owned(), "127.0.0.1".to_owned()]
}

fn after(held: Option<&Material>, now: i64) -> Option<Material> {
    renewed(held, &names(), now).unwrap()
}

#[test]
fn what_is_good_is_kept_and_what_ends_soon_is_replaced() {
    let first = after(None, NOW).unwrap();
    assert_eq!(after(Some(&first), NOW), None);
    assert_eq!(after(Some(&first), NOW + 60 * DAY), None);
    let second = after(Some(&first), NOW + 61 * DAY).unwrap();
    assert_ne!(first.certificate, second.certificate);
    assert_eq!(
        (&first.authorities, &first.authority_key),
        (&second.authorities, &second.authority_key),
        "the authority stays"
    );
    assert!(
        renewed(Some(&first), &["other".to_owned()], NOW).unwrap().is_some(),
        "other names"
    );
}

#[test]
fn an_old_authority_is_believed_for_as_long_as_its_certificates_live() {
    let first = after(None, NOW).unwrap();
    let last_year = NOW + AUTHORITY_SECONDS - 364 * DAY;
    let second = after(Some(&first), last_year).unwrap();
    assert_eq!(second.authorities.matches(END).count(), 2);
    assert!(second.authorities.contains(first.authorities.trim()));
    assert_eq!(after(Some(&second), last_year), None);
    let third = after(Some(&second), last_year + AUTHORITY_SECONDS - 364 * DAY).unwrap();
    assert_eq!(third.authorities.matches(END).count(), 2, "only the one before is kept");
}

#[test]
fn keys_are_not_shown() {
    let text = format!("{:?}", after(None, NOW).unwrap());
    assert!(!text.contains("PRIVATE") && !text.contains("BEGIN"), "{text}");
}
