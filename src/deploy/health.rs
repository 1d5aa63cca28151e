//! Asks an instance how it is as a visitor would: under the app's name, and by https where visitors
//! come by it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::Agent;
use crate::config::{self, App, Protocol};
use crate::engine::{EngineError, Exit};
use crate::proxy::probe::{ProbeError, Question, Reply, probe};
use crate::store::instances::Instance;
use crate::store::services::Service;

/// How many redirects from http to https, or from one of the app's names to another, are followed.
const MAX_REDIRECTS: usize = 3;

/// How the instances of a service are asked.
pub struct Check {
    host: String,
    pub path: String,
    headers: BTreeMap<String, String>,
    /// The app's domains.
    domains: Vec<String>,
    secure: bool,
    stripped: Option<String>,
    h2c: bool,
    limit: Duration,
}

/// Why an instance is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    #[error(transparent)]
    Silent(#[from] ProbeError),
    #[error("`{path}` answered {status}")]
    Status { path: String, status: u16 },
    #[error(
        "`{path}` redirects to https what has come by https (X-Forwarded-Proto says so): visitors \
         would be sent round in circles"
    )]
    Circle { path: String },
    #[error("port {port} does not accept connections: {why}")]
    NotListening { port: u16, why: String },
    #[error("`{command}` {how}")]
    Command { command: String, how: String },
    /// That says nothing about the instance.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Unwell {
    pub fn is_refused(&self) -> bool {
        matches!(self, Unwell::Silent(ProbeError::Refused(_)))
    }
}

/// Asks the instances of a service, whichever way it is to be asked.
pub struct Asker<'a> {
    agent: &'a Agent,
    visit: Check,
    check: &'a config::Check,
}

impl<'a> Asker<'a> {
    pub fn of(agent: &'a Agent, app: &App, service: &'a Service) -> Self {
        Self {
            agent,
            visit: Check::of(agent, app, service),
            check: &service.settings.health.check,
        }
    }

    /// Whether there is nothing to ask: it is healthy as long as it runs.
    pub fn is_silent(&self) -> bool {
        matches!(self.check, config::Check::Running { .. })
    }

    pub async fn ask(&self, instance: &Instance) -> Result<(), Unwell> {
        match self.check {
            config::Check::Route => match instance.endpoint {
                Some(target) => self.visit.ask(target).await,
                None => Ok(()),
            },
            config::Check::Http { port } => {
                let target = self.address(instance, *port).await?;
                self.visit.ask(target).await
            }
            config::Check::Tcp { port } => {
                let target = self.address(instance, *port).await?;
                let connect = timeout(self.visit.limit, TcpStream::connect(target)).await;
                let why = match connect {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("no answer within {:?}", self.visit.limit),
                };
                Err(Unwell::NotListening { port: *port, why })
            }
            config::Check::Command(command) => {
                let (engine, limit) = (&self.agent.engine, self.visit.limit);
                let ended = engine
                    .execute(&instance.ours(), &command.argv(), limit)
                    .await?;
                let how = match ended {
                    Some(Exit { code: 0, .. }) => return Ok(()),
                    Some(Exit { code, tail }) => match tail.last() {
                        Some(last) => format!("exited with code {code}: {last}"),
                        None => format!("exited with code {code}"),
                    },
                    None => format!("did not end within {limit:?}"),
                };
                let command = command.to_string();
                Err(Unwell::Command { command, how })
            }
            config::Check::Running { .. } => Ok(()),
        }
    }

    /// A process takes no requests, so any address of its own will do.
    async fn address(&self, instance: &Instance, port: u16) -> Result<SocketAddr, Unwell> {
        let look = self.agent.engine.look(&instance.ours()).await?;
        let missing = || Unwell::NotListening {
            port,
            why: "the container has no address".to_owned(),
        };
        let address = look.address.ok_or_else(missing)?;
        Ok(SocketAddr::new(address, port))
    }
}

impl Check {
    pub fn of(agent: &Agent, app: &App, service: &Service) -> Self {
        let health = &service.settings.health;
        let host = health.host.clone().unwrap_or_else(|| name(&app.domains));
        Self {
            host,
            path: health.path.clone(),
            headers: health.headers.clone(),
            domains: app.domains.clone(),
            secure: agent.in_force().config.proxy.https.is_some(),
            stripped: Some(app.proxy.path.clone())
                .filter(|_| app.proxy.strip_path && health.check == config::Check::Route),
            h2c: service.protocol == Protocol::H2c && health.check == config::Check::Route,
            limit: health.timeout,
        }
    }

    /// Healthy is any 2xx or 3xx, but a redirect of the same path to https is followed: it says
    /// nothing about what visitors get.
    pub async fn ask(&self, target: SocketAddr) -> Result<(), Unwell> {
        let (mut host, mut secure) = (self.host.clone(), self.secure);
        for _ in 0..=MAX_REDIRECTS {
            let reply = probe(target, self.question(&host, secure)).await?;
            match self.same_by_https(&host, &reply) {
                Some(to) if secure && to == host => break,
                Some(to) => (host, secure) = (to, true),
                None => return self.judge(&reply),
            }
        }
        Err(Unwell::Circle {
            path: self.path.clone(),
        })
    }

    fn question<'a>(&'a self, host: &'a str, secure: bool) -> Question<'a> {
        Question {
            host,
            path: &self.path,
            headers: &self.headers,
            secure,
            stripped: self.stripped.as_deref(),
            h2c: self.h2c,
            limit: self.limit,
        }
    }

    fn judge(&self, reply: &Reply) -> Result<(), Unwell> {
        match reply.status {
            200..=399 => Ok(()),
            status => Err(Unwell::Status {
                path: self.path.clone(),
                status,
            }),
        }
    }

    /// The host under which a redirect leads to the same path of this app by https.
    fn same_by_https(&self, asked: &str, reply: &Reply) -> Option<String> {
        let to = Url::parse(reply.location.as_deref()?).ok()?;
        let host = to.host_str().filter(|_| to.scheme() == "https")?;
        let place = |url: &Url| (url.path().to_owned(), url.query().map(str::to_owned));
        let prefix = self.stripped.as_deref().unwrap_or_default();
        let prefix = prefix.trim_end_matches('/');
        let own = [String::new(), prefix.to_owned()];
        let same = own.iter().any(|prefix| {
            let own = Url::parse(&format!("https://{host}{prefix}{}", self.path));
            own.is_ok_and(|own| place(&own) == place(&to))
        });
        let own = host == asked || self.domains.iter().any(|domain| covers(domain, host));
        (same && own).then(|| host.to_owned())
    }
}

/// A name that visitors use.
fn name(domains: &[String]) -> String {
    let plain = domains.iter().find(|domain| !domain.starts_with("*."));
    let below = || Some(format!("www.{}", domains.first()?.strip_prefix("*.")?));
    plain.cloned().or_else(below).unwrap_or("localhost".into())
}

fn covers(domain: &str, host: &str) -> bool {
    match domain.strip_prefix('*') {
        Some(parent) => host.len() > parent.len() && host.ends_with(parent),
        None => host == domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn check(domains: &[&str], secure: bool) -> Check {
        let domains: Vec<_> = domains.iter().map(|it| (*it).to_owned()).collect();
        Check {
            host: name(&domains),
            path: "/up?x=1".into(),
            headers: BTreeMap::new(),
            domains,
            secure,
            stripped: None,
            h2c: false,
            limit: Duration::from_secs(5),
        }
    }

    /// An app that answers each request by its head.
    async fn app(answer: fn(&str) -> String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..length]).to_lowercase();
                let _ = stream.write_all(answer(&head).as_bytes()).await;
            }
        });
        address
    }

    fn status(status: u16) -> String {
        format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n")
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 301 x\r\ncontent-length: 0\r\nlocation: {to}\r\n\r\n")
    }

    fn by_https(head: &str) -> bool {
        head.contains("x-forwarded-proto: https\r\n")
    }

    #[test]
    fn the_name_is_one_that_visitors_use() {
        let of = |domains: &[&str]| check(domains, false).host;
        assert_eq!(of(&["*.a.test", "b.test"]), "b.test");
        assert_eq!(of(&["*.a.test"]), "www.a.test");
        assert_eq!(of(&[]), "localhost");
    }

    #[tokio::test]
    async fn a_redirect_to_https_is_followed_and_what_is_there_counts() {
        let redirects = |head: &str| match by_https(head) {
            false => redirect("https://a.test/up?x=1"),
            true => status(500),
        };
        let broken = app(redirects).await;
        let asked = check(&["a.test"], false).ask(broken).await;
        assert!(
            matches!(asked, Err(Unwell::Status { status: 500, .. })),
            "{asked:?}"
        );
        let good = |head: &str| match by_https(head) {
            false => redirect("https://a.test:443/up?x=1"),
            true => status(204),
        };
        let good = app(good).await;
        check(&["a.test"], false).ask(good).await.unwrap();
        check(&["a.test"], true).ask(good).await.unwrap();
    }

    #[tokio::test]
    async fn a_redirect_of_https_to_itself_is_not_healthy() {
        let circle = app(|_| redirect("https://a.test/up?x=1")).await;
        for secure in [false, true] {
            let asked = check(&["a.test"], secure).ask(circle).await;
            assert!(matches!(asked, Err(Unwell::Circle { .. })), "{asked:?}");
        }
    }

    #[tokio::test]
    async fn another_name_of_the_app_is_asked_under_that_name() {
        let canonical = |head: &str| match head.contains("host: www.a.test\r\n") {
            false => redirect("https://www.a.test/up?x=1"),
            true => status(if by_https(head) { 503 } else { 200 }),
        };
        let target = app(canonical).await;
        let asked = check(&["a.test", "*.a.test"], false).ask(target).await;
        assert!(
            matches!(asked, Err(Unwell::Status { status: 503, .. })),
            "{asked:?}"
        );
        // Somebody else's name.
        check(&["a.test"], false).ask(target).await.unwrap();
    }

    #[tokio::test]
    async fn any_other_redirect_is_healthy() {
        let login = app(|_| redirect("https://a.test/login")).await;
        check(&["a.test"], false).ask(login).await.unwrap();
        let local = app(|_| redirect("/up?x=1")).await;
        check(&["a.test"], false).ask(local).await.unwrap();
    }
}
