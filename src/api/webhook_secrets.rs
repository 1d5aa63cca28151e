//! The secrets of the apps' webhooks. They are read again at intervals, so that rotating one needs no
//! restart, but not for each of a thousand deliveries a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::Api;
use super::error::Kind;
use crate::config::App;
use crate::ids::AppName;

/// How long a secret that was removed may still be accepted.
pub const FRESH: Duration = Duration::from_secs(1);

/// The secrets that were read last, by app.
#[derive(Default)]
pub struct WebhookSecrets(parking_lot::Mutex<HashMap<AppName, Arc<Mutex<Option<Read>>>>>);

/// An app's secrets as they were at `at` or later.
#[derive(Clone)]
pub struct Read {
    pub at: Instant,
    pub values: Arc<Vec<Vec<u8>>>,
}

impl WebhookSecrets {
    /// The secrets as they were at `moment` or later; only one task at a time reads them. A secret that
    /// cannot be read is left out, and a delivery that none of the others has signed is refused.
    pub async fn since(api: &Arc<Api>, app: &App, moment: Instant) -> Read {
        let last = api
            .webhook_secrets
            .0
            .lock()
            .entry(app.name.clone())
            .or_default()
            .clone();
        let mut last = last.lock().await;
        if let Some(read) = last.as_ref().filter(|read| read.at >= moment) {
            return read.clone();
        }
        let at = Instant::now();
        let (secrets, name, api) = (app.webhook.secrets.clone(), app.name.clone(), api.clone());
        let values = move || {
            let read = secrets.iter().filter_map(|secret| match secret.read() {
                Ok(value) => Some(value),
                Err(error) => {
                    let say = || format!("a webhook secret of `{name}` cannot be read: {error}");
                    api.refusals.say(Kind::Secret, say);
                    None
                }
            });
            read.collect()
        };
        let values = tokio::task::spawn_blocking(values).await;
        let read = Read {
            at,
            values: Arc::new(values.unwrap_or_default()),
        };
        *last = Some(read.clone());
        read
    }
}
