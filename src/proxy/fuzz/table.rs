use crate::proxy::control::disk::{parse, with_sum};

/// The table's file: what was read is written back the same, and any damage is detected.
pub fn table(text: &[u8]) {
    let _ = parse(text);
    let file = with_sum(text.to_vec());
    if let Ok(table) = parse(&file) {
        let written = serde_json::to_vec(&table).expect("a table becomes JSON");
        assert_eq!(parse(&with_sum(written)), Ok(table));
    }
    if text.contains(&b'\n') {
        // A table is one line: a longer text may hold a whole file, and become one when it is cut off.
        return;
    }
    // Positions derived from the text, so that a finding can be reproduced.
    let at = text
        .iter()
        .fold(7, |n: usize, &b| n.wrapping_mul(31).wrapping_add(b.into()));
    let at = at % file.len();
    assert!(parse(&file[..at]).is_err(), "cut off at {at}");
    let mut altered = file;
    altered[at] ^= 1 << (text.len() % 8);
    assert!(parse(&altered).is_err(), "altered at {at}");
}
