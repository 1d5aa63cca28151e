//! The client's address.

use std::net::IpAddr;

use axum::http::{Extensions, HeaderMap, request::Parts};

use crate::config::Config;

/// The other end of the TCP connection, as a request extension. A request over the Unix socket has
/// none.
#[derive(Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The client's address, as [`address`] finds it, as a request extension.
#[derive(Clone, Copy)]
pub struct Client(pub Option<IpAddr>);

/// The client's address, where a layer has set it.
pub fn client(extensions: &Extensions) -> Option<IpAddr> {
    let Client(address) = extensions.get::<Client>()?;
    *address
}

/// The other end of the connection; `None` over the Unix socket.
pub fn other_end(request: &Parts) -> Option<IpAddr> {
    let Peer(peer) = request.extensions.get::<Peer>()?;
    Some(peer.to_canonical())
}

/// The client's address; `None` over the Unix socket. `X-Forwarded-For` is trusted only from Cutover's
/// own proxy, which is on this machine and forwards here if the agent has a domain, and from the
/// proxies that deploy.toml trusts.
pub fn address(config: &Config, request: &Parts) -> Option<IpAddr> {
    let peer = other_end(request)?;
    let here = peer.is_loopback() || peer == config.agent.listen.ip();
    let trusted = |address: IpAddr| {
        let networks = &config.proxy.trusted_proxies;
        networks.iter().any(|network| network.contains(&address))
    };
    let believed = trusted(peer) || here && config.agent.domain.is_some();
    match believed {
        true => Some(forwarded(&request.headers, trusted).unwrap_or(peer)),
        false => Some(peer),
    }
}

/// The last address in `X-Forwarded-For` that is not a trusted proxy's. Whatever precedes it was written
/// by the client.
fn forwarded(headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    let mut found = None;
    for line in lines.into_iter().rev() {
        for entry in line.to_str().ok()?.rsplit(',') {
            let Ok(address) = entry.trim().parse::<IpAddr>() else {
                return found;
            };
            let address = address.to_canonical();
            found = Some(address);
            if !trusted(address) {
                return found;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let config = |more: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("deploy.toml");
            std::fs::write(&path, more).unwrap();
            crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"))
        };
        let none = config("");
        let own = config("[agent]\ndomain = 'deploy.example.com'");
        let trusting = config("[proxy]\ntrusted_proxies = ['10.0.0.0/8']");
        let ask = |config: &Config, peer: &str, lines: &[&str]| {
            let mut request = axum::http::Request::new(()).into_parts().0;
            request.extensions.insert(Peer(peer.parse().unwrap()));
            for line in lines {
                let value = line.parse().unwrap();
                request.headers.append("x-forwarded-for", value);
            }
            address(config, &request).unwrap().to_string()
        };
        assert_eq!(ask(&none, "127.0.0.1", &["192.0.2.1"]), "127.0.0.1");
        assert_eq!(ask(&none, "::ffff:192.0.2.9", &[]), "192.0.2.9");
        assert_eq!(ask(&own, "127.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(ask(&own, "127.0.0.1", &["6.6.6.6, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(ask(&own, "127.0.0.1", &["junk"]), "127.0.0.1");
        assert_eq!(ask(&own, "192.0.2.9", &["192.0.2.1"]), "192.0.2.9");
        assert_eq!(ask(&trusting, "127.0.0.1", &["192.0.2.1"]), "127.0.0.1");
        let lines = ["6.6.6.6", "192.0.2.1, 10.1.1.1", "10.2.2.2"];
        assert_eq!(ask(&trusting, "10.3.3.3", &lines), "192.0.2.1");
        assert_eq!(ask(&trusting, "10.3.3.3", &["10.1.1.1"]), "10.1.1.1");
        let request = axum::http::Request::new(()).into_parts().0;
        assert_eq!(address(&none, &request), None);
    }
}
