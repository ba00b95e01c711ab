//! Every query of the dashboards runs on the engine and answers rows; every metric of dashboards and alert rules is one that the
//! programs tell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use domain::Timestamp;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::Value;

use crate::harness::backends::Backends;
use crate::harness::installation::Installation;
use crate::harness::ledger::{Ledger, batch};
use crate::harness::{now, until};

/// What Grafana asks about in this test: the last two days, in steps of a minute.
const RANGE_SECONDS: i64 = 2 * 86_400;
const STEP_SECONDS: u64 = 60;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards")
}

fn boards() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(folder().join("grafana/dashboards")).expect("the folder of dashboards");
    let read = |file: std::io::Result<std::fs::DirEntry>| {
        let path = file.expect("a dashboard").path();
        let text = std::fs::read_to_string(&path).expect("a dashboard");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("a dashboard as JSON"))
    };
    files.map(read).collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Title and text of what the panels of a dashboard ask a data source.
fn asked(board: &Value, field: &str) -> Vec<(String, String)> {
    let mut asked = Vec::new();
    for panel in list(board, "/panels") {
        let texts = list(panel, "/targets").iter().filter_map(|target| target[field].as_str());
        asked.extend(texts.map(|text| (panel["title"].as_str().unwrap_or_default().to_owned(), text.to_owned())));
    }
    asked
}

/// Replaces each `name(argument)` by what `with` makes of the argument; parentheses may nest.
fn replaced(text: &str, name: &str, with: impl Fn(&str) -> String) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(name) {
        let mut depth = 0_i32;
        let end = after.char_indices().find_map(|(at, letter)| {
            depth += i32::from(letter == '(') - i32::from(letter == ')');
            (depth == 0).then_some(at)
        });
        let end = end.unwrap_or_else(|| panic!("{name} is not closed in {text}"));
        let (argument, behind) = after.split_at(end);
        done.push_str(before);
        done.push_str(&with(argument.strip_prefix('(').unwrap_or(argument)));
        rest = behind.strip_prefix(')').unwrap_or(behind);
    }
    done + rest
}

/// The query as Grafana's ClickHouse data source sends it: first what the browser fills in, then what its server side does.
fn expanded(text: &str, chosen: &[(&str, &str)], until: Timestamp) -> String {
    let (to, step) = (until.seconds(), STEP_SECONDS);
    let from = to - RANGE_SECONDS;
    // Somebody chose some values of each variable: then a condition stays.
    let text = replaced(text, "$__conditionalAll", |both| {
        let (condition, variable) = both.rsplit_once(',').expect("a condition and a variable");
        assert!(variable.trim().starts_with('$'), "{variable}");
        condition.to_owned()
    });
    let text = chosen.iter().fold(text, |text, (name, value)| {
        text.replace(&format!("${{{name}:singlequote}}"), value)
    });
    let text = replaced(&text, "$__timeFilter", |column| {
        format!("{column} >= toDateTime({from}) AND {column} <= toDateTime({to})")
    });
    let text = replaced(&text, "$__timeInterval", |column| {
        format!("toStartOfInterval(toDateTime({column}), INTERVAL {step} second)")
    });
    let text = text
        .replace("$__interval_s", &step.to_string())
        .replace("$__fromTime", &format!("toDateTime({from})"))
        .replace("$__toTime", &format!("toDateTime({to})"));
    assert!(!text.contains('$'), "something is left that nobody fills in: {text}");
    text
}

#[test]
fn dashboards_are_as_generated() {
    let generate = folder().join("grafana/generate");
    let done = Command::new(generate).arg("--check").output().expect("running the generator");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let uids: BTreeSet<String> = boards().iter().map(|(_, board)| board["uid"].to_string()).collect();
    assert_eq!(uids.len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_dashboards_answers_rows() {
    let Some(backends) = Backends::shared().await else { return };
    let installation = Installation::start(&backends, 3).await;
    installation.ingest.ready().await;
    let (mut random, mut ledger) = (SmallRng::seed_from_u64(3), Ledger::new());
    for _ in 0..12 {
        let batch = batch(&mut random, "acme", &mut ledger);
        until("a batch is taken", async || installation.send(&batch).await).await;
    }
    installation.exact(&ledger, "for the dashboards").await;
    let chosen = [
        ("namespace", "'acme'"),
        ("server", "'server-0','server-1','server-2'"),
        ("tool", "'tool-0','tool-1','tool-2','tool-3'"),
    ];
    let (mut faults, mut count, end) = (Vec::new(), 0, now());
    for (name, board) in boards() {
        let variables = list(&board, "/templating/list");
        let variables = variables.iter().map(|variable| {
            (
                variable["name"].to_string(),
                variable["query"].as_str().unwrap_or_default().to_owned(),
            )
        });
        for (title, query) in asked(&board, "rawSql").into_iter().chain(variables) {
            count += 1;
            let sql = expanded(&query, &chosen, end);
            match installation.ask(&sql).await {
                Ok(rows) if rows.is_empty() => faults.push(format!("{name}, {title}: no rows: {sql}")),
                Ok(_) => {}
                Err(error) => faults.push(format!("{name}, {title}: {error}")),
            }
        }
    }
    assert!(count > 60, "only {count} queries were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    installation.end().await;
}

/// Names of metrics in an expression: words of ours that are no labels.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    let ours = ["sentinel_", "platform_api_", "mcp_gateway_", "service_kit_", "process_"];
    let ours = words.filter(|word| ours.iter().any(|prefix| word.starts_with(prefix)));
    ours.map(str::to_owned).collect()
}

/// Names that the samples of these pages may have, by what the pages declare: also of those that have no sample yet.
fn told(pages: &str) -> BTreeSet<String> {
    let declared = pages.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = declared.flat_map(|(name, kind)| match kind {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).into(),
        _ => vec![name.to_owned()],
    });
    names.collect()
}

/// Names that gateways register. Most of theirs appear with the first drop, the first failure and so on, which no quick test brings
/// about, so the source has to say it.
fn registered_by_gateways() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ["metrics.rs", "record.rs"] {
        let text = std::fs::read_to_string(folder().join("../gateway/src").join(file)).expect("the gateway's source");
        for call in text.split(".register(").skip(1) {
            names.extend(
                call.trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next())
                    .map(str::to_owned),
            );
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_dashboards_and_alerts_is_told_by_a_program() {
    let Some(backends) = Backends::shared().await else { return };
    let installation = Installation::start(&backends, 4).await;
    installation.ingest.ready().await;
    installation.processors[0].ready().await;
    let api = installation.api().await;
    // What is counted by label is told from the first count on.
    let (mut random, mut ledger) = (SmallRng::seed_from_u64(4), Ledger::new());
    let batch = batch(&mut random, "acme", &mut ledger);
    until("a batch is taken", async || installation.send(&batch).await).await;
    installation.refused().await;
    let mut pages = String::new();
    for process in [&installation.ingest, &installation.processors[0], &api.process] {
        pages.push_str(&process.page("/metrics").await.1);
    }
    let told = told(&pages);
    let rules = std::fs::read_to_string(folder().join("prometheus/alerts.yaml")).expect("the alert rules");
    let rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let mut wanted: BTreeSet<String> = rules.flat_map(metrics).collect();
    assert!(wanted.len() > 5, "only {wanted:?} were found in the alert rules");
    for (_, board) in boards() {
        wanted.extend(asked(&board, "expr").iter().flat_map(|(_, text)| metrics(text)));
    }
    let registered = registered_by_gateways();
    let is_known = |name: &str| match name.strip_prefix("mcp_gateway_") {
        Some(rest) => registered.contains(rest.trim_end_matches("_total")),
        None => told.contains(name),
    };
    let unknown: Vec<&String> = wanted.iter().filter(|name| !is_known(name)).collect();
    assert!(unknown.is_empty(), "nobody tells {unknown:?}; told are {told:?}");
    installation.end().await;
}

#[test]
fn prometheus_understands_its_rules_and_its_configuration() {
    let run = |args: &[&str]| {
        Command::new("promtool")
            .args(args)
            .current_dir(folder().join("prometheus"))
            .output()
    };
    for args in [["check", "rules", "alerts.yaml"], ["check", "config", "prometheus.yaml"]] {
        let Ok(done) = run(&args) else {
            crate::harness::skip(
                "the check of Prometheus rules",
                "promtool is not here: tests/services/install.sh prometheus",
            );
            return;
        };
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            done.status.success(),
            "{args:?}: {}{}",
            said(&done.stdout),
            said(&done.stderr)
        );
    }
}
