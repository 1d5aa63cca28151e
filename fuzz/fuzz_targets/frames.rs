//! A WebSocket's frames.
#![no_main]

use cutover_fuzz::proxy::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| fuzz::frames(input));
