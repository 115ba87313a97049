//! What must hold of any bytes ([`tests::fuzz`]), of some thousand that are made
//! from the seeds: the same ones at each run. `tests/fuzz` goes on for longer.

use std::fs;

use proptest::prelude::{Strategy, any, prop, prop_oneof};
use proptest::test_runner::{Config, TestRunner};
use tests::fuzz::TARGETS;
use tests::guests::repository;

/// Inputs of each target, besides its seeds.
const CASES: u32 = 4000;

/// What is done to a seed, each at a place between 0 (its beginning) and 1.
#[derive(Debug, Clone)]
enum Change {
    Put(f64, Vec<u8>),
    Remove(f64, usize),
    Set(f64, u8),
    Repeat(f64, usize),
    Cut(f64),
}

fn change() -> impl Strategy<Value = Change> {
    let place = || 0.0..1.0_f64;
    let telling = b"\r\n :;,=/\\{}[]\"'*.-_@#%?0159aZ\0\x7f\xc3\xff".to_vec();
    let byte = prop_oneof![prop::sample::select(telling), any::<u8>()];
    prop_oneof![
        (place(), prop::collection::vec(byte.clone(), 1..8)).prop_map(|(at, b)| Change::Put(at, b)),
        (place(), 1..40_usize).prop_map(|(at, bytes)| Change::Remove(at, bytes)),
        (place(), byte).prop_map(|(at, byte)| Change::Set(at, byte)),
        (place(), 1..80_usize).prop_map(|(at, bytes)| Change::Repeat(at, bytes)),
        place().prop_map(Change::Cut),
    ]
}

fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for change in changes {
        let place = |at: &f64| (at * bytes.len() as f64) as usize;
        match change {
            Change::Put(at, new) => {
                let at = place(at);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Change::Set(at, byte) => {
                let at = place(at);
                bytes.splice(at..(at + 1).min(bytes.len()), [*byte]);
            }
            Change::Repeat(at, count) => {
                let at = place(at);
                let piece = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            Change::Cut(at) => bytes.truncate(place(at)),
        }
    }
    bytes
}

#[test]
fn what_strangers_send_is_taken_apart_without_a_mistake() {
    for (name, target) in TARGETS {
        let folder = repository().join("tests/fuzz/seeds").join(name);
        let seeds = fs::read_dir(&folder).expect("its seeds");
        let mut seeds: Vec<_> = seeds.map(|seed| seed.expect("a seed").path()).collect();
        // As a folder lists them differs.
        seeds.sort();
        let seeds: Vec<Vec<u8>> =
            seeds.iter().map(|seed| fs::read(seed).expect("a seed")).collect();
        seeds.iter().for_each(|seed| target(seed));
        let from_seeds = (prop::sample::select(seeds), prop::collection::vec(change(), 1..12))
            .prop_map(|(seed, changes)| changed(&seed, &changes));
        let inputs = prop_oneof![8 => from_seeds, 1 => prop::collection::vec(any::<u8>(), 0..64)];
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(Default::default()),
        );
        let checked = runner.run(&inputs, |input| {
            target(&input);
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
