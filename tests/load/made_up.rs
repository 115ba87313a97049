//! Modules that a machine made up: all of them valid, none of any use.

use tests::health::Health;
use tests::{Request, guests};
use wasm_smith::{Config, Module};

use crate::{MADE_UP_MODULES, alone, host};

/// Modules between two looks at the host's health.
const MODULES_PER_LOOK: u64 = 50;
/// Rounds of loops and calls after which a module traps of its own.
const FUEL: u32 = 10_000;

/// The same module for the same seed, exporting what makes it a command.
fn module(seed: u64) -> Vec<u8> {
    // SplitMix64, of Sebastiano Vigna.
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let bytes: Vec<u8> = (0..512).flat_map(|_| draw().to_le_bytes()).collect();
    let command = guests::wat_text("(module (func (export \"_start\")))");
    // Every second one has all that the language has, and is refused for most of it.
    let is_plain = seed.is_multiple_of(2);
    let config = Config {
        exports: Some(command),
        max_imports: 0,
        max_memories: if is_plain { 1 } else { 10 },
        max_memory32_bytes: 16 << 20,
        gc_enabled: !is_plain,
        exceptions_enabled: !is_plain,
        threads_enabled: !is_plain,
        memory64_enabled: !is_plain,
        reference_types_enabled: !is_plain,
        ..Config::default()
    };
    let mut module =
        Module::new(config, &mut arbitrary::Unstructured::new(&bytes)).expect("a module");
    module.ensure_termination(FUEL).expect("an end");
    module.to_bytes()
}

#[test]
fn modules_that_a_machine_made_up_harm_nobody() {
    let _alone = alone();
    let host = host().start();
    let health = Health::watch(&host);
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..MADE_UP_MODULES {
        let what = format!("module {seed}");
        let answer = host.admin().put("made-up", &module(seed));
        match answer.status() {
            201 => taken += 1,
            422 => refused += 1,
            status => panic!("{what}: {status} {}", answer.text()),
        }
        if answer.status() == 201 {
            let answer = host.call(&Request::get("/made-up/"));
            // They print nothing: it is their end that is told.
            assert!((500..=504).contains(&answer.status()), "{what}: {}", answer.status());
            assert!(!answer.text().contains("host_error"), "{what}: {}", answer.text());
            assert_eq!(host.admin().delete("/v1/functions/made-up").status(), 204);
        }
        if seed % MODULES_PER_LOOK == 0 {
            health.check(&host, &what);
        }
    }
    println!("{MADE_UP_MODULES} modules made up: {taken} taken and called, {refused} refused");
    assert!(taken > MADE_UP_MODULES / 4 && refused > MADE_UP_MODULES / 10, "{taken}, {refused}");
}
