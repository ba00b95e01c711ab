//! The corpus, and a fixed number of mutations of it.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use fuzz::{TARGETS, Target};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::mutate::mutate;

/// Mutations of each target: a few seconds in all.
const MUTATIONS: u64 = 4_000;

/// Reading a segment opens a folder, which takes a hundred times as long as the rest.
const MUTATIONS_OF_SEGMENTS: u64 = 200;

fn seeds(target: Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The first input that breaks a target.
fn broken(target: Target) -> Option<String> {
    let seeds = seeds(target);
    let mutations = if target.name == "segment" {
        MUTATIONS_OF_SEGMENTS
    } else {
        MUTATIONS
    };
    let mutated = (0..mutations).map(|number| mutate(&seeds, &mut SmallRng::seed_from_u64(number)));
    let mut inputs = seeds.iter().cloned().chain(mutated);
    let input = inputs.find(|input| catch_unwind(|| (target.run)(input)).is_err())?;
    Some(format!("{}: b\"{}\"", target.name, input.escape_ascii()))
}

#[test]
fn no_target_breaks_on_its_corpus_or_near_it() {
    let broken: Vec<String> = TARGETS.into_iter().filter_map(broken).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_target_has_its_program() {
    for target in TARGETS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz_targets")
            .join(format!("{}.rs", target.name));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.contains(&format!("named(\"{}\")", target.name)));
    }
}
