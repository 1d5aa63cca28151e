//! Pins an app to what is live, and puts it under maintenance.

use super::{Agent, Result, cancel, routes};
use crate::ids::AppName;
use crate::principal::Requester;
use crate::store::holds::{self, Held, Hold};
use crate::store::{actions, deployments, now};

/// Puts it on, or replaces its text; with `off` takes it away. What is set already is recorded once.
pub async fn set(
    agent: &Agent,
    app: &AppName,
    hold: Hold,
    text: Option<String>,
    off: bool,
    by: Requester,
) -> Result<Option<Held>> {
    let of = app.clone();
    let write = agent.store.write(move |db| {
        let before = holds::of(db, &of, hold)?;
        let wanted = (!off).then(|| Held {
            at: before.as_ref().map_or_else(now, |before| before.at),
            by: by.clone(),
            text,
        });
        let said = |it: &Option<Held>| it.as_ref().map(|it| it.text.clone());
        if said(&before) == said(&wanted) {
            return Ok((before, Vec::new()));
        }
        let kind = match (hold, off) {
            (Hold::Pin, false) => actions::Kind::Pin,
            (Hold::Pin, true) => actions::Kind::Unpin,
            (Hold::Maintenance, _) => actions::Kind::Maintenance,
        };
        let shown = |it: &Option<Held>| match it {
            Some(it) => serde_json::json!({ "on": true, "text": it.text }),
            None => serde_json::json!({ "on": false }),
        };
        let detail = serde_json::json!({ "before": shown(&before), "after": shown(&wanted) });
        actions::insert(db, kind, Some(&of), &detail, &by)?;
        holds::set(db, &of, hold, wanted.as_ref())?;
        // What waits for its turn to build has begun, but is still queued.
        let mut stopped = Vec::new();
        for it in deployments::open(db)?.into_iter().filter(|it| it.app == of) {
            if !cancel::is_too_late(it.state) && holds::stops(db, &it)?.is_some() {
                stopped.push(it.id);
            }
        }
        Ok((wanted, stopped))
    });
    let (held, stopped) = write.await?;
    // What has not begun ends when its turn comes, and so do the others if the agent is killed here.
    for id in &stopped {
        agent.hub.cancel(id);
    }
    tracing::info!(%app, ?hold, on = held.is_some(), "changed what is put on an app");
    if hold == Hold::Maintenance
        && let Err(error) = routes::publish(agent).await
    {
        tracing::warn!(%app, %error, "the proxy does not know yet whether the app is under maintenance");
    }
    agent.hub.changed();
    Ok(held)
}
