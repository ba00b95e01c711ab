//! The graph of crates in ARCHITECTURE.md is the one that cargo sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of each crate: its layer, and what of this workspace it stands on.
type Graph = BTreeMap<String, (u32, BTreeSet<String>)>;

/// States features and has no code.
const NO_CODE: &str = "workspace-hack";

/// Folders whose crates are no parts of the product.
const OUTSIDE: [&str; 3] = ["examples", "fuzz", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `2  gateway ► domain, service-kit` says layer, crate and edges; a line without a number goes on with the layer before it.
fn documented(names: &BTreeSet<String>) -> Graph {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let block = text.split_once("\n## Crates\n").unwrap().1.split("```").nth(1).unwrap();
    let (mut graph, mut layer) = (Graph::new(), 0);
    for line in block.lines().skip(1) {
        let rest = line.trim_start_matches(|letter: char| letter.is_ascii_digit());
        layer = line.trim_end_matches(rest).parse().unwrap_or(layer);
        for cell in rest.split("   ").map(str::trim).filter(|cell| !cell.is_empty()) {
            let (name, edges) = cell.split_once(" ► ").unwrap_or((cell, ""));
            let words = edges.split(|letter: char| letter != '-' && !letter.is_alphanumeric());
            let edges = words.filter(|word| names.contains(*word)).map(str::to_owned);
            graph.insert(name.to_owned(), (layer, edges.collect()));
        }
    }
    graph
}

/// What the manifests say, without dependencies of tests.
fn built(metadata: &serde_json::Value, names: &BTreeSet<String>) -> BTreeMap<String, BTreeSet<String>> {
    let packages = metadata["packages"].as_array().unwrap();
    let edges = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        let edges = normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        edges.filter(|name| names.contains(name)).collect()
    };
    let inside = packages.iter().filter(|package| is_inside(package));
    inside.map(|package| (name_of(package), edges(package))).collect()
}

fn name_of(package: &serde_json::Value) -> String {
    package["name"].as_str().unwrap().to_owned()
}

fn is_inside(package: &serde_json::Value) -> bool {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    let folder = manifest.strip_prefix(root().canonicalize().unwrap()).unwrap();
    !OUTSIDE.iter().any(|outside| folder.starts_with(outside)) && name_of(package) != NO_CODE
}

#[test]
fn the_crate_graph_is_the_documented_one() {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut names: BTreeSet<String> = metadata["packages"].as_array().unwrap().iter().map(name_of).collect();
    names.remove(NO_CODE);

    let mut documented = documented(&names);
    documented.remove("tests");
    let built = built(&metadata, &names);
    let edges: BTreeMap<String, BTreeSet<String>> = documented
        .iter()
        .map(|(name, (_, edges))| (name.clone(), edges.clone()))
        .collect();
    assert_eq!(edges, built, "left: ARCHITECTURE.md; right: the manifests");

    for (name, (layer, edges)) in &documented {
        for edge in edges {
            let below = documented.get(edge).map_or(0, |(layer, _)| *layer);
            assert!(below < *layer, "{name} and {edge} are both of layer {layer}");
        }
    }
}
