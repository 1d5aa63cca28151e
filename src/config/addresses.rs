//! The addresses that Cutover listens on; no two of them may conflict.

use std::net::SocketAddr;

use super::file::{Node, Section};
use super::values::socket;

/// The addresses read so far, each with the key that sets it.
#[derive(Default)]
pub(super) struct Addresses(Vec<(String, SocketAddr)>);

impl Addresses {
    /// Reads the address at `key`, or takes `default` if the key is absent. An address that
    /// conflicts with an earlier one is reported.
    pub fn read(
        &mut self,
        section: &mut Section<'_>,
        key: &'static str,
        default: Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        let name = section.key(key);
        if !section.has(key) {
            let address = default?;
            if let Some(text) = self.taken(&name, address) {
                section.report(text);
            }
            self.0.push((name, address));
            return Some(address);
        }
        section.read(key, |node: Node<'_>| {
            let address = socket(&node)?;
            if let Some(text) = self.taken(&name, address) {
                return node.report(text);
            }
            self.0.push((name, address));
            Some(address)
        })
    }

    fn taken(&self, name: &str, address: SocketAddr) -> Option<String> {
        let mut others = self.0.iter();
        let (other, _) = others.find(|(_, other)| clash(*other, address))?;
        Some(format!(
            "`{name}` is `{address}`, where `{other}` listens: expected an address of its own"
        ))
    }
}

/// Whether it is impossible to listen on both addresses. Port 0, any free port, never conflicts.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || everywhere)
}

#[cfg(test)]
mod tests {
    use crate::config::load;

    fn problems(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, text).unwrap();
        load(&path).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn no_two_listeners_have_one_address() {
        for (text, wrong) in [
            (
                "[agent]\nlisten = '127.0.0.1:80'",
                "`proxy.http` is `[::]:80`, where `agent.listen`",
            ),
            (
                "[proxy]\nhttp = '127.0.0.1:9000'",
                "2:8: `proxy.http` is `127.0.0.1:9000`, where `agent.listen`",
            ),
            (
                "[proxy]\nhttp = '[::]:9000'",
                "where `agent.listen` listens: expected an address of its own",
            ),
            (
                "[proxy]\nhttp = '127.0.0.1:81'\nhttps = '0.0.0.0:81'",
                "3:9: `proxy.https` is `0.0.0.0:81`, where `proxy.http` listens",
            ),
        ] {
            let said = problems(text);
            assert!(said.contains(wrong), "{text}: {said}");
        }
        for fine in [
            "[agent]\nlisten = '127.0.0.1:80'\n[proxy]\nhttp = '192.0.2.1:80'",
            "[agent]\nlisten = '127.0.0.1:0'\n[proxy]\nhttp = '127.0.0.1:0'\nhttps = '127.0.0.1:0'",
            "",
        ] {
            assert_eq!(problems(fine), "", "{fine}");
        }
    }
}
