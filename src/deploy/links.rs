//! Which apps reach which by their names. To an app with links, the names of the others stand for this
//! machine's address on the app's own network. There the proxy listens, and knows by the network who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use rusqlite::Connection;

use super::Result;
use crate::config::Config;
use crate::ids::AppName;
use crate::proxy::front::Front;
use crate::proxy::table::{Policy, Route, linked};
use crate::store::networks::{self, Network};
use crate::store::{instances, releases};

/// Where `http://` leads.
const PORT: u16 = 80;

/// The links of all apps.
#[derive(Default)]
pub struct Links {
    /// Whose clients reach an app.
    to: BTreeMap<AppName, Vec<IpNet>>,
    /// Where the proxy listens for them.
    pub addresses: Vec<SocketAddr>,
}

impl Links {
    /// Those of deploy.toml, and those of every release that has an instance.
    pub fn of(db: &Connection, config: &Config) -> Result<Self> {
        let mut links = Self::default();
        for Network { app, subnet, .. } in networks::all(db)? {
            let configured = config.apps.get(&app);
            let configured = configured.iter().flat_map(|app| &app.run.links);
            let mut to: BTreeSet<AppName> = configured.cloned().collect();
            for release in instances::releases_of(db, &app)? {
                let release = releases::get(db, &release)?;
                let services = release.into_iter().flat_map(|it| it.services);
                to.extend(services.flat_map(|it| it.settings.links));
            }
            if to.is_empty() {
                continue;
            }
            for app in to {
                links.to.entry(app).or_default().push(subnet.into());
            }
            links.addresses.push(address(subnet));
        }
        Ok(links)
    }

    /// The way to an app for those who are linked to it, if there is anyone.
    pub fn route(&self, of_app: &Route) -> Option<Route> {
        let app = of_app.app.parse::<AppName>().ok()?;
        let allow = self.to.get(&app)?.clone();
        let front = Front {
            allow,
            ..Front::default()
        };
        Some(Route {
            hosts: vec![linked(&of_app.app)],
            path_prefix: "/".into(),
            policy: Policy {
                strip_prefix: false,
                https_redirect: false,
                front: Some(Arc::new(front)),
                ..of_app.policy.clone()
            },
            ..of_app.clone()
        })
    }
}

fn address(subnet: Ipv4Net) -> SocketAddr {
    let first = subnet.hosts().next().unwrap_or(subnet.network());
    SocketAddr::new(first.into(), PORT)
}
