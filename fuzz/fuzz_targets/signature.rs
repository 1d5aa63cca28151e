//! Any signature over any body is wrong.
#![no_main]

use cutover_fuzz::webhook::signature;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8])| {
    let (given, body) = input;
    let secrets = [b"a secret that no fuzzer knows: 9f8e7d6c".to_vec(), vec![]];
    assert!(!signature::hex(&secrets, body, given));
    assert!(!signature::sha256(&secrets, body, given));
    assert!(!signature::basic(&secrets, given));
    let now = std::time::SystemTime::now();
    assert!(!signature::standard(&secrets, ("id", given, given), body, now));
});
