//! Valid bytes, damaged at random: a short version of the fuzz targets' long search, on any toolchain.
//! Seeded, so that a failure can be reproduced.

use std::fs;
use std::path::Path;

/// `CUTOVER_FUZZ_ROUNDS` overrides it.
const ROUNDS: u64 = 5_000;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// `seed` with some bytes changed, inserted, removed or duplicated.
    fn altered(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..self.below(6) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                1 => bytes.insert(at, b"\r\n :;,\0-0fF"[self.below(11)]),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => {
                    let part = bytes[at..].to_vec();
                    bytes.extend(part);
                }
            }
        }
        bytes
    }
}

/// Checks the seeds of the fuzz target of that name, undamaged and damaged.
fn damage(target: &str, holds: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut files: Vec<_> = fs::read_dir(folder.join(target))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    seeds.iter().for_each(|seed| holds(seed));
    let rounds = std::env::var("CUTOVER_FUZZ_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
    for round in 1..=rounds {
        let mut random = Random(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seed = &seeds[random.below(seeds.len())];
        let bytes = random.altered(seed);
        let held = std::panic::catch_unwind(|| holds(&bytes));
        assert!(held.is_ok(), "b\"{}\"", bytes.escape_ascii());
    }
}

#[test]
fn what_clients_send() {
    damage("requests", super::requests);
}

#[test]
fn what_apps_answer() {
    damage("answers", super::answers);
}

#[test]
fn header_fields() {
    damage("fields", super::fields);
}

#[test]
fn what_a_balancer_says_first() {
    damage("balancer", super::balancer);
}

#[test]
fn websocket_frames() {
    damage("frames", super::frames);
}

#[test]
fn control_messages() {
    damage("control", super::control);
}

#[test]
fn the_tables_file() {
    damage("table", super::table);
}
