//! `cutover notify test`.

use futures_util::future::join_all;

use super::message::Message;
use super::tell::deliver;
use crate::deploy::Agent;
use crate::outbound::Outbound;
use crate::store::{self, unreached};

/// What became of a test.
pub struct Told {
    pub name: String,
    /// Why the receiver was not told.
    pub error: Option<String>,
}

/// Sends a test to one receiver, or to all; `None` if there is none of this name.
pub async fn test(agent: &Agent, only: Option<&str>) -> Result<Option<Vec<Told>>, String> {
    let outbound = Outbound::new()?;
    let in_force = agent.in_force();
    let all = in_force.config.notify.iter();
    let chosen: Vec<_> = all
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .collect();
    if chosen.is_empty() && only.is_some() {
        return Ok(None);
    }
    let message = Message::test(store::now());
    let told = chosen.into_iter().map(|(name, notifier)| {
        let (outbound, message) = (&outbound, &message);
        async move {
            let outcome = deliver(outbound, notifier, message).await;
            let error = outcome.err().map(|problem| problem.why().to_owned());
            note(agent, name.clone(), error.clone()).await;
            Told {
                name: name.clone(),
                error,
            }
        }
    });
    Ok(Some(join_all(told).await))
}

/// Records the outcome, as that of any other message.
async fn note(agent: &Agent, receiver: String, error: Option<String>) {
    let write = agent.store.write(move |db| match &error {
        Some(why) => unreached::failed(db, &receiver, why),
        None => unreached::forget(db, &receiver),
    });
    if let Err(error) = write.await {
        tracing::warn!(%error, "failed to record what became of a test");
    }
}
