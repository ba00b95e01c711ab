//! Explanations, differences, times, and the size of things.

use std::fmt::Write as _;

use serde_json::json;

use super::super::diff::diff;
use super::super::document::{Grant, Session, Window};
use super::super::explain::explain;
use super::super::span::{Validity, parse_duration};
use super::super::{Arguments, Call, Claims, Document, Policy, Presented, Reason, Target, Trust, token_hash};
use crate::{Decision, Identity, Timestamp};

fn document() -> Document {
    let (document, faults) = Document::parse(
        json!({
            "schema_version": "v1",
            "server": {"name": "payments", "namespace": "acme"},
            "tools": [
                {"name": "list", "side_effect": "read"},
                {"name": "pay", "side_effect": "write", "required_trust": "medium"},
            ],
            "grants": [
                {"name": "readers", "team_id": "red", "max_trust": "low", "allowed_side_effects": ["read"]},
                {"name": "alice-pays", "human_id": "alice", "max_trust": "high", "allowed_side_effects": ["write"],
                 "tool_rules": [{"name": "pay", "decision": "allow", "when": "arguments.amount <= 100"}]},
                {"name": "bob", "human_id": "bob", "max_trust": "high", "allowed_side_effects": ["read", "write"], "disabled": true},
            ],
            "sessions": [{"name": "s1", "human_id": "alice", "team_id": "red", "consented_trust": "low", "token_hash": token_hash("secret")}],
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    assert_eq!(faults, []);
    document
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
}

#[test]
fn explanations_show_the_path_and_the_nearest_grant() {
    let claims = |human, team| Claims {
        human,
        team,
        identity: Identity::Asserted,
        ..Claims::NOBODY
    };
    let call = |target, claims, presented, arguments| Call {
        claims,
        presented,
        arguments: Arguments::Json(arguments),
        ..Call::of(target)
    };
    let pay = Target::Tool("pay");
    let mut text = String::new();
    for (title, call) in [
        (
            "a reader",
            call(Target::Tool("list"), claims("eve", "red"), Presented::Nothing, ""),
        ),
        (
            "little trust",
            call(pay, Claims::NOBODY, Presented::Header("secret"), r#"{"amount": 7}"#),
        ),
        (
            "too much",
            call(pay, claims("alice", ""), Presented::Nothing, r#"{"amount": 700}"#),
        ),
        ("disabled", call(pay, claims("bob", ""), Presented::Nothing, "")),
        (
            "stranger",
            call(Target::Tool("list"), claims("eve", ""), Presented::Nothing, ""),
        ),
        (
            "unknown session",
            call(pay, claims("alice", ""), Presented::Header("guess"), ""),
        ),
        ("nobody", call(pay, Claims::NOBODY, Presented::Nothing, "")),
        ("handshake", call(Target::Open, Claims::NOBODY, Presented::Nothing, "")),
        ("task", call(Target::Task, claims("eve", ""), Presented::Nothing, "")),
    ] {
        let explanation = explain(&document(), &call, now());
        writeln!(
            text,
            "{title}: {} {}",
            explanation.verdict.decision, explanation.verdict.reason
        )
        .unwrap();
        for step in &explanation.steps {
            let mark = if step.failed.is_some() { "no" } else { "ok" };
            writeln!(text, "  {mark} {}: {}", step.check, step.finding).unwrap();
        }
        if let Some(nearest) = &explanation.nearest {
            writeln!(text, "  nearest {}: {}", nearest.grant, nearest.obstacles.join("; ")).unwrap();
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn differences_say_who_gains_and_who_loses() {
    let before = document();
    let mut after = before.clone();
    after.grants.retain(|grant| grant.name != "readers");
    for grant in &mut after.grants {
        grant.disabled = false;
    }
    after.sessions[0].consented_trust = Some(Trust::High);
    let difference = diff(&before, &after, now());
    assert!(difference.is_complete);
    let text: Vec<String> = difference
        .changes
        .iter()
        .map(|change| {
            let sign = if change.is_gain() { '+' } else { '-' };
            format!(
                "{sign} {} {} ({} -> {})",
                change.caller, change.target, change.before.1, change.after.1
            )
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"));
    assert_eq!(diff(&before, &before, now()).changes, []);
}

#[test]
fn methods_are_about_what_they_name() {
    let (name, uri) = (Some("n"), Some("u"));
    for (method, name, uri, target) in [
        ("tools/call", name, uri, Target::Tool("n")),
        ("call_tool", name, None, Target::Tool("n")),
        ("prompts/get", name, uri, Target::Prompt("n")),
        ("resources/read", name, uri, Target::Resource("u")),
        ("resources/subscribe", None, uri, Target::Resource("u")),
        ("resources/unsubscribe", None, uri, Target::Resource("u")),
        ("completion/complete", name, None, Target::Prompt("n")),
        ("completion/complete", None, uri, Target::Resource("u")),
        ("completion/complete", name, uri, Target::Unclear),
        ("completion/complete", None, None, Target::Other),
        ("subscriptions/listen", None, None, Target::Other),
        ("tasks/result", None, None, Target::Task),
        ("notifications/initialized", None, None, Target::Open),
        ("tools/list", None, None, Target::Open),
        ("acme/wipe", name, uri, Target::Other),
    ] {
        assert_eq!(Target::of(method, name, uri), target, "{method}");
    }
    let call = Call {
        claims: Claims {
            human: "alice",
            identity: Identity::Verified,
            ..Claims::NOBODY
        },
        ..Call::of(Target::Unclear)
    };
    assert_eq!(Policy::compile(&document()).decide(&call, now()).reason, Reason::KindDenied);
}

#[test]
fn windows_open_and_close() {
    let window = |days: &[&str], from: &str, to: &str, utc_offset: &str| Window {
        days: days.iter().map(|day| (*day).to_owned()).collect(),
        from: from.to_owned(),
        to: to.to_owned(),
        utc_offset: utc_offset.to_owned(),
    };
    let work = window(&["mon", "tue", "wed", "thu", "fri"], "08:00", "18:00", "+01:00");
    let night = window(&["fri"], "22:00", "06:00", "");
    let sunday = window(&["SUN"], "", "", "");
    for (window, time, holds) in [
        (&work, "2026-11-23T07:00:00Z", true),
        (&work, "2026-11-23T06:59:59Z", false),
        (&work, "2026-11-23T16:59:59Z", true),
        (&work, "2026-11-23T17:00:00Z", false),
        (&work, "2026-11-22T12:00:00Z", false),
        (&night, "2026-11-27T22:00:00Z", true),
        (&night, "2026-11-28T05:59:59Z", true),
        (&night, "2026-11-28T06:00:00Z", false),
        (&night, "2026-11-28T22:00:00Z", false),
        (&night, "2026-11-27T05:00:00Z", false),
        (&sunday, "2026-11-22T00:00:00Z", true),
        (&sunday, "2026-11-22T23:59:59Z", true),
        (&sunday, "2026-11-23T00:00:00Z", false),
    ] {
        let validity = Validity::parse("", "", std::slice::from_ref(window)).unwrap();
        assert_eq!(validity.holds(Timestamp::parse(time).unwrap()), holds, "{window:?} at {time}");
    }
    for (window, message) in [
        (
            window(&["someday"], "", "", ""),
            "windows.days: expected one of mon, tue, wed, thu, fri, sat, sun, got \"someday\"",
        ),
        (window(&[], "8:00", "", ""), "windows.from: expected HH:MM, got \"8:00\""),
        (window(&[], "", "24:01", ""), "windows.to: expected HH:MM, got \"24:01\""),
        (
            window(&[], "", "", "+15:00"),
            "windows.utc_offset: expected an offset such as +01:00, got \"+15:00\"",
        ),
    ] {
        assert_eq!(Validity::parse("", "", &[window]).unwrap_err(), message);
    }
    let validity = Validity::parse("2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z", &[]).unwrap();
    let holds = |time| validity.holds(Timestamp::parse(time).unwrap());
    assert!(holds("2026-11-22T12:00:00Z") && holds("2026-11-22T12:59:59Z"));
    assert!(!holds("2026-11-22T11:59:59Z") && !holds("2026-11-22T13:00:00Z"));
}

#[test]
fn lengths_of_time_are_read() {
    for (text, seconds) in [("24h", 86_400), ("1h30m", 5_400), ("90s", 90), ("2d", 172_800), (" 1m ", 60)] {
        assert_eq!(parse_duration(text), Some(std::time::Duration::from_secs(seconds)), "{text}");
    }
    for text in [
        "",
        "0s",
        "1",
        "h",
        "1.5h",
        "-1h",
        "1w",
        "99999999999999999999h",
        "18446744073709551615d",
    ] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

/// Ten thousand grants and sessions of different callers leave a decision as long as one: the lookups are the same.
#[test]
fn a_caller_is_asked_only_about_its_own_grants() {
    let mut document = document();
    for number in 0..10_000 {
        document.grants.push(Grant {
            name: format!("g{number}"),
            human_id: format!("human-{number}"),
            max_trust: Some(Trust::High),
            ..document.grants[0].clone()
        });
        document.grants.push(Grant {
            name: format!("same{number}"),
            ..document.grants[0].clone()
        });
        document.sessions.push(Session {
            name: format!("s{number}"),
            human_id: format!("human-{number}"),
            token_hash: token_hash(&format!("secret-{number}")),
            ..document.sessions[0].clone()
        });
    }
    let policy = Policy::compile(&document);
    let call = Call {
        presented: Presented::Header("secret-7777"),
        ..Call::of(Target::Tool("list"))
    };
    let verdict = policy.decide(&call, now());
    assert_eq!((verdict.decision, verdict.reason), (Decision::Allow, Reason::Allowed));
    assert_eq!(verdict.matched_grant.unwrap().to_string(), "acme/g7777");
    let who = Claims {
        human: "human-7777",
        team: "red",
        identity: Identity::Verified,
        ..Claims::NOBODY
    };
    let places: Vec<usize> = policy
        .index
        .places(&who)
        .map(|place| place.loose.len() + place.globs.len())
        .collect();
    assert_eq!(places.iter().sum::<usize>(), 0, "folded grants are not asked one by one");
    assert!(places.len() <= 8);
}
