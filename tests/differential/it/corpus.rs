//! The bodies: those in files, and those that are made.

use std::path::Path;

/// One body, and what must become of it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) body: Vec<u8>,
    /// Headers beside the usual ones.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// In how many bytes at a time it is sent.
    pub(crate) chunk_bytes: usize,
}

impl Case {
    fn new(name: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            body: body.into(),
            headers: Vec::new(),
            chunk_bytes: usize::MAX,
        }
    }

    pub(crate) fn must_pass(&self) -> bool {
        self.name.starts_with("pass-")
    }
}

/// A call of the one tool that is allowed, with one argument.
fn call(arguments: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read_file","arguments":{arguments}}}}}"#)
}

/// A call of a tool whose arguments nothing depends on.
fn list(arguments: &str) -> String {
    call(arguments).replace("read_file", "list")
}

pub(crate) fn all() -> Vec<Case> {
    let mut cases = files();
    assert!(cases.len() >= 90, "the corpus is not whole: {}", cases.len());
    let in_pieces: Vec<_> = cases
        .iter()
        .map(|case| Case {
            name: format!("{}-in-pieces", case.name),
            body: case.body.clone(),
            headers: Vec::new(),
            chunk_bytes: 7,
        })
        .collect();
    cases.extend(in_pieces);
    cases.extend(made());
    cases.extend(told_by_headers());
    cases
}

fn files() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut cases: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            Case::new(name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    cases.sort_by(|left, right| left.name.cmp(&right.name));
    cases
}

fn made() -> Vec<Case> {
    let nested = |open: &str, close: &str, depth: usize| {
        let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        call(&format!(r#"{{"path":"/safe","x":{deep}}}"#))
    };
    let digits = "9".repeat(5_000);
    vec![
        Case::new("pass-lists-100-deep", nested("[", "]", 100)),
        Case::new("refuse-lists-200-deep", nested("[", "]", 200)),
        Case::new("refuse-lists-100000-deep", nested("[", "]", 100_000)),
        Case::new("refuse-objects-10000-deep", nested(r#"{"a":"#, "}", 10_000)),
        Case::new(
            "refuse-number-of-5000-digits",
            call(&format!(r#"{{"path":"/safe","x":{digits}}}"#)),
        ),
        Case::new(
            "refuse-exponent-of-5000-digits",
            call(&format!(r#"{{"path":"/safe","x":1e{digits}}}"#)),
        ),
        Case::new(
            "pass-text-of-a-megabyte",
            list(&format!(r#"{{"x":"{}"}}"#, "a".repeat(1 << 20))),
        ),
        Case::new("pass-key-of-a-megabyte", list(&format!(r#"{{"{}":1}}"#, "a".repeat(1 << 20)))),
        Case::new(
            "refuse-name-after-a-megabyte",
            format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read_file","arguments":{{"path":"/safe"}},"x":"{}","name":"refund"}}}}"#,
                "a".repeat(1 << 20)
            ),
        ),
    ]
}

/// What headers say of a body, and what it says itself.
fn told_by_headers() -> Vec<Case> {
    const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");
    const METHOD: (&str, &str) = ("mcp-method", "tools/call");
    const NAME: (&str, &str) = ("mcp-name", "read_file");
    let body = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/safe"},"#,
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#
    );
    let cases = [
        ("pass-headers-agree", vec![VERSION, METHOD, NAME]),
        (
            "pass-header-in-base64",
            vec![VERSION, METHOD, ("mcp-name", "=?base64?cmVhZF9maWxl?=")],
        ),
        ("refuse-header-of-another-tool", vec![VERSION, METHOD, ("mcp-name", "list")]),
        (
            "refuse-header-in-another-case",
            vec![VERSION, METHOD, ("mcp-name", "Read_File")],
        ),
        (
            "refuse-header-in-broken-base64",
            vec![VERSION, METHOD, ("mcp-name", "=?base64?%%?=")],
        ),
        (
            "refuse-header-in-empty-base64",
            vec![VERSION, METHOD, ("mcp-name", "=?base64??=")],
        ),
        (
            "refuse-header-in-half-base64",
            vec![VERSION, METHOD, ("mcp-name", "=?base64?cmVhZF9maWxl")],
        ),
        (
            "refuse-header-of-another-method",
            vec![VERSION, ("mcp-method", "tools/list"), NAME],
        ),
        ("refuse-header-missing", vec![VERSION, METHOD]),
        ("refuse-header-twice", vec![VERSION, METHOD, NAME, NAME]),
        (
            "refuse-header-twice-differently",
            vec![VERSION, METHOD, NAME, ("mcp-name", "refund")],
        ),
        ("refuse-version-missing", vec![METHOD, NAME]),
        (
            "refuse-version-of-another-year",
            vec![("mcp-protocol-version", "2027-01-01"), METHOD, NAME],
        ),
    ];
    let cases = cases.into_iter().map(|(name, headers)| Case {
        headers,
        ..Case::new(name, body)
    });
    cases.collect()
}
