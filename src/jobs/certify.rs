//! Orders and renews certificates, each name by itself: one that fails holds up no other.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::certificates::Failure;
use crate::certificates::account::{self, Opened};
use crate::certificates::files::Files;
use crate::certificates::leaf::Leaf;
use crate::certificates::names::{self, Name, Source};
use crate::certificates::order::{self, Desk};
use crate::certificates::renewal;
use crate::certificates::schedule::{self, HOUR, ORDERS};
use crate::config::{Acme, Config};
use crate::deploy::Agent;
use crate::log_limit::limited;
use crate::store::certificates as table;
use crate::store::now;

/// How many certificates are ordered at the same time.
const AT_ONCE: usize = 8;
/// How many authorities' words on renewals are waited for at the same time.
const ASKED_AT_ONCE: usize = 4;
/// The pause after an account that was wanted only to ask could not be opened.
const UNOPENED: Duration = Duration::from_secs(600);
/// How many of the orders of an hour are kept for names that deploy.toml has.
const RESERVED: usize = ORDERS / 5;
/// The pause where the database does not take when the next attempt is to be made.
const UNRECORDED: Duration = Duration::from_secs(5);
/// How often expired certificates that nobody needs any more are looked for.
const PUT_AWAY: Duration = Duration::from_secs(3600);
/// The files of the owner may change at any time.
const POLL: Duration = Duration::from_secs(30);

pub async fn certify(agent: Arc<Agent>) {
    let files = files(&agent.in_force().config);
    // What an agent before this one left.
    let _ = tokio::task::spawn_blocking(move || files.clear_challenges()).await;
    let mut ordering = FuturesUnordered::new();
    let mut busy = HashSet::new();
    let (mut asking, mut asked) = (FuturesUnordered::new(), HashSet::new());
    let mut ask_again = Instant::now();
    let mut account: Option<(Acme, Opened)> = None;
    let mut put_away = Instant::now();
    loop {
        let mut pause = POLL;
        let config = agent.in_force().config.clone();
        if put_away <= Instant::now() {
            put_away = Instant::now() + PUT_AWAY;
            for name in put_away_expired(&agent, config.clone()).await {
                tracing::info!(
                    name,
                    "removed the expired certificate of a name that is no longer in deploy.toml"
                );
            }
        }
        if let Some(acme) = config.proxy.acme.clone() {
            let (names, left) = look(&agent, config).await;
            let mut unasked = renewal::due(&names, &acme.directory);
            unasked.retain(|it| !busy.contains(&it.name) && !asked.contains(&it.name));
            unasked.truncate(ASKED_AT_ONCE - asked.len());
            if ask_again > Instant::now() {
                unasked.clear();
            }
            let (due, next) = due(names, left, &busy, AT_ONCE - busy.len());
            pause = pause.min(next);
            if account.as_ref().is_none_or(|(of, _)| *of != acme) {
                account = None;
            }
            if account.is_none() && !(due.is_empty() && unasked.is_empty()) {
                account = open(&agent, &acme, &due).await.map(|it| (acme.clone(), it));
                // The names have just got another time.
                if account.is_none() {
                    pause = Duration::from_secs(1);
                    ask_again = Instant::now() + UNOPENED;
                }
            }
            if let Some((_, opened)) = &account {
                for name in due {
                    busy.insert(name.name.clone());
                    ordering.push(obtain(&agent, acme.clone(), opened.clone(), name));
                }
                for name in unasked {
                    asked.insert(name.name.clone());
                    asking.push(renewal::ask(opened.clone(), agent.store.clone(), name));
                }
            }
        }
        tokio::select! {
            () = agent.certifying.notified() => {}
            Some((name, lost)) = ordering.next() => {
                busy.remove(&name);
                // Several orders may notice that an account was lost.
                if let Some((acme, opened)) = &account
                    && lost.as_deref() == Some(opened.account.id())
                {
                    account::forget(&self::files(&agent.in_force().config), &acme.directory).await;
                    account = None;
                }
            }
            Some(name) = asking.next() => {
                asked.remove(&name);
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Nothing while the database cannot be read: what is known decides what is wanted.
async fn put_away_expired(agent: &Agent, config: Config) -> Vec<String> {
    let Ok(states) = agent.store.read(table::all).await else {
        return Vec::new();
    };
    let expired = move || names::put_away(&config, &states, now());
    tokio::task::spawn_blocking(expired)
        .await
        .unwrap_or_default()
}

fn files(config: &Config) -> Files {
    Files::new(&config.agent.data_dir, config.proxy.certificates.clone())
}

/// All names, and how many orders may be placed in this hour.
async fn look(agent: &Agent, config: Config) -> (Vec<Name>, usize) {
    let since = now() - HOUR;
    let read = agent
        .store
        .read(move |db| Ok((table::all(db)?, table::orders_since(db, since)?)));
    let (states, orders) = read.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to read what is known of certificates");
        (BTreeMap::new(), vec![now(); ORDERS])
    });
    let looked = tokio::task::spawn_blocking(move || names::all(&config, &states)).await;
    let (names, _) = looked.unwrap_or_default();
    (names, ORDERS.saturating_sub(orders.len()))
}

/// Up to `most` names whose certificate is to be ordered now, and when to look again.
fn due(
    names: Vec<Name>,
    left: usize,
    busy: &HashSet<String>,
    most: usize,
) -> (Vec<Name>, Duration) {
    let mut next = POLL;
    let mut due = Vec::new();
    for name in names {
        let (Some(at), false) = (name.due, busy.contains(&name.name)) else {
            continue;
        };
        let wait = Duration::from_millis((at - now()).max(0) as u64);
        match wait.is_zero() && name.source == Source::Ordered {
            true => due.push(name),
            false => next = next.min(wait),
        }
    }
    // Those that have waited for somebody, or were begun, come first.
    due.sort_by_key(|Name { state, .. }| {
        let is_asked_for = state.app.is_some();
        (is_asked_for, state.order_url.is_none(), state.failures)
    });
    // What deploy.toml names must not wait for what strangers ask for.
    let spare = left.saturating_sub(RESERVED);
    let named = due.iter().filter(|it| it.state.app.is_none()).count();
    due.truncate(named + spare);
    if due.len() > left {
        limited!(
            warn,
            "certificates wait",
            "{} certificates wait: no more than {ORDERS} are ordered in an hour",
            due.len() - left
        );
    }
    due.truncate(left.min(most));
    (due, next)
}

/// Opens the account. If that fails, so do the names that are due.
async fn open(agent: &Agent, acme: &Acme, due: &[Name]) -> Option<Opened> {
    let files = files(&agent.in_force().config);
    match account::open(acme, &files).await {
        Ok(opened) => Some(opened),
        Err(failure) => {
            if due.is_empty() {
                tracing::debug!("the authority cannot be asked when to renew: {failure}");
            }
            for name in due {
                failed(agent, name, &failure).await;
            }
            None
        }
    }
}

/// The name, and the account if the authority has lost it.
async fn obtain(agent: &Agent, acme: Acme, opened: Opened, name: Name) -> (String, Option<String>) {
    let files = files(&agent.in_force().config);
    let desk = Desk {
        acme: &acme,
        opened: &opened,
        files: &files,
        store: &agent.store,
        proxy: &agent.proxy,
    };
    let mut lost = None;
    match order::obtain(&desk, &name).await {
        Ok(leaf) => obtained(&name.name, &leaf),
        Err(failure) => {
            failed(agent, &name, &failure).await;
            if matches!(failure, Failure::NoAccount) {
                lost = Some(opened.account.id().to_owned());
            }
        }
    }
    agent.hub.changed();
    (name.name, lost)
}

fn obtained(name: &str, leaf: &Leaf) {
    let days = (leaf.not_after - now()) / (24 * HOUR);
    let issuer = &leaf.issuer;
    tracing::info!(name, issuer, days, "obtained a certificate");
}

/// Records why there is no certificate yet, and when the next attempt is made.
async fn failed(agent: &Agent, name: &Name, failure: &Failure) {
    let (name, failures) = (name.name.as_str(), name.state.failures);
    let pause = schedule::pause(failure, failures + 1);
    let seconds = pause.as_secs();
    tracing::warn!(
        name,
        "no certificate yet: {failure}; trying again in {seconds} s"
    );
    let (name, error) = (name.to_owned(), failure.to_string());
    let next_try = now() + pause.as_millis() as i64;
    let write = agent
        .store
        .write(move |db| table::failed(db, &name, &error, next_try));
    if let Err(error) = write.await {
        tracing::warn!(%error, "failed to record why a certificate is missing");
        // What is not recorded is due again at once.
        tokio::time::sleep(UNRECORDED).await;
    }
}
