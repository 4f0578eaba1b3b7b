//! Every committed input, and seeded mutations of each, through its target. This is not the fuzzing (`cargo xtask fuzz` is),
//! but what it found once never comes back.

use std::fs;
use std::path::Path;

use tests_fuzz::{TARGETS, Target, corpus};

/// Mutations of each target's corpus; together they take some seconds in a debug build.
const MUTATIONS: u64 = 2_000;
/// Longest mutated input, in octets.
const INPUT_MAX: usize = 16 << 10;

fn inputs(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("a directory that can be read").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

/// xorshift64*: small, and the same on every machine.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let n = n.max(1) as u64;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n) as usize
    }
}

/// Changes octets, cuts, doubles and joins pieces, as libFuzzer's own mutators do, without its knowledge of the code.
fn mutate(chance: &mut Chance, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[chance.below(corpus.len())].clone();
    for _ in 0..=chance.below(6) {
        let at = chance.below(input.len() + 1);
        match chance.below(6) {
            0 if !input.is_empty() => {
                let len = input.len();
                input[at % len] ^= 1 << chance.below(8);
            }
            1 if !input.is_empty() => {
                let len = input.len();
                input[at % len] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)];
            }
            2 => input.truncate(at),
            3 => input.insert(at, chance.below(256) as u8),
            4 => {
                let other = &corpus[chance.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[chance.below(other.len() + 1)..]);
            }
            _ => {
                let piece = input[at.saturating_sub(chance.below(64))..at].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
    input.truncate(INPUT_MAX);
    input
}

fn replay(target: &Target, dir: &Path) {
    let corpus = inputs(dir);
    assert!(!corpus.is_empty(), "{} has no inputs in {}", target.name, dir.display());
    corpus.iter().for_each(|input| (target.run)(input));
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    for _ in 0..MUTATIONS {
        (target.run)(&mutate(&mut chance, &corpus));
    }
}

fn named(name: &str) {
    let target = TARGETS.iter().find(|t| t.name == name).expect("a target of this name");
    replay(target, &corpus(name));
}

#[test]
fn agent_report() {
    named("agent_report");
}

#[test]
fn bundle() {
    named("bundle");
}

#[test]
fn dhcp4() {
    named("dhcp4");
}

#[test]
fn dhcp6() {
    named("dhcp6");
}

#[test]
fn ipmi() {
    named("ipmi");
}

#[test]
fn ipxe_request() {
    named("ipxe_request");
}

#[test]
fn manifest() {
    named("manifest");
}

#[test]
fn ovsdb() {
    named("ovsdb");
}

#[test]
fn redfish() {
    named("redfish");
}

#[test]
fn signature() {
    named("signature");
}

#[test]
fn tftp() {
    named("tftp");
}

#[test]
fn tpm() {
    named("tpm");
}

#[test]
fn every_target_has_its_test_and_its_libfuzzer_program() {
    let here = include_str!("replay.rs");
    for target in TARGETS {
        assert!(here.contains(&format!("named(\"{}\")", target.name)), "{} is not replayed", target.name);
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("libfuzzer/{}.rs", target.name));
        assert!(program.is_file(), "{} is missing", program.display());
    }
}

#[test]
#[should_panic(expected = "has no inputs")]
fn an_empty_corpus_is_no_success() {
    replay(&TARGETS[0], Path::new("/nonexistent"));
}

#[test]
#[should_panic(expected = "found it")]
fn a_target_that_panics_fails() {
    let target = Target { name: "bad", run: |data| assert!(data.len() < 3, "found it") };
    replay(&target, &corpus("tftp"));
}
