//! The networks that this machine has routes to: a VPN's, say, or a bridge that a killed Docker has left.
//! A network of ours over one of them would take its traffic, or get none.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// All but the default route; none where they cannot be read, as beside a Docker elsewhere.
pub fn networks() -> Vec<Ipv4Net> {
    let text = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    parsed(&text)
}

/// The columns are Iface, Destination, Gateway, Flags, RefCnt, Use, Metric, Mask and others; addresses are
/// in hexadecimal, in the machine's byte order (proc_net(5)).
fn parsed(text: &str) -> Vec<Ipv4Net> {
    let address = |text: &str| {
        let bytes = u32::from_str_radix(text, 16).ok()?.to_ne_bytes();
        Some(Ipv4Addr::from(bytes))
    };
    let route = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (to, mask) = (address(columns.get(1)?)?, address(columns.get(7)?)?);
        Ipv4Net::with_netmask(to, mask).ok()
    };
    let all = text.lines().skip(1).filter_map(route);
    all.filter(|network| network.prefix_len() > 0).collect()
}

/// Whether they have an address in common.
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(other) || other.contains(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_the_default_is_left_out() {
        // As proc shows it on a machine of this byte order.
        let hex = |text: &str| {
            let address: Ipv4Addr = text.parse().unwrap();
            format!("{:08X}", u32::from_ne_bytes(address.octets()))
        };
        let line = |to: &str, mask: &str| {
            format!(
                "eth0\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n",
                hex(to),
                hex(mask)
            )
        };
        let text = format!(
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n{}{}odd\n",
            line("0.0.0.0", "0.0.0.0"),
            line("10.200.0.0", "255.255.0.0"),
        );
        let vpn: Ipv4Net = "10.200.0.0/16".parse().unwrap();
        assert_eq!(parsed(&text), [vpn]);
        let of = |text: &str| overlap(&vpn, &text.parse().unwrap());
        assert!(of("10.200.4.0/22") && of("10.192.0.0/10") && !of("10.201.0.0/22"));
    }
}
