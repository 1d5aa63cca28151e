//! What to say of an instance that did not become healthy: what was asked, where the container really
//! listens, and what to set.

use std::net::SocketAddr;

use crate::config::Check;
use crate::deploy::health::Unwell;
use crate::deploy::line::Line;
use crate::deploy::words::{self, counted};
use crate::engine::Listening;
use crate::proxy::probe::ProbeError;
use crate::store::instances::Instance;
use crate::store::services::Service;

/// The most ports that are named.
const MAX_PORTS: usize = 8;

pub async fn unhealthy(
    line: &Line<'_>,
    service: &Service,
    instance: &Instance,
    last: Option<&Unwell>,
) -> String {
    let health = &service.settings.health;
    let limit = health.deadline;
    let who = words::who(&instance.service, "");
    let Some(last) = last else {
        let (all, interval) = (health.successes, health.interval);
        let all = counted(all.into(), "probe");
        return format!("{who} did not answer {all}, {interval:?} apart, within {limit:?}");
    };
    if health.check != Check::Route {
        return format!("{who} did not become healthy within {limit:?}: {last}");
    }
    let listening = line.agent.engine.listening(&instance.ours()).await;
    let listening = listening.unwrap_or_default();
    let port = service.port.unwrap_or_default();
    let path = &health.path;
    let mut text = format!(
        "the new version did not become healthy within {limit:?}: {last}; `port` is {port}, \
         `health.path` is `{path}`, and the container {}",
        listens(&listening)
    );
    if let Some(advice) = advice(last, port, &listening) {
        text += ": ";
        text += &advice;
    }
    text
}

fn listens(listening: &Listening) -> String {
    match &listening.sockets {
        Some(sockets) if sockets.is_empty() => "listens on no port".into(),
        Some(sockets) => {
            let everywhere = ports(sockets.iter().filter(|it| !it.ip().is_loopback()));
            let inside = ports(sockets.iter().filter(|it| it.ip().is_loopback()));
            match (everywhere.as_str(), inside.as_str()) {
                (all, "") => format!("listens on {all}"),
                ("", own) => format!("listens on {own} at 127.0.0.1 only"),
                (all, own) => format!("listens on {all}, and on {own} at 127.0.0.1 only"),
            }
        }
        None if listening.exposed.is_empty() => "says nothing about its ports (`EXPOSE`)".into(),
        None => format!("has `EXPOSE {}`", joined(&listening.exposed)),
    }
}

fn ports<'a>(sockets: impl Iterator<Item = &'a SocketAddr>) -> String {
    let mut ports: Vec<u16> = sockets.map(SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    joined(&ports)
}

fn joined(ports: &[u16]) -> String {
    let shown: Vec<String> = ports.iter().take(MAX_PORTS).map(u16::to_string).collect();
    let more = if ports.len() > MAX_PORTS { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// What to do about it, where that is known.
fn advice(last: &Unwell, port: u16, listening: &Listening) -> Option<String> {
    match last {
        Unwell::Silent(ProbeError::Refused(_)) => refused(port, listening),
        Unwell::Silent(ProbeError::Timeout { .. }) => {
            Some("let `health.path` answer sooner, or raise `health.timeout`".into())
        }
        Unwell::Silent(ProbeError::Malformed { .. } | ProbeError::Closed(_)) => {
            Some("is this the port on which it speaks HTTP? For HTTP/2 alone set `protocol = \"h2c\"`".into())
        }
        Unwell::Silent(_) => None,
        Unwell::Status { status: 401 | 403, .. } => Some(
            "set `health.path` to a page that needs no login, or `health.headers` to what it needs"
                .into(),
        ),
        Unwell::Status { status: 400 | 421, .. } => Some(
            "does the app accept requests for this host? Set `health.host` to a name that it accepts".into(),
        ),
        Unwell::Status { status: 404 | 405 | 410, .. } => {
            Some("set `health.path` to a path that answers with 2xx or 3xx".into())
        }
        Unwell::Status { .. } | Unwell::NotListening { .. } => None,
        Unwell::Command { .. } | Unwell::Engine(_) => None,
        Unwell::Circle { .. } => Some(
            "let the app trust `X-Forwarded-Proto`, or send what it looks at with `health.headers`".into(),
        ),
    }
}

fn refused(port: u16, listening: &Listening) -> Option<String> {
    let Some(sockets) = &listening.sockets else {
        let other = listening.exposed.first().filter(|it| **it != port)?;
        return Some(format!("set `port = {other}`"));
    };
    if sockets.iter().any(|it| it.port() == port) {
        return Some(format!("let it listen on 0.0.0.0:{port}"));
    }
    let mut everywhere = sockets.iter().filter(|it| !it.ip().is_loopback());
    let exposed = |it: &&SocketAddr| listening.exposed.contains(&it.port());
    let best = everywhere.clone().find(exposed).or(everywhere.next());
    match (best, listening.exposed.first()) {
        (Some(best), _) => Some(format!("set `port = {}`", best.port())),
        (None, Some(other)) if *other != port => Some(format!(
            "its image has `EXPOSE {other}`: set `port = {other}`"
        )),
        _ => Some(format!("let it listen on the port in $PORT, {port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(sockets: Option<&[&str]>, exposed: &[u16]) -> Listening {
        let parsed = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect();
        Listening {
            sockets: sockets.map(parsed),
            exposed: exposed.to_vec(),
        }
    }

    fn said(last: Unwell, listening: &Listening) -> String {
        let advice = advice(&last, 8080, listening).unwrap_or_default();
        format!("{}: {advice}", listens(listening))
    }

    #[test]
    fn a_refused_port_is_answered_with_the_right_one() {
        let of = |sockets: Option<&[&str]>, exposed: &[u16]| {
            let refused = ProbeError::Refused("10.0.0.2:8080".parse().unwrap());
            said(refused.into(), &listening(sockets, exposed))
        };
        let other = of(Some(&["0.0.0.0:9000", "[::]:80"]), &[80]);
        assert_eq!(other, "listens on 80, 9000: set `port = 80`");
        let inside = of(Some(&["127.0.0.1:8080"]), &[]);
        assert_eq!(
            inside,
            "listens on 8080 at 127.0.0.1 only: let it listen on 0.0.0.0:8080"
        );
        let exposed = of(None, &[80]);
        assert_eq!(exposed, "has `EXPOSE 80`: set `port = 80`");
        let not_yet = of(Some(&[]), &[80]);
        assert!(not_yet.ends_with("set `port = 80`"), "{not_yet}");
        assert!(of(Some(&[]), &[]).contains("$PORT"));
        assert!(of(None, &[8080]).ends_with(": "));
    }

    #[test]
    fn a_page_that_is_not_there_is_answered_with_the_key() {
        let of = |status| {
            let path = "/".to_owned();
            said(
                Unwell::Status { path, status },
                &listening(Some(&["0.0.0.0:8080"]), &[]),
            )
        };
        assert!(of(404).contains("health.path"));
        assert!(of(403).contains("health.headers"));
        assert!(of(421).contains("health.host"));
        assert_eq!(of(500), "listens on 8080: ");
    }
}
