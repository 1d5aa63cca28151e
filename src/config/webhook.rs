//! `[apps.NAME.webhook]`.

use ipnet::IpNet;

use super::Secret;
use super::file::Section;
use super::values::{secret, some_networks};
use crate::webhook::Forge;

#[derive(Debug, Clone)]
pub struct Webhook {
    /// The forge that sends the deliveries; if absent, it is detected from the request headers.
    pub forge: Option<Forge>,
    /// Several during rotation: each is tried. Empty: every delivery is refused.
    pub secrets: Vec<Secret>,
    /// The networks from which deliveries are accepted. `None`: those of `agent.webhook_networks`.
    pub networks: Option<Vec<IpNet>>,
}

pub(super) fn webhook(mut section: Section<'_>) -> Webhook {
    let forge = section.read("forge", |node| {
        let names = Forge::ALL.map(|forge| format!("\"{forge}\"")).join(", ");
        let expected = format!("one of {names}");
        let text = node.str(&expected)?;
        text.parse().ok().or_else(|| node.wrong(&expected))
    });
    let secrets = section.read("secrets", |node| {
        let nodes = node.array(
            "an array of places to read a secret from, such as [{ env = \"HELLO_WEBHOOK_SECRET\" }]",
        )?;
        Some(nodes.into_iter().filter_map(secret).collect())
    });
    let networks = section.read("networks", some_networks);
    section.done();
    Webhook {
        forge,
        networks,
        secrets: secrets.unwrap_or_default(),
    }
}
