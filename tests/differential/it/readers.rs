//! Six parsers: `serde_json`, `sonic-rs`, V8, `CPython`, and Go's into maps and into types.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use sonic_rs::{JsonContainerTrait as _, JsonValueTrait as _};

/// What a server would act on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Read {
    ok: bool,
    method: Value,
    name: Value,
    uri: Value,
    arguments: Value,
}

impl Read {
    /// Whether it was read as this method and tool with these arguments.
    pub(crate) fn is(&self, method: &str, tool: Option<&str>, arguments: &Value) -> bool {
        self.ok && self.method == method && self.name.as_str() == tool && is_same(&self.arguments, arguments)
    }
}

/// The same value, where numbers are doubles as most servers read them.
fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| is_same(left, right)))
        }
        _ => left == right,
    }
}

/// What each parser makes of each body, by its name.
pub(crate) fn all(bodies: &[&[u8]]) -> Vec<(&'static str, Vec<Read>)> {
    let lines: Vec<_> = bodies.iter().map(|body| STANDARD.encode(body)).collect();
    let services = services();
    let readers = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers");
    let folder = tempfile::TempDir::new().unwrap();
    let go = folder.path().join("read");
    let built = Command::new("go")
        .arg("build")
        .arg("-o")
        .arg(&go)
        .arg(readers.join("read.go"))
        .status();
    assert!(built.is_ok_and(|built| built.success()), "building read.go needs Go");
    vec![
        ("serde_json", bodies.iter().map(|body| by_serde(body)).collect()),
        ("sonic-rs", bodies.iter().map(|body| by_sonic(body)).collect()),
        (
            "V8",
            by_process(Command::new(services.join("bin/node")).arg(readers.join("read.mjs")), &lines),
        ),
        (
            "CPython",
            by_process(Command::new("python3").arg(readers.join("read.py")), &lines),
        ),
        ("Go, into maps", by_process(&mut Command::new(&go), &lines)),
        ("Go, into types", by_process(Command::new(&go).arg("struct"), &lines)),
    ]
}

fn services() -> std::path::PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../services/install.sh");
    let output = Command::new(script)
        .arg("node")
        .stderr(Stdio::inherit())
        .output()
        .expect("running install.sh");
    assert!(output.status.success(), "install.sh: {}", output.status);
    String::from_utf8(output.stdout).unwrap().trim().into()
}

fn by_process(command: &mut Command, lines: &[String]) -> Vec<Read> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting a reader");
    let mut input = child.stdin.take().unwrap();
    let text = lines.join("\n") + "\n";
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let read: Vec<Read> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read.len(), lines.len(), "{command:?}");
    read
}

fn by_serde(body: &[u8]) -> Read {
    let Ok(message) = serde_json::from_slice::<Value>(body) else {
        return Read::default();
    };
    let params = &message["params"];
    Read {
        ok: true,
        method: message["method"].clone(),
        name: params["name"].clone(),
        uri: params["uri"].clone(),
        arguments: params["arguments"].clone(),
    }
}

fn by_sonic(body: &[u8]) -> Read {
    let Ok(message) = sonic_rs::from_slice::<sonic_rs::Value>(body) else {
        return Read::default();
    };
    let plain = |value: Option<&sonic_rs::Value>| match value {
        None => Value::Null,
        Some(value) if value.is_null() => Value::Null,
        Some(value) => serde_json::from_str(&sonic_rs::to_string(value).unwrap()).unwrap(),
    };
    let object = message.as_object();
    let params = object
        .and_then(|object| object.get(&"params"))
        .and_then(|params| params.as_object());
    let of_params = |name: &str| plain(params.and_then(|params| params.get(&name)));
    Read {
        ok: true,
        method: plain(object.and_then(|object| object.get(&"method"))),
        name: of_params("name"),
        uri: of_params("uri"),
        arguments: of_params("arguments"),
    }
}
