//! git's packets: four hex digits for the length, which includes these four, then the data; `0000` is a
//! flush packet.

/// The longest data that git accepts in one packet, in bytes.
pub(super) const LONGEST: usize = 65_516;
pub(super) const FLUSH: &[u8] = b"0000";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Data(Vec<u8>),
    Flush,
}

/// Removes the first packet from `bytes`. `None`: it is incomplete. An error: it is not a packet.
pub(super) fn take(bytes: &mut Vec<u8>) -> Result<Option<Packet>, &'static str> {
    let Some(digits) = bytes.get(..4) else {
        return Ok(None);
    };
    let length = std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|digits| usize::from_str_radix(digits, 16).ok())
        .ok_or("packet without a length")?;
    match length {
        0 => {
            bytes.drain(..4);
            Ok(Some(Packet::Flush))
        }
        1..4 => Err("packet with an invalid length"),
        _ if bytes.len() < length => Ok(None),
        _ => {
            let data = bytes[4..length].to_vec();
            bytes.drain(..length);
            Ok(Some(Packet::Data(data)))
        }
    }
}

/// Makes one packet of `data`, which must be at most [`LONGEST`] bytes.
pub(super) fn wrap(data: &[u8]) -> Vec<u8> {
    let mut packet = format!("{:04x}", data.len() + 4).into_bytes();
    packet.extend_from_slice(data);
    packet
}

/// `text` for the person who pushes, whose git shows it after `remote: `.
pub(super) fn remark(text: &[u8]) -> Vec<u8> {
    let pieces = text.chunks(LONGEST - 1);
    pieces
        .flat_map(|piece| wrap(&[b"\x02", piece].concat()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_off_as_they_arrive() {
        let mut bytes = wrap(b"abc");
        bytes.extend_from_slice(FLUSH);
        bytes.extend_from_slice(b"0009x");
        assert_eq!(take(&mut bytes), Ok(Some(Packet::Data(b"abc".to_vec()))));
        assert_eq!(take(&mut bytes), Ok(Some(Packet::Flush)));
        assert_eq!(take(&mut bytes), Ok(None));
        for bad in ["zzzz", "+003", "0001", "0003"] {
            assert!(take(&mut bad.as_bytes().to_vec()).is_err(), "{bad}");
        }
        let long = remark(&[b'x'; 100_000]);
        assert_eq!(long.len(), 100_000 + 2 * 5);
    }
}
