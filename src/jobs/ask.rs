//! On-demand names: for a name that a client asks for in its handshake and that deploy.toml does not have,
//! the server that an app's `domains_ask` names says whether the app serves it. Its answers are kept for a
//! while, and only a name that it knows costs an order. The proxy waits for none of this: the client has to
//! come again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, StatusCode, header};
use http_body_util::Full;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use crate::certificates::files::Files;
use crate::config::Config;
use crate::deploy::Agent;
use crate::ids::AppName;
use crate::log_limit::limited;
use crate::outbound::Outbound;
use crate::proxy::control;
use crate::store::certificates::{self as table, State};
use crate::store::{StoreError, now};

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many names are asked about at the same time, and the pause after each round.
const AT_ONCE: usize = 4;
const PAUSE: Duration = Duration::from_millis(100);
/// The most names that certificates are ordered for this way.
const MOST: usize = 5_000;
/// How long a name is not asked about again that the server does not know, and one for which it did not
/// answer; and how many such names are remembered.
const REFUSED: Duration = Duration::from_secs(600);
const UNANSWERED: Duration = Duration::from_secs(30);
const REMEMBERED: usize = 10_000;
/// How long a name counts as known, in milliseconds. After that it is asked about again.
const KNOWN: i64 = 24 * 3_600_000;
const REVIEW: Duration = Duration::from_secs(3600);
/// A name that never got a certificate is given up after so many attempts.
const ATTEMPTS: u32 = 8;
/// How often is looked whether an app asks, and the pause while the proxy does not answer.
const IDLE: Duration = Duration::from_secs(2);

enum Answer {
    Known,
    Unknown,
    /// Why there is none.
    Nothing(String),
}

/// Who is asked, for which app.
struct Asking<'a> {
    app: AppName,
    url: String,
    config: Config,
    outbound: &'a Outbound,
}

pub async fn ask(agent: Arc<Agent>) {
    let mut refused = Refused::default();
    let mut review = Instant::now();
    // Reading the roots of TLS takes a while, and is of use only where an app asks.
    let outbound = OnceCell::new();
    loop {
        let Some(asking) = asking(&agent, &outbound).await else {
            sleep(IDLE).await;
            continue;
        };
        if review <= Instant::now() {
            review = Instant::now() + REVIEW;
            if let Err(error) = ask_again(&agent, &asking).await {
                tracing::warn!(%error, "failed to look at the on-demand names");
            }
        }
        match agent.proxy.unknown_names().await {
            Ok(names) => {
                let names = names.into_iter().filter(|name| !refused.has(name));
                let names: Vec<_> = names.collect();
                if !names.is_empty() {
                    if let Err(error) = fresh(&agent, &asking, names, &mut refused).await {
                        tracing::warn!(%error, "failed to ask about on-demand names");
                    }
                    sleep(PAUSE).await;
                }
            }
            // Of an older version.
            Err(control::Error::Refused(_)) => sleep(REVIEW / 60).await,
            Err(_) => sleep(IDLE).await,
        }
    }
}

/// `None`: no app asks, or no certificate could be ordered.
async fn asking<'a>(agent: &Agent, outbound: &'a OnceCell<Outbound>) -> Option<Asking<'a>> {
    let config = agent.in_force().config.clone();
    config.proxy.acme.as_ref()?;
    let mut apps = config.apps.values();
    let (app, url) = apps.find_map(|app| Some((app.name.clone(), app.domains_ask.clone()?)))?;
    let made = outbound.get_or_try_init(|| async {
        let made = tokio::task::spawn_blocking(Outbound::new).await.ok();
        let made = made.ok_or(())?;
        made.map_err(|error| tracing::error!("on-demand names: {error}"))
    });
    let outbound = made.await.ok()?;
    Some(Asking {
        app,
        url,
        config,
        outbound,
    })
}

/// Names that clients have just asked for.
async fn fresh(
    agent: &Agent,
    asking: &Asking<'_>,
    mut names: Vec<String>,
    refused: &mut Refused,
) -> Result<(), StoreError> {
    let states = agent.store.read(table::all).await?;
    names.retain(|name| {
        let known = states.get(name).is_some_and(|it| it.app.is_some());
        !known && asking.may_be(name)
    });
    let count = states.values().filter(|it| it.app.is_some()).count();
    if names.len() > MOST.saturating_sub(count) {
        limited!(
            warn,
            "too many on-demand names",
            "there are {MOST} on-demand names: no certificate is ordered for `{}`",
            names[0].escape_debug()
        );
        return Ok(());
    }
    for (name, answer) in asking.all(names).await {
        match answer {
            Answer::Known => {
                tracing::info!(app = %asking.app, name, "an on-demand name: a certificate is ordered");
                allow(agent, &asking.app, name).await?;
                agent.certifying.notify_one();
            }
            Answer::Unknown => {
                tracing::debug!(app = %asking.app, name, "`domains_ask` does not know the name");
                refused.add(name, REFUSED);
            }
            Answer::Nothing(why) => {
                asking.failed(&why);
                refused.add(name, UNANSWERED);
            }
        }
    }
    Ok(())
}

/// Names whose answer has grown old, and those that nothing comes of.
async fn ask_again(agent: &Agent, asking: &Asking<'_>) -> Result<(), StoreError> {
    let states = agent.store.read(table::all).await?;
    let on_demand = states.into_iter().filter(|(_, it)| it.app.is_some());
    let on_demand: BTreeMap<String, State> = on_demand.collect();
    let config = &asking.config;
    let files = Files::new(&config.agent.data_dir, config.proxy.certificates.clone());
    let vain = on_demand
        .iter()
        .filter(|(_, it)| it.failures >= ATTEMPTS)
        .map(|(name, _)| (name.clone(), files.certificate(name)));
    let vain: Vec<_> = vain.collect();
    let vain = tokio::task::spawn_blocking(move || {
        let without = vain.into_iter().filter(|(_, path)| !path.exists());
        without.map(|(name, _)| name).collect::<Vec<_>>()
    });
    for name in vain.await.unwrap_or_default() {
        tracing::info!(app = %asking.app, name, "an on-demand name is given up: it got no certificate");
        agent
            .store
            .write(move |db| table::forget(db, &name))
            .await?;
    }
    let old = on_demand
        .into_iter()
        .filter(|(_, it)| it.allowed_until < Some(now()));
    let old: Vec<_> = old.map(|(name, _)| name).collect();
    for (name, answer) in asking.all(old).await {
        match answer {
            Answer::Known => allow(agent, &asking.app, name).await?,
            Answer::Unknown => {
                tracing::info!(app = %asking.app, name, "`domains_ask` does not know the name any more: its \
                    certificate is not renewed");
                agent
                    .store
                    .write(move |db| table::forget(db, &name))
                    .await?;
            }
            Answer::Nothing(why) => asking.failed(&why),
        }
    }
    Ok(())
}

async fn allow(agent: &Agent, app: &AppName, name: String) -> Result<(), StoreError> {
    let app = app.clone();
    let write = move |db: &_| table::allow(db, &name, &app, now() + KNOWN);
    agent.store.write(write).await
}

impl Asking<'_> {
    /// Whether a certificate could be ordered for a name, and deploy.toml does not have it.
    fn may_be(&self, name: &str) -> bool {
        let acme = self.config.proxy.acme.as_ref();
        let named = self.config.certified_names();
        let below = name
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        name.contains('.')
            && acme.is_some_and(|acme| acme.cannot(name).is_none())
            && !named.contains(name)
            && !below.is_some_and(|it| named.contains(it.as_str()))
    }

    async fn all(&self, names: Vec<String>) -> Vec<(String, Answer)> {
        let asked = names.into_iter().map(async |name| {
            let answer = timeout(PATIENCE, self.one(&name)).await;
            let late = || Err("it does not answer in time".to_owned());
            let answer = match answer.unwrap_or_else(|_| late()) {
                Ok(status) if status.is_success() => Answer::Known,
                Ok(status) if status.is_server_error() => {
                    Answer::Nothing(format!("it answers {status}"))
                }
                Ok(_) => Answer::Unknown,
                Err(why) => Answer::Nothing(why),
            };
            (name, answer)
        });
        let asked: Vec<_> = asked.collect();
        stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn one(&self, name: &str) -> Result<StatusCode, String> {
        let joint = if self.url.contains('?') { '&' } else { '?' };
        let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let uri: http::Uri = format!("{}{joint}domain={name}", self.url)
            .parse()
            .map_err(|error| format!("{error}"))?;
        let mut channel = self
            .outbound
            .connect(&uri)
            .await
            .map_err(|e| e.to_string())?;
        let agent = concat!("cutover/", env!("CARGO_PKG_VERSION"));
        let request = Request::get(uri)
            .header(header::USER_AGENT, agent)
            .body(Full::new(Bytes::new()))
            .map_err(|error| error.to_string())?;
        let answer = channel.send(request).await.map_err(|e| e.to_string())?;
        Ok(answer.status())
    }

    fn failed(&self, why: &str) {
        limited!(
            warn,
            "`domains_ask` does not answer",
            "`apps.{}.domains_ask`: {why}; clients of names that are new get no certificate",
            self.app
        );
    }
}

/// Names that nobody is asked about for a while.
#[derive(Default)]
struct Refused(HashMap<String, Instant>);

impl Refused {
    fn has(&self, name: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|until| *until > Instant::now())
    }

    fn add(&mut self, name: String, pause: Duration) {
        if self.0.len() >= REMEMBERED {
            let now = Instant::now();
            self.0.retain(|_, until| *until > now);
        }
        // Forgotten too early, it is asked about once more.
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(name, Instant::now() + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_names_are_remembered_for_a_while_and_not_without_end() {
        let mut refused = Refused::default();
        refused.add("a.test".into(), Duration::ZERO);
        refused.add("b.test".into(), REFUSED);
        assert!(!refused.has("a.test") && refused.has("b.test") && !refused.has("c.test"));
        for number in 0..3 * REMEMBERED {
            refused.add(format!("{number}.test"), REFUSED);
        }
        assert!(refused.0.len() <= REMEMBERED);
    }
}
