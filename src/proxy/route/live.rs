//! What a table comes to: which route a host and a path lead to.

use std::collections::HashMap;
use std::sync::Arc;

use super::share::Served;
use super::table::Table;

/// Why no route took a request.
#[derive(Debug, PartialEq, Eq)]
pub enum NoRoute {
    UnknownHost,
    /// The host is known, but no prefix of its routes fits.
    UnknownPath,
}

/// A table, indexed.
#[derive(Default)]
pub struct Live {
    pub table: Arc<Table>,
    pub served: Vec<Arc<Served>>,
    /// By host, the longest path prefix first.
    exact: HashMap<String, Vec<Arc<Served>>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<Arc<Served>>>,
    any: Vec<Arc<Served>>,
}
impl Live {
    /// Routes that are the same as before keep their object, with its pools and counters.
    pub fn build(table: Table, before: &[Arc<Served>]) -> Self {
        let mut live = Self::default();
        let mut same: HashMap<_, Vec<_>> = HashMap::new();
        for old in before {
            let key = (old.route.app.as_str(), old.route.generation);
            same.entry(key).or_default().push(old);
        }
        for route in &table.routes {
            let known = same
                .get(&(route.app.as_str(), route.generation))
                .and_then(|olds| olds.iter().find(|old| old.route == *route));
            let served = match known {
                Some(old) => Arc::clone(old),
                None => Arc::new(Served::new(route.clone())),
            };
            for host in &route.hosts {
                let host = host.to_ascii_lowercase();
                match host.strip_prefix("*.") {
                    Some(rest) => live.wildcard.entry(rest.into()).or_default(),
                    None => live.exact.entry(host).or_default(),
                }
                .push(served.clone());
            }
            if route.hosts.is_empty() {
                live.any.push(served.clone());
            }
            live.served.push(served);
        }
        let all = live.exact.values_mut().chain(live.wildcard.values_mut());
        for routes in all.chain([&mut live.any]) {
            // The newer one wins where two claim the same.
            routes.sort_by_key(|s| {
                let route = &s.route;
                std::cmp::Reverse((route.path_prefix.len(), route.generation))
            });
        }
        live.table = Arc::new(table);
        live
    }

    pub fn find(&self, host: &str, path: &str) -> Result<&Arc<Served>, NoRoute> {
        let routes = self.of_host(host).ok_or(NoRoute::UnknownHost)?;
        routes
            .iter()
            .find(|served| has_prefix(path, &served.route.path_prefix))
            .ok_or(NoRoute::UnknownPath)
    }

    fn of_host(&self, host: &str) -> Option<&Vec<Arc<Served>>> {
        let lower;
        let mut host = without_port(host);
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            host = &lower;
        }
        if let Some(routes) = self.exact.get(host) {
            return Some(routes);
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.').filter(|_| !self.wildcard.is_empty()) {
            if let Some(routes) = self.wildcard.get(parent) {
                return Some(routes);
            }
            rest = parent;
        }
        (!self.any.is_empty()).then_some(&self.any)
    }
}

/// `host` without `:port` and without the dot that may end it.
pub fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether `path` lies under `prefix`, by whole segments.
fn has_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        || prefix.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::route;
    use super::*;

    fn find(live: &Live, host: &str, path: &str) -> Result<String, NoRoute> {
        live.find(host, path).map(|s| s.route.app.clone())
    }

    #[test]
    fn the_most_specific_host_and_the_longest_prefix_win() {
        let routes = vec![
            route("site", &["example.com"], "/", 1),
            route("api", &["example.com"], "/api/", 1),
            route("wild", &["*.example.com"], "/", 1),
            route("deep", &["*.b.example.com"], "/", 1),
            route("rest", &[], "/", 1),
        ];
        let table = Table::new(1, routes);
        let live = Live::build(table, &[]);
        for (host, path, app) in [
            ("example.com", "/", "site"),
            ("EXAMPLE.com.:8080", "/apis", "site"),
            ("example.com", "/api", "api"),
            ("example.com", "/api/x", "api"),
            ("example.com", "/api?x", "api"),
            ("a.example.com", "/", "wild"),
            ("x.a.example.com", "/", "wild"),
            ("a.b.example.com", "/", "deep"),
            ("other.org", "/", "rest"),
            ("[::1]:80", "/", "rest"),
            ("", "*", "rest"),
        ] {
            assert_eq!(find(&live, host, path).as_deref(), Ok(app), "{host}{path}");
        }
    }

    #[test]
    fn what_nobody_claims_is_unknown() {
        let table = Table::new(1, vec![route("a", &["a.org"], "/a", 1)]);
        let live = Live::build(table, &[]);
        assert_eq!(find(&live, "b.org", "/"), Err(NoRoute::UnknownHost));
        assert_eq!(find(&live, "a.org", "/b"), Err(NoRoute::UnknownPath));
    }
}
