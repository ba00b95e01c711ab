//! What holds of every document and every call.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::document::*;
use super::super::session::token_hash;
use super::super::words::*;
use super::super::{Arguments, Call, Claims, Document, Policy, Presented, Reason, Target, Verdict};
use super::naive::{self, Told};
use crate::{Decision, Identity, Timestamp};

const NOW: &str = "2026-11-22T12:00:00Z"; // a Sunday
const TRUSTS: [Trust; 3] = [Trust::Low, Trust::Medium, Trust::High];
const EFFECTS: [SideEffect; 3] = [SideEffect::Read, SideEffect::Write, SideEffect::Destructive];
const HUMANS: [&str; 3] = ["", "alice", "bob"];
const AGENTS: [&str; 3] = ["", "cursor", "claude"];
const TEAMS: [&str; 3] = ["", "red", "blue"];
const TOOLS: [&str; 4] = ["list", "pay", "drop", "odd"];
const URIS: [&str; 4] = [
    "file:///data/a",
    "file:///data/b/c",
    "file:///data/%2e%2e/etc",
    "file:///etc/x",
];
const CREDENTIALS: [&str; 3] = ["c0", "c1", "c2"];

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn text(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(choices).prop_map(str::to_owned)
}

fn trust() -> impl Strategy<Value = Option<Trust>> {
    of(select(&TRUSTS[..]))
}

fn decision() -> impl Strategy<Value = Option<Decision>> {
    prop_oneof![4 => Just(None), 4 => Just(Some(Decision::Allow)), 1 => Just(Some(Decision::Deny))]
}

fn condition() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => Just(String::new()),
        1 => text(&["arguments.amount <= 100", "!has(arguments.force)", "arguments.amount > 5"]),
    ]
}

fn rule(names: &'static [&'static str]) -> impl Strategy<Value = Rule> {
    (text(names), decision(), trust(), condition()).prop_map(|(name, decision, required_trust, when)| Rule {
        name,
        decision,
        required_trust,
        when,
    })
}

fn resource_rule() -> impl Strategy<Value = ResourceRule> {
    let patterns = &["file:///data/*", "file:///data/**", "file:///etc/**", "**", "file:///data/a"];
    (text(patterns), decision(), trust()).prop_map(|(uri, decision, required_trust)| ResourceRule {
        uri,
        decision,
        required_trust,
    })
}

fn window() -> impl Strategy<Value = Window> {
    let days = subsequence(vec!["mon", "wed", "sun"], 0..3).prop_map(|days| days.into_iter().map(str::to_owned).collect());
    (
        days,
        text(&["", "09:00", "13:00", "22:00"]),
        text(&["", "08:00", "12:00", "18:00"]),
        text(&["", "+02:00", "-11:30"]),
    )
        .prop_map(|(days, from, to, utc_offset)| Window {
            days,
            from,
            to,
            utc_offset,
        })
}

fn grant() -> impl Strategy<Value = Grant> {
    let subject = (text(&HUMANS), text(&AGENTS), text(&TEAMS));
    let rules = (
        vec(rule(&TOOLS), 0..3),
        vec(rule(&["greet", "g*", "**"]), 0..2),
        vec(resource_rule(), 0..3),
    );
    let times = (
        weighted(0.1, Just("2026-11-23T00:00:00Z".to_owned())),
        weighted(0.1, Just("2026-11-21T00:00:00Z".to_owned())),
        weighted(0.15, vec(window(), 1..3)),
        weighted(
            0.1,
            (1_u32..9).prop_map(|calls| Rate {
                calls,
                per: "1m".to_owned(),
                by: None,
            }),
        ),
    );
    let gives = (
        trust(),
        subsequence(EFFECTS.to_vec(), 0..=3),
        text(&["", "", "g7"]),
        prop::bool::weighted(0.1),
    );
    (subject, rules, times, gives).prop_map(|(subject, rules, times, gives)| Grant {
        name: String::new(),
        namespace: String::new(),
        human_id: subject.0,
        agent_id: subject.1,
        team_id: subject.2,
        max_trust: gives.0,
        allowed_side_effects: gives.1,
        policy_version: gives.2,
        disabled: gives.3,
        tool_rules: rules.0,
        prompt_rules: rules.1,
        resource_rules: rules.2,
        valid_from: times.0.unwrap_or_default(),
        valid_until: times.1.unwrap_or_default(),
        windows: times.2.unwrap_or_default(),
        rate: times.3,
    })
}

fn session() -> impl Strategy<Value = Session> {
    let subject = (text(&HUMANS), text(&AGENTS), text(&TEAMS));
    let life = (
        prop::bool::weighted(0.15),
        text(&["", "", "2026-11-21T00:00:00Z", "2026-11-23T00:00:00Z", "never"]),
        text(&["", "2026-11-22T11:00:00Z", "2026-11-20T00:00:00Z"]),
    );
    (subject, life, trust(), text(&["", "", "s7"])).prop_map(|(subject, life, consented_trust, policy_version)| Session {
        human_id: subject.0,
        agent_id: subject.1,
        team_id: subject.2,
        revoked: life.0,
        expires_at: life.1,
        issued_at: life.2,
        consented_trust,
        policy_version,
        ..Session::default()
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let kind = || of(select(KindRule::ALL));
    (
        prop::bool::weighted(0.1),
        weighted(0.3, Just(Decision::Allow)),
        weighted(0.15, Just(Assurance::Verified)),
        kind(),
        kind(),
        (kind(), kind()),
    )
        .prop_map(
            |(observes, default_decision, require_identity, resources, prompts, (tasks, others))| Settings {
                mode: observes.then_some(Mode::Observe),
                default_decision,
                policy_version: "p1".to_owned(),
                require_identity,
                resources,
                prompts,
                tasks,
                others,
                ..Settings::default()
            },
        )
}

fn session_settings() -> impl Strategy<Value = SessionSettings> {
    (
        prop::bool::weighted(0.3),
        text(&["", "24h"]),
        text(&["", "30m"]),
        of(select(Verification::ALL)),
    )
        .prop_map(|(required, max_lifetime, idle_timeout, verification)| SessionSettings {
            required,
            max_lifetime,
            idle_timeout,
            verification,
            ..SessionSettings::default()
        })
}

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    let tool = |name: &'static str, side_effect| {
        (
            trust(),
            weighted(0.2, Just("sha256:aa".to_owned())),
            weighted(0.2, Just("pay".to_owned())),
        )
            .prop_map(move |(required_trust, pin, scope)| Tool {
                name: name.to_owned(),
                required_trust,
                side_effect,
                pin: pin.unwrap_or_default(),
                required_scopes: scope.into_iter().collect(),
                ..Tool::default()
            })
    };
    (
        tool("list", Some(SideEffect::Read)),
        tool("pay", Some(SideEffect::Write)),
        tool("drop", Some(SideEffect::Destructive)),
    )
        .prop_map(|(list, pay, drop)| vec![list, pay, drop])
}

/// Documents with few names, so that much of it meets.
fn document() -> impl Strategy<Value = Document> {
    let auth = prop_oneof![8 => Just(AuthMode::Header), 1 => Just(AuthMode::None)];
    (
        auth,
        settings(),
        session_settings(),
        tools(),
        vec(grant(), 0..7),
        vec(session(), 0..4),
    )
        .prop_map(|(mode, settings, session, tools, mut grants, mut sessions)| {
            for (at, grant) in grants.iter_mut().enumerate() {
                // Names in an order that is not the order of the list.
                grant.name = format!("g{}", (at * 5 + 3) % 7);
                grant.namespace = if at % 3 == 0 { "other".to_owned() } else { String::new() };
            }
            for (at, session) in sessions.iter_mut().enumerate() {
                session.name = format!("s{at}");
                if session.human_id.is_empty() && session.agent_id.is_empty() && session.team_id.is_empty() {
                    session.human_id = "alice".to_owned();
                }
                if let Some(credential) = CREDENTIALS.get(at).filter(|_| at != 1) {
                    session.token_hash = token_hash(credential);
                }
            }
            Document {
                schema_version: SCHEMA_VERSION.to_owned(),
                server: Server {
                    name: "payments".to_owned(),
                    namespace: "acme".to_owned(),
                    ..Server::default()
                },
                auth: Some(Auth {
                    mode: Some(mode),
                    ..Auth::default()
                }),
                policy: Some(settings),
                session: Some(session),
                tools,
                grants,
                sessions,
                ..Document::default()
            }
        })
}

fn call() -> impl Strategy<Value = Call<'static>> {
    let target = prop_oneof![
        6 => select(&TOOLS[..]).prop_map(Target::Tool),
        2 => select(&URIS[..]).prop_map(Target::Resource),
        1 => select(vec!["greet", "go/on", "x"]).prop_map(Target::Prompt),
        1 => select(vec![Target::Task, Target::Open, Target::Other, Target::Unclear]),
    ];
    let arguments = prop_oneof![
        Just(Arguments::Json("")),
        Just(Arguments::Json(r#"{"amount": 7}"#)),
        Just(Arguments::Json(r#"{"amount": 700, "force": true}"#)),
        Just(Arguments::Json(r#"{"amount": 7, "amount": 700}"#)),
        Just(Arguments::Any),
    ];
    let presented = prop_oneof![
        4 => Just(Presented::Nothing),
        3 => select(vec!["c0", "c1", "c2", "s0", "s1", "acme/s1", "other/s1", "nothing"]).prop_map(Presented::Header),
        1 => select(vec!["s0", "s1", "s9"]).prop_map(|name| Presented::Certified { namespace: "acme", name }),
    ];
    let identity = select(vec![Identity::Asserted, Identity::Verified]);
    let scopes = select(vec![None, Some("read"), Some("read pay")]);
    let claims = (select(&HUMANS[..]), select(&AGENTS[..]), select(&TEAMS[..]), identity, scopes);
    let last_used = of((0_u64..3_600).prop_map(|seconds| now().minus(std::time::Duration::from_secs(seconds))));
    let definition = select(vec![None, Some("sha256:aa"), Some("sha256:bb")]);
    (target, arguments, presented, claims, last_used, definition).prop_map(
        |(target, arguments, presented, (human, agent, team, identity, scopes), last_used, definition)| Call {
            target,
            arguments,
            presented,
            claims: Claims {
                human,
                agent,
                team,
                identity,
                scopes,
            },
            last_used,
            definition,
        },
    )
}

fn told(verdict: &Verdict) -> Told {
    Told {
        decision: verdict.decision,
        reason: verdict.reason,
        grant: verdict.matched_grant.as_ref().map(ToString::to_string),
        version: verdict.policy_version.to_string(),
        trusts: [
            verdict.required_trust,
            verdict.admin_trust,
            verdict.consented_trust,
            verdict.effective_trust,
        ],
    }
}

fn decide(document: &Document, call: &Call<'_>) -> Verdict {
    Policy::compile(document).decide(call, now())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn compiled_and_naive_evaluation_agree(document in document(), calls in vec(call(), 8)) {
        let policy = Policy::compile(&document);
        for call in calls {
            let verdict = policy.decide(&call, now());
            let naive = naive::decide(&document, &call, now());
            prop_assert_eq!(told(&verdict), naive, "{:?}", call);
        }
    }
}

proptest! {
    #[test]
    fn order_never_matters(document in document(), calls in vec(call(), 4), seed in any::<u64>()) {
        let mut other = document.clone();
        let turn = usize::try_from(seed % 5).unwrap();
        let grants = other.grants.len().max(1);
        other.grants.rotate_left(turn % grants);
        other.sessions.reverse();
        other.tools.rotate_left(turn % 3);
        for grant in &mut other.grants {
            grant.tool_rules.reverse();
            grant.resource_rules.reverse();
            grant.allowed_side_effects.reverse();
            grant.windows.reverse();
        }
        prop_assert_eq!(document.revision_of(), other.revision_of());
        let (mut one, mut two) = (document, other);
        for call in &calls {
            let (first, second) = (decide(&one, call), decide(&two, call));
            prop_assert_eq!(&first, &second);
        }
        one.stamp();
        two.stamp();
        prop_assert_eq!(one.to_json(), two.to_json());
    }

    #[test]
    fn a_denial_beats_every_allowance(document in document(), calls in vec(call(), 4), at in 0_usize..9) {
        let mut denying = document;
        denying.policy = denying.policy.map(|settings| Settings { mode: None, ..settings });
        let deny = |name: &str| Rule { name: name.to_owned(), decision: Some(Decision::Deny), ..Rule::default() };
        let grant = Grant {
            name: "no".to_owned(),
            tool_rules: TOOLS.map(deny).into(),
            prompt_rules: vec![deny("**")],
            resource_rules: vec![ResourceRule { uri: "**".to_owned(), decision: Some(Decision::Deny), required_trust: None }],
            ..Grant::default()
        };
        denying.grants.insert(at.min(denying.grants.len()), grant);
        for call in &calls {
            let verdict = decide(&denying, call);
            let settings = denying.policy.as_ref().unwrap();
            let needs_grant = match call.target {
                Target::Tool(_) => true,
                Target::Resource(_) => settings.resources.unwrap_or(KindRule::Granted) == KindRule::Granted,
                Target::Prompt(_) => settings.prompts.unwrap_or(KindRule::Granted) == KindRule::Granted,
                _ => false,
            };
            // Where nobody is identified no grant applies, and the default speaks.
            let is_somebody = verdict.caller.identity != Identity::None;
            prop_assert!(!(needs_grant && is_somebody) || verdict.decision == Decision::Deny, "{:?} {:?}", call, verdict);
        }
    }

    #[test]
    fn more_trust_never_refuses_and_more_asked_never_allows(
        document in document(), calls in vec(call(), 4), grant in any::<prop::sample::Index>(), more in select(&TRUSTS[..]),
    ) {
        let (mut trusting, mut asking) = (document.clone(), document.clone());
        if !document.grants.is_empty() {
            let at = grant.index(document.grants.len());
            let before = document.grants[at].max_trust.unwrap_or(Trust::Low);
            trusting.grants[at].max_trust = Some(before.max(more));
        }
        for session in &mut trusting.sessions {
            session.consented_trust = session.consented_trust.max(Some(more));
        }
        for tool in &mut asking.tools {
            tool.required_trust = tool.required_trust.max(Some(more));
        }
        for call in &calls {
            let before = decide(&document, call).decision;
            prop_assert!(before == Decision::Deny || decide(&trusting, call).decision == Decision::Allow);
            prop_assert!(before == Decision::Allow || decide(&asking, call).decision == Decision::Deny);
        }
    }

    #[test]
    fn nobody_is_not_served(document in document(), call in call()) {
        let mut document = document;
        document.policy = document.policy.map(|settings| Settings { mode: None, ..settings });
        document.auth = None;
        let call = Call { claims: Claims::NOBODY, presented: Presented::Nothing, ..call };
        let verdict = decide(&document, &call);
        prop_assert_eq!(verdict.reason, if call.target == Target::Open { Reason::Allowed } else { Reason::MissingIdentity });
    }

    #[test]
    fn what_a_list_shows_is_what_some_call_may_do(document in document(), calls in vec(call(), 4)) {
        let policy = Policy::compile(&document);
        for call in &calls {
            let allowed = policy.decide(call, now()).decision == Decision::Allow;
            prop_assert!(!allowed || policy.may_list(call, now()), "{:?} passes and is not shown", call);
        }
    }

    #[test]
    fn the_wire_form_reads_back(document in document()) {
        let mut document = document;
        document.stamp();
        let (read, faults) = Document::parse(document.to_json().as_bytes()).unwrap();
        let is_readable = document.sessions.iter().all(|session| session.expires_at != "never");
        prop_assert_eq!(faults.is_empty(), is_readable);
        prop_assert_eq!(read.revision.clone(), document.revision.clone());
        if is_readable {
            prop_assert_eq!(read, document);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(document in document(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut json = document.to_json().into_bytes();
        let at = cut.index(json.len());
        json[at] = byte;
        if let Ok((document, _)) = Document::parse(&json) {
            decide(&document, &Call::of(Target::Tool("list")));
        }
    }
}
