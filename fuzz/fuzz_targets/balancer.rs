//! What a load balancer says first: the PROXY protocol.
#![no_main]

use cutover_fuzz::proxy::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| fuzz::balancer(input));
