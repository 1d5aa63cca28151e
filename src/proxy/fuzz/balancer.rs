use crate::proxy::wire::proxy_protocol::{NoHeader, parse};

/// What a balancer sends first: more bytes never change the result of fewer, and a header ends where it
/// says it does.
pub fn balancer(bytes: &[u8]) {
    let whole = parse(bytes);
    if let Ok(header) = &whole {
        assert!(header.length <= bytes.len());
        assert_eq!(parse(&bytes[..header.length]), whole, "without the rest");
    }
    let mut before = Err(NoHeader::Incomplete);
    for end in 0..=bytes.len() {
        let now = parse(&bytes[..end]);
        if let Ok(header) = &now {
            assert!(header.length <= end);
            assert!(before == now || header.length == end, "seen too late");
        }
        let waits = before == Err(NoHeader::Incomplete);
        assert!(waits || before == now, "taken back: {before:?}, {now:?}");
        before = now;
    }
}
