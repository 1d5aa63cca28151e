//! The route table: a function of the configuration and the database, published whole.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::Connection;

use super::forwarding::AppRoute;
use super::links::Links;
use super::tend::Tend;
use super::{Agent, InForce, unrecorded, warm};
use crate::config::{self, Config, HOLD, Protocol};
use crate::ids::AppName;
use crate::proxy::control;
use crate::proxy::front::Front;
use crate::proxy::table::{Page, Policy, Route, Share, Table};
use crate::store::holds::{self, Held, Hold};
use crate::store::{StoreError, app_names, apps, instances, releases};

/// The owner of the agent's own route. Never the name of an app.
const AGENT: &str = "@agent";
/// The owner of the routes that lead elsewhere.
const REDIRECTS: &str = "@redirects";

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Proxy(#[from] control::Error),
}

/// Publishes the table; returns when no request can be routed by an older one.
pub async fn publish(agent: &Agent) -> Result<(), PublishError> {
    // Two publications at once could arrive in the wrong order; whoever waits here reads the newest
    // table.
    let _turn = agent.publishing.lock().await;
    let before = routed_now(agent).await?;
    let (mut table, mut apps) = wanted(agent, &before).await?;
    if table.generation <= before.generation && table != before {
        let known = before.generation;
        let next = move |db: &_| apps::next_generation(db, known);
        agent.store.write(next).await?;
        (table, apps) = wanted(agent, &before).await?;
    }
    agent.proxy.publish(&table).await?;
    agent.unrecorded.are(apps);
    Ok(())
}

/// The table as it should be, and the apps in it that the database does not know.
async fn wanted(agent: &Agent, before: &Table) -> Result<(Table, BTreeSet<String>), PublishError> {
    let (in_force, tend) = (agent.in_force(), agent.tend.clone());
    let before = before.clone();
    let read = agent.store.read(move |db| {
        let unrecorded = unrecorded::routes(db, before)?;
        let apps: BTreeSet<String> = unrecorded.iter().map(|route| route.app.clone()).collect();
        Ok((table(db, &in_force, unrecorded, &tend)?, apps))
    });
    Ok(read.await?)
}

/// The table by which the proxy routes requests now.
async fn routed_now(agent: &Agent) -> Result<Table, PublishError> {
    match agent.proxy.table().await {
        // A proxy of an older version does not report its table; read it from its file.
        Err(control::Error::Refused(_)) => {
            let folder = agent.in_force().config.agent.data_dir.clone();
            let load = tokio::task::spawn_blocking(move || control::disk::load(&folder));
            Ok(load.await.map_err(|_| StoreError::Stopped)?)
        }
        told => Ok(told?),
    }
}

/// The table by which the proxy routes requests or, where it does not answer, the one that it starts with.
pub async fn routed(agent: &Agent) -> Table {
    if let Ok(table) = routed_now(agent).await {
        return table;
    }
    let folder = agent.in_force().config.agent.data_dir.clone();
    let load = tokio::task::spawn_blocking(move || control::disk::load(&folder));
    load.await.unwrap_or_default()
}

/// The addresses to which requests are sent by a table.
pub fn targets(table: &Table) -> HashSet<IpAddr> {
    let routes = table.routes.iter();
    let shares = routes.flat_map(|route| route.shares.iter().chain(&route.warm));
    let targets = shares.flat_map(|share| &share.targets);
    targets.map(|target| target.ip()).collect()
}

/// Publishes at start, with a generation above the proxy's: the configuration may have changed, and the
/// database may have been restored from a backup.
pub async fn publish_anew(agent: &Agent) -> Result<(), PublishError> {
    let known = agent.proxy.hello().await?.generation;
    agent
        .store
        .write(move |db| apps::next_generation(db, known))
        .await?;
    publish(agent).await
}

/// What one read sees, so that the generation matches the content. `unrecorded` are routes that are newer in the proxy than in the database: they stay as they are.
fn table(
    db: &Connection,
    in_force: &InForce,
    unrecorded: Vec<Route>,
    tend: &Tend,
) -> Result<Table, StoreError> {
    let (config, forwarding) = (&in_force.config, &in_force.forwarding);
    let mut claims = Claims::default();
    let mut routes = Vec::new();
    let mut idle = Vec::new();
    let links = Links::of(db, config)?;
    let mut linked = Vec::new();
    let agent = agent_routes(&config.agent).into_iter();
    routes.extend(agent.filter_map(|route| claims.left_of(route)));
    routes.extend(redirects(config).filter_map(|route| claims.left_of(route)));
    let kept: HashSet<String> = unrecorded.iter().map(|route| route.app.clone()).collect();
    let apps = config.apps.values();
    for app in apps.filter(|app| !kept.contains(app.name.as_str())) {
        let Some(of_app) = forwarding.app(&app.name).cloned() else {
            continue;
        };
        let route = route(db, &app.name, of_app, app.protocol, tend)?;
        linked.extend(links.route(&route));
        match is_live(&route) {
            false => idle.push(route),
            true => routes.extend(claims.left_of(route)),
        }
    }
    routes.extend(
        unrecorded
            .into_iter()
            .filter_map(|route| claims.left_of(route)),
    );
    // Apps that are no longer in deploy.toml keep serving the hosts that no other app serves; an app
    // that has taken over a host gets it with its first release.
    for name in app_names::in_use(db)? {
        if !config.apps.contains_key(&name)
            && !kept.contains(name.as_str())
            && let Some(of_app) = recorded(db, &name)?
        {
            let route = route(db, &name, of_app, Protocol::default(), tend)?;
            if is_live(&route) {
                linked.extend(links.route(&route));
                routes.extend(claims.left_of(route));
            }
        }
    }
    routes.extend(idle.into_iter().filter_map(|route| claims.left_of(route)));
    routes.extend(linked);
    Ok(Table {
        generation: apps::generation(db)?,
        routes,
        pages: forwarding.pages.clone(),
        links: links.addresses,
        traced: config.agent.otlp.as_ref().map_or(0, |otlp| otlp.sample),
    })
}

/// The agent's own routes, if it has a domain. Requests without TLS are redirected where there is a
/// certificate, except for deliveries: some forges do not follow.
fn agent_routes(agent: &config::Agent) -> Vec<Route> {
    let route = |path_prefix: &str, https_redirect| Route {
        app: AGENT.into(),
        hosts: agent.domain.iter().cloned().collect(),
        path_prefix: path_prefix.into(),
        shares: vec![Share::whole("agent", 0, vec![agent.listen])],
        policy: Policy {
            https_redirect,
            ..Policy::default()
        },
        ..Default::default()
    };
    match &agent.domain {
        Some(_) => vec![route("/", true), route("/hooks", false)],
        None => Vec::new(),
    }
}

/// The hosts without an app that lead elsewhere.
fn redirects(config: &Config) -> impl Iterator<Item = Route> + '_ {
    config.proxy.redirects.iter().map(|(host, to)| Route {
        app: REDIRECTS.into(),
        hosts: vec![host.clone()],
        policy: Policy {
            front: Some(Arc::new(Front {
                redirect: Some(to.clone()),
                ..Front::default()
            })),
            ..Policy::default()
        },
        ..Default::default()
    })
}

/// Also where none of its instances serves at the moment: its hosts are nobody else's.
fn is_live(route: &Route) -> bool {
    route.shares.iter().any(|share| !share.release.is_empty())
}

/// The hosts that an app had when it was last in deploy.toml.
pub fn hosts(db: &Connection, app: &AppName) -> Result<Vec<String>, StoreError> {
    Ok(recorded(db, app)?
        .map(|route| route.hosts)
        .unwrap_or_default())
}

/// How an app was routed when it was last in deploy.toml.
fn recorded(db: &Connection, app: &AppName) -> Result<Option<AppRoute>, StoreError> {
    let text = app_names::route(db, app)?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

fn route(
    db: &Connection,
    app: &AppName,
    of_app: AppRoute,
    mut protocol: Protocol,
    tend: &Tend,
) -> Result<Route, StoreError> {
    let serving = apps::serving(db, app)?;
    let mut targets = Vec::new();
    if let Some(live) = &serving.live
        && let Some(release) = releases::get(db, live)?
    {
        for instance in instances::of_release(db, live)? {
            let service = release.service(&instance.service);
            if let (Some(service), Some(endpoint)) = (service, instance.endpoint) {
                protocol = service.protocol;
                // No connect that hangs: where none is left, the proxy answers 503, or holds.
                if !tend.is_down(&instance.name) {
                    targets.push(endpoint);
                }
            }
        }
    }
    let stopped = apps::stopped(db, app)?.is_some();
    let maintenance = holds::of(db, app, Hold::Maintenance)?;
    let vacated = apps::vacated(db, app)?.is_some();
    let rests = stopped || vacated;
    if rests {
        targets.clear();
    }
    let mut release = serving.live.map(|id| id.to_string()).unwrap_or_default();
    let mut before = None;
    match warm::of(db, app)?.filter(|_| !rests) {
        Some(warm) if warm.takes_over => {
            release = warm.release.to_string();
            targets = warm.endpoints;
        }
        // Of an older generation than the route, so that a drain waits for it once it is taken away.
        Some(warm) => {
            let generation = serving.generation.saturating_sub(1);
            let release = warm.release.to_string();
            before = Some(Share::whole(release, generation, warm.endpoints));
        }
        None => {}
    }
    // The file may have been another when the deployment began for which the old release makes room.
    let hold_ms = match of_app.policy.hold_ms {
        0 if vacated => HOLD.as_millis() as u64,
        ms => ms,
    };
    Ok(Route {
        app: app.to_string(),
        generation: serving.generation,
        hosts: of_app.hosts,
        path_prefix: of_app.path_prefix,
        shares: vec![Share::whole(release, serving.generation, targets)],
        warm: before,
        policy: Policy {
            h2c: protocol == Protocol::H2c,
            hold_ms,
            maintenance: match maintenance {
                _ if stopped => Some(Page::from("503 This app is stopped.\n")),
                Some(Held { text: None, .. }) => of_app
                    .policy
                    .maintenance
                    .or_else(|| Some(Page::from("503 The app is under maintenance.\n"))),
                Some(Held {
                    text: Some(text), ..
                }) => Some(Page::from(&*format!("{text}\n"))),
                None => of_app.policy.maintenance,
            },
            ..of_app.policy
        },
    })
}

/// The pairs of host and path that have a route; the empty host stands for all hosts that no app names.
#[derive(Default)]
struct Claims(HashSet<(String, String)>);

impl Claims {
    /// Claims the route's free hosts and returns the route with those alone; `None` if none is free.
    fn left_of(&mut self, mut route: Route) -> Option<Route> {
        let prefix = route.path_prefix.clone();
        if route.hosts.is_empty() {
            return self.0.insert((String::new(), prefix)).then_some(route);
        }
        route
            .hosts
            .retain(|host| self.0.insert((host.clone(), prefix.clone())));
        (!route.hosts.is_empty()).then_some(route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The agent's route never changes: the drain of an app of the same name would wait for it for ever.
    #[test]
    fn the_agent_s_route_belongs_to_no_app() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, "[agent]\ndomain = 'deploy.example.com'").unwrap();
        let config = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let routes = agent_routes(&config.agent);
        for route in &routes {
            assert_eq!(route.hosts, ["deploy.example.com"]);
            assert!(route.app.parse::<AppName>().is_err(), "{}", route.app);
        }
        let redirected = routes.iter().filter(|route| route.policy.https_redirect);
        let redirected: Vec<_> = redirected.map(|route| &*route.path_prefix).collect();
        assert_eq!(
            (redirected, routes.len()),
            (vec!["/"], 2),
            "deliveries are not"
        );
    }

    #[test]
    fn a_host_goes_to_the_first_that_claims_it_and_no_route_is_widened() {
        let route = |hosts: &[&str], path: &str| Route {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            path_prefix: path.to_owned(),
            ..Default::default()
        };
        let mut claims = Claims::default();
        let mut left =
            |hosts: &[&str], path: &str| claims.left_of(route(hosts, path)).map(|left| left.hosts);
        assert_eq!(left(&["a", "b"], "/").unwrap(), ["a", "b"]);
        assert_eq!(left(&["b", "c"], "/").unwrap(), ["c"]);
        assert_eq!(left(&["b"], "/"), None, "not every other host");
        assert_eq!(left(&["b"], "/api").unwrap(), ["b"]);
        assert_eq!(left(&[], "/").unwrap(), [""; 0]);
        assert_eq!(left(&[], "/"), None);
    }
}
