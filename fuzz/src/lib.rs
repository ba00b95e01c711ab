//! What is fuzzed: everything that reads bytes somebody else chose.
//!
//! A target takes any bytes and panics when a promise does not hold for them. `cargo test -p fuzz` replays the corpus and a fixed
//! number of mutations of it; `cargo fuzz run NAME --features libfuzzer` looks for more, guided by coverage.

mod segment;

use std::path::Path;
use std::time::Duration;

use domain::Timestamp;

/// One thing to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "answer",
        run: gateway::fuzzing::answer,
    },
    Target {
        name: "body",
        run: sentinel_ingest::fuzzing::body,
    },
    Target {
        name: "event",
        run: domain::fuzzing::event,
    },
    Target {
        name: "list",
        run: gateway::fuzzing::list,
    },
    Target {
        name: "manifest",
        run: manifest,
    },
    Target {
        name: "policy",
        run: domain::fuzzing::policy,
    },
    Target {
        name: "record",
        run: sentinel_queue::log::fuzzing::record,
    },
    Target {
        name: "request",
        run: gateway::fuzzing::request,
    },
    Target {
        name: "row",
        run: domain::fuzzing::row,
    },
    Target {
        name: "segment",
        run: segment::read,
    },
    Target {
        name: "stream",
        run: gateway::fuzzing::stream,
    },
];

/// The target of a name; panics when there is none.
pub fn named(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.expect("a program has the name of its target")
}

/// YAML of custom resources: what cannot be read is a fault with its line, and what can be renders to a policy that can be read.
fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut manifests = crds::Manifests::default();
    manifests.take(Path::new("fuzz.yaml"), text);
    let occasion = crds::render::Occasion {
        cluster: "fuzz",
        now: Timestamp::from_seconds(1_795_000_000),
        grace: Duration::from_hours(1),
    };
    for server in &manifests.servers {
        let document = crds::render(server, &manifests.grants, &manifests.sessions, &occasion);
        domain::fuzzing::policy(document.to_json().as_bytes());
    }
}
