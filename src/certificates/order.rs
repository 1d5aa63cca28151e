//! One certificate, from its order to its file. An agent that is killed at any moment continues the
//! order: its address is in the database, and the key is on disk before the authority is told of it.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeStatus, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::Failure;
use super::account::{Opened, failure, said};
use super::challenge::{Answers, kind};
use super::files::{self, Files};
use super::leaf::{self, Leaf};
use super::names::Name;
use super::renewal;
use super::schedule::is_hastened;
use crate::config::Acme;
use crate::proxy::control::Client;
use crate::store::certificates::{self, State};
use crate::store::{Store, StoreError};

/// How long an attempt may take. What is not done by then is continued by the next one.
const DEADLINE: Duration = Duration::from_secs(300);

/// How the authority is asked whether it is done, in each of an order's two waits.
const ASKING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// What orders are placed with.
pub struct Desk<'a> {
    pub acme: &'a Acme,
    pub opened: &'a Opened,
    pub files: &'a Files,
    pub store: &'a Store,
    pub proxy: &'a Client,
}

/// Gets a certificate for a name, and stores it where the proxy finds it.
pub async fn obtain(desk: &Desk<'_>, name: &Name) -> Result<Leaf, Failure> {
    let attempt = tokio::time::timeout(DEADLINE, attempt(desk, name));
    let late = Failure::Away("the authority takes its time; continuing later".into());
    attempt.await.unwrap_or(Err(late))
}

async fn attempt(desk: &Desk<'_>, name: &Name) -> Result<Leaf, Failure> {
    let mut order = match continued(desk, &name.state).await {
        Some(order) => order,
        None => place(desk, name).await?,
    };
    let done = complete(desk, name, &mut order).await;
    if let Err(Failure::Refused(_)) = &done {
        // It cannot be completed any more, or not in the same way.
        set_order(desk, &name.name, None).await?;
    }
    done
}

/// The order that is under way, if it can still lead to a certificate.
async fn continued(desk: &Desk<'_>, state: &State) -> Option<Order> {
    let url = state.order_url.clone()?;
    if state.directory.as_deref() != Some(&desk.acme.directory) {
        return None;
    }
    let account: &Account = &desk.opened.account;
    let mut order = account.order(url).await.ok()?;
    (order.state().status != OrderStatus::Invalid).then_some(order)
}

async fn place(desk: &Desk<'_>, name: &Name) -> Result<Order, Failure> {
    let counted = desk.store.write(certificates::count_order).await;
    counted.map_err(not_stored)?;
    let wanted = [Identifier::Dns(name.name.clone())];
    let account: &Account = &desk.opened.account;
    let mut new = NewOrder::new(&wanted);
    if let Some(replaced) = renewal::replaced(name, &desk.acme.directory) {
        new = new.replaces(replaced);
    }
    let order = account.new_order(&new).await;
    let order = order.map_err(|error| failure(error, &desk.opened.patience))?;
    set_order(desk, &name.name, Some(order.url().to_owned())).await?;
    Ok(order)
}

async fn set_order(desk: &Desk<'_>, name: &str, url: Option<String>) -> Result<(), Failure> {
    let (name, directory) = (name.to_owned(), desk.acme.directory.clone());
    let write = desk
        .store
        .write(move |db| certificates::set_order(db, &name, &directory, url.as_deref()));
    write.await.map_err(not_stored)
}

fn not_stored(error: StoreError) -> Failure {
    Failure::Away(error.to_string())
}

async fn complete(desk: &Desk<'_>, name: &Name, order: &mut Order) -> Result<Leaf, Failure> {
    let state = &name.state;
    let is_early = (name.leaf.as_ref()).is_some_and(|leaf| is_hastened(state, leaf));
    let name = name.name.as_str();
    let failed = |error| failure(error, &desk.opened.patience);
    if order.state().status == OrderStatus::Pending {
        let mut answers = Answers::new(desk.files, desk.proxy, desk.acme.dns.as_ref());
        let proved = prove(desk, name, state, order, &mut answers).await;
        answers.take_away().await;
        proved?;
    }
    let (status, path) = (order.state().status, desk.files.pending_key(name));
    let key = match status {
        OrderStatus::Ready => {
            let key = KeyPair::generate().map_err(|e| Failure::Refused(e.to_string()))?;
            let text = key.serialize_pem();
            let (to, kept) = (path.clone(), text.clone());
            let written = tokio::task::spawn_blocking(move || files::write(&to, kept.as_bytes()));
            let written = written
                .await
                .unwrap_or_else(|e| Err(std::io::Error::other(e)));
            written.map_err(|error| {
                Failure::Away(format!("failed to write `{}`: {error}", path.display()))
            })?;
            let request = request(name, &key).map_err(|e| Failure::Refused(e.to_string()))?;
            order.finalize_csr(&request).await.map_err(failed)?;
            text
        }
        OrderStatus::Processing | OrderStatus::Valid => {
            let kept = tokio::fs::read_to_string(&path).await;
            kept.map_err(|_| Failure::Refused("the key of the order was lost".into()))?
        }
        _ => return Err(Failure::Refused("the order became invalid".into())),
    };
    let chain = order.poll_certificate(&ASKING).await.map_err(failed)?;
    let leaf = leaf::parse(&chain, &key).map_err(|why| {
        Failure::Refused(format!(
            "the authority sent a certificate that cannot be used: {why}"
        ))
    })?;
    if !leaf.names.iter().any(|own| own == name) {
        let why = "the authority sent a certificate for another name";
        return Err(Failure::Refused(why.into()));
    }
    keep(desk, name, format!("{key}{chain}"), is_early).await?;
    let _ = tokio::fs::remove_file(&path).await;
    Ok(leaf)
}

/// Answers the challenges, and waits until the authority has looked.
async fn prove(
    desk: &Desk<'_>,
    name: &str,
    state: &State,
    order: &mut Order,
    answers: &mut Answers<'_>,
) -> Result<(), Failure> {
    let failed = |error| failure(error, &desk.opened.patience);
    let kind = kind(name, state.failures);
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let mut authorization = authorization.map_err(failed)?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(Failure::Refused("the authorization has ended".into())),
        }
        let Some(mut challenge) = authorization.challenge(kind.clone()) else {
            let why = format!("the authority offers no {kind:?} challenge");
            return Err(Failure::Refused(why));
        };
        let host = name.trim_start_matches("*.");
        let (token, answer) = (challenge.token.clone(), challenge.key_authorization());
        answers.place(&kind, host, &token, &answer).await?;
        // One that an agent before this one announced is being looked at already.
        if challenge.status == ChallengeStatus::Pending {
            challenge.set_ready().await.map_err(failed)?;
        }
    }
    let ready = order.poll_ready(&ASKING).await;
    match ready {
        Ok(OrderStatus::Ready) => Ok(()),
        Err(error @ (instant_acme::Error::Timeout(_) | instant_acme::Error::Other(_))) => {
            Err(failed(error))
        }
        other => match why(order).await {
            Some(why) => Err(Failure::Refused(why)),
            None => Err(match other {
                Err(error) => failed(error),
                Ok(_) => Failure::Refused("the authority refuses, and does not say why".into()),
            }),
        },
    }
}

/// What the authority found wrong with the answers.
async fn why(order: &mut Order) -> Option<String> {
    let mut all = order.authorizations();
    while let Some(Ok(mut authorization)) = all.next().await {
        let state = authorization.refresh().await.ok()?;
        let problems = state.challenges.iter();
        if let Some(problem) = problems.filter_map(|it| it.error.as_ref()).next() {
            return Some(said(problem));
        }
    }
    None
}

/// A request for a certificate with this name alone, in DER.
fn request(name: &str, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Stores the certificate, and has the proxy use it. If the proxy cannot be told, it looks by itself.
async fn keep(desk: &Desk<'_>, name: &str, text: String, hastened: bool) -> Result<(), Failure> {
    let path = desk.files.certificate(name);
    let shown = path.display().to_string();
    let written = tokio::task::spawn_blocking(move || files::write(&path, text.as_bytes()));
    let written = written
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)));
    written.map_err(|error| Failure::Away(format!("failed to write `{shown}`: {error}")))?;
    if let Err(error) = desk.proxy.reload_certificates().await {
        tracing::debug!(%error, "the proxy was not told of a certificate");
    }
    let (name, directory) = (name.to_owned(), desk.acme.directory.clone());
    let write = desk
        .store
        .write(move |db| certificates::obtained(db, &name, &directory, hastened));
    write.await.map_err(not_stored)
}
