//! Reports the status that one message is about to a forge, and records the outcome.

use std::time::Duration;

use super::answer::Problem;
use super::http::Http;
use super::send::send;
use super::session::Session;
use super::token::Tokens;
use crate::deploy::Agent;
use crate::store::outbox::{self, Message};
use crate::store::statuses::{self, ForgeStatus};
use crate::store::{self, StoreError};

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// How long a report is retried before it is given up.
const GIVE_UP: Duration = Duration::from_secs(3 * 24 * 3600);

/// What all requests to forges share.
pub struct Forges {
    http: Http,
    tokens: Tokens,
}

impl Forges {
    /// Creates the shared state. An error is one sentence.
    pub fn new() -> Result<Self, String> {
        let (http, tokens) = (Http::new()?, Tokens::default());
        Ok(Self { http, tokens })
    }

    /// Reports the current status of the subject of `message` to the forge, and records the outcome. If
    /// the forge asked for a pause, returns when that ends, in milliseconds since 1970.
    pub async fn tell(&self, agent: &Agent, message: &Message) -> Option<i64> {
        match self.told(agent, message).await {
            Ok(until) => until,
            Err(error) => {
                // Not recorded as sent, so it is sent again.
                tracing::warn!(app = message.key, %error, "failed to record what was reported to a forge");
                tokio::time::sleep(Duration::from_secs(1)).await;
                None
            }
        }
    }

    async fn told(&self, agent: &Agent, message: &Message) -> Result<Option<i64>, StoreError> {
        let read = message.clone();
        let found = agent
            .store
            .read(move |db| statuses::of_message(db, &read))
            .await?;
        let Some(status) = found else {
            let gone = message.clone();
            let settle = agent.store.write(move |db| outbox::settle(db, &gone));
            return settle.await.map(|_| None);
        };
        let outcome = self.ask(agent, &status).await;
        let until = match &outcome {
            Err(Problem::Later {
                wait: Some(wait), ..
            }) => Some(store::now() + wait.as_millis() as i64),
            _ => None,
        };
        record(agent, message.clone(), status, outcome).await?;
        Ok(until)
    }

    async fn ask(&self, agent: &Agent, status: &ForgeStatus) -> Result<(), Problem> {
        let in_force = agent.in_force();
        let config = &in_force.config;
        let app = config.apps.get(&status.app);
        let Some((app, report)) = app.and_then(|app| Some((app, app.report.as_ref()?))) else {
            let why = "the app no longer has a `report` section";
            return Err(Problem::Refused(why.into()));
        };
        let session = Session {
            http: &self.http,
            tokens: &self.tokens,
            app: &app.name,
            report,
        };
        send(&session, &agent.store, config, app, status).await
    }
}

async fn record(
    agent: &Agent,
    message: Message,
    status: ForgeStatus,
    outcome: Result<(), Problem>,
) -> Result<(), StoreError> {
    let now = store::now();
    let (app, deployment, kind) = (&status.app, &status.deployment, status.kind);
    let outcome = match outcome {
        Err(Problem::Later { why, .. }) if now - message.since > GIVE_UP.as_millis() as i64 => {
            Err(Problem::Refused(format!("gave up after three days: {why}")))
        }
        other => other,
    };
    match outcome {
        Ok(()) => {
            let write = move |db: &_| statuses::set_told(db, &message, &status);
            agent.store.write(write).await
        }
        Err(Problem::Refused(why)) => {
            // The same refusal for a later phase is not logged again.
            if status.error.as_ref() != Some(&why) {
                tracing::warn!(%app, %deployment, %kind, "the forge refused the {kind}: {why}");
            }
            let write = move |db: &_| statuses::set_refused(db, &message, &status, &why);
            agent.store.write(write).await
        }
        Err(Problem::Later { wait, why }) => {
            if message.attempts == 0 {
                tracing::info!(%app, %deployment, %kind, "failed to report to the forge, will retry: {why}");
            }
            let pause =
                wait.map_or_else(|| backoff(message.attempts), |wait| wait.max(FIRST_PAUSE));
            let due_at = now + pause.as_millis() as i64;
            let write = move |db: &_| statuses::set_later(db, &message, &status, due_at, &why);
            agent.store.write(write).await
        }
    }
}

/// Doubles with each attempt, less a random part of up to a half, so that many apps do not retry at
/// the same moment.
pub fn backoff(attempts: u32) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << attempts.min(20));
    let whole = whole.min(LONGEST_PAUSE);
    let mut random = [0u8; 2];
    // Without randomness the retries are merely less spread out.
    let _ = getrandom::fill(&mut random);
    let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    whole.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_bounds() {
        for attempts in 0..40 {
            let whole = FIRST_PAUSE.as_millis() << attempts.min(20);
            let whole = whole.min(LONGEST_PAUSE.as_millis());
            let pause = backoff(attempts).as_millis();
            assert!(
                (whole / 2 - 1..=whole).contains(&pause),
                "{attempts}: {pause}"
            );
        }
    }
}
