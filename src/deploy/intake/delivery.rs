//! The webhook door: a delivery is stored with what its refs led to before it is answered.

use std::net::IpAddr;

use rusqlite::Connection;
use serde::Serialize;

use super::decide::{Decision, Led, decide};
use super::queue::{self, Placed, place, placed, skip};
use super::record::record;
use super::{Agent, Moved, Outcome, Result};
use crate::config::App;
use crate::ids::{DeliveryId, DeploymentId};
use crate::principal::Requester;
use crate::store::deliveries::{self, Move, NewDelivery};
use crate::store::deployments::{NewDeployment, Trigger};
use crate::store::holds;
use crate::store::pushes::{self, Seen};
use crate::webhook::{Content, Push, Received};

/// What a delivery led to; the response to the forge.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Delivery)]
pub struct Answer {
    #[schema(value_type = String, example = "w01m5z8k2p9v3t")]
    pub delivery: DeliveryId,
    /// The id of the deployment, which may be skipped already; null if there is none.
    #[schema(value_type = Option<String>, required, example = "d01m5z8k2q4x7a")]
    pub deployment: Option<DeploymentId>,
    /// Why nothing is deployed, why some refs are not, or why the deployment is an earlier one.
    #[schema(required)]
    pub reason: Option<String>,
    /// What became of each ref.
    pub refs: Vec<Outcome>,
}

/// How many refs the sentence names: `refs` of the response names them all.
const NAMED: usize = 10;

/// Stores a delivery and what it leads to in one transaction. A push that was seen before leads to what
/// it led to then.
pub async fn delivery(
    agent: &Agent,
    app: &App,
    received: Received,
    from: Option<IpAddr>,
) -> Result<Answer> {
    let asked = Asked::read(app, received, from);
    let stored = agent.store.write(move |db| store(db, asked)).await?;
    stored.placed.iter().for_each(|new| placed(agent, new));
    super::record::log(&stored.answer.refs);
    Ok(stored.answer)
}

/// What a delivery requests.
struct Asked {
    delivery: NewDelivery,
    by: Requester,
    refs: Vec<Moved>,
    decision: Decision,
    app: App,
    /// Why it does not move any ref.
    nothing: Option<String>,
}

struct Stored {
    answer: Answer,
    placed: Vec<Placed>,
}

impl Asked {
    fn read(app: &App, received: Received, from: Option<IpAddr>) -> Self {
        let (pushes, nothing) = match received.content {
            Content::Pushes(pushes) => (pushes, None),
            Content::Ping => (vec![], Some("ping: the webhook is set up".to_owned())),
            Content::Ignored(reason) => (vec![], Some(reason)),
        };
        let by = Requester::Webhook {
            forge: received.forge.to_string(),
            user: pushes.iter().find_map(|push| push.pusher.clone()),
            from,
        };
        let delivery = NewDelivery {
            app: app.name.clone(),
            forge: received.forge.to_string(),
            forge_delivery: received.delivery,
            event: received.event,
            body_hash: hex::encode(received.body_hash),
            moves: pushes.iter().map(to_move).collect(),
        };
        let skip = pushes.iter().any(|push| push.skip);
        let refs: Vec<_> = pushes.into_iter().map(moved).collect();
        Self {
            decision: decide(app, &refs, skip),
            delivery,
            by,
            refs,
            app: app.clone(),
            nothing,
        }
    }

    fn outcomes(&self, chosen: Led<'_>, first: Led<'_>) -> Vec<Outcome> {
        let (app, refs) = (&self.app.name, &self.refs);
        self.decision.outcomes(app, refs, chosen, first)
    }

    /// What a delivery that is not stored again led to the first time.
    fn before(&self, db: &Connection, earlier: deliveries::Outcome) -> Result<Stored> {
        let reason = "this push was delivered before";
        let first = match self.decision.first {
            Some(at) => {
                let git_ref = &self.refs[at].git_ref;
                pushes::led_to(db, &self.app.name, &earlier.delivery, git_ref)?
            }
            None => None,
        };
        let led = |to| Led {
            to,
            reason: Some(reason),
        };
        let refs = self.outcomes(led(earlier.deployment.as_ref()), led(first.as_ref()));
        Ok(Stored {
            answer: Answer {
                delivery: earlier.delivery,
                deployment: earlier.deployment,
                reason: Some(reason.to_owned()),
                refs,
            },
            placed: Vec::new(),
        })
    }
}

fn store(db: &Connection, mut asked: Asked) -> Result<Stored> {
    let pinned = holds::why_pinned(db, &asked.app.name)?;
    asked.decision = asked.decision.unless_pinned(pinned);
    let Some(at) = asked.decision.chosen else {
        return nothing(db, asked);
    };
    let (new, delivery) = (&asked.refs[at], &asked.delivery);
    let push = &delivery.moves[at];
    let seen = match pushes::seen(db, delivery, push)? {
        Seen::Before(outcome) => return asked.before(db, outcome),
        seen => seen,
    };
    let is_new = matches!(seen, Seen::New);
    if is_new {
        pushes::moved(db, delivery)?;
    }
    let to_place = |moved: &Moved| NewDeployment {
        trigger: Trigger::Webhook,
        ..queue::pushed(&asked.app.name, moved, asked.by.clone())
    };
    let first = match asked.decision.first {
        Some(at) => Some((at, place(db, &to_place(&asked.refs[at]), is_new)?)),
        None => None,
    };
    let new = to_place(new);
    let placed = match asked.decision.skip(at) {
        Some(why) => skip(db, &new, why)?,
        None => place(db, &new, is_new)?,
    };
    let id = &placed.deployment.id;
    let led_first = first.as_ref().map(|(_, first)| Led::from(first));
    let refs = asked.outcomes(Led::from(&placed), led_first.unwrap_or_default());
    let reason = placed.reason.clone().or_else(|| summary(&refs));
    let outcome = deliveries::insert(db, delivery, Some(id.clone()), reason)?;
    if is_new {
        pushes::insert(db, &delivery.app, push, &outcome.delivery, id)?;
    }
    if let Some((at, first)) = first.as_ref().filter(|_| is_new) {
        let (push, id) = (&delivery.moves[*at], &first.deployment.id);
        pushes::insert(db, &delivery.app, push, &outcome.delivery, id)?;
    }
    record(db, &asked.refs, &refs, Some(&outcome.delivery), &asked.by)?;
    Ok(Stored {
        answer: answer(outcome, refs),
        placed: first
            .map(|(_, first)| first)
            .into_iter()
            .chain([placed])
            .collect(),
    })
}

/// Stores a delivery that deploys nothing.
fn nothing(db: &Connection, asked: Asked) -> Result<Stored> {
    let delivery = &asked.delivery;
    if let Some(earlier) = deliveries::earlier(db, delivery)? {
        return asked.before(db, earlier.outcome);
    }
    pushes::moved(db, delivery)?;
    let refs = asked.outcomes(Led::default(), Led::default());
    let reason = asked.nothing.clone().or_else(|| summary(&refs));
    let outcome = deliveries::insert(db, delivery, None, reason)?;
    record(db, &asked.refs, &refs, Some(&outcome.delivery), &asked.by)?;
    Ok(Stored {
        answer: answer(outcome, refs),
        placed: Vec::new(),
    })
}

fn answer(outcome: deliveries::Outcome, refs: Vec<Outcome>) -> Answer {
    Answer {
        delivery: outcome.delivery,
        deployment: outcome.deployment,
        reason: outcome.reason,
        refs,
    }
}

/// Why refs are not deployed, as one text; `None` if all are.
fn summary(refs: &[Outcome]) -> Option<String> {
    let is_left = |it: &&Outcome| it.deployment.is_none() || it.skipped;
    let left: Vec<_> = refs.iter().filter(is_left).collect();
    match left.as_slice() {
        [] => None,
        [one] if refs.len() == 1 => one.reason.clone(),
        left => {
            let named = left.iter().take(NAMED).map(|one| one.to_string());
            let more = left.len().saturating_sub(NAMED);
            let more = (more > 0).then(|| format!("and {more} more refs"));
            Some(named.chain(more).collect::<Vec<_>>().join("; "))
        }
    }
}

fn to_move(push: &Push) -> Move {
    Move {
        git_ref: push.git_ref.full(),
        old: push.old.clone(),
        new: push.new.clone(),
    }
}

fn moved(push: Push) -> Moved {
    Moved {
        git_ref: push.git_ref.full(),
        old: push.old,
        new: Ok(push.new),
        points_to: push.commit,
        message: push.message,
        author: push.author,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_a_few_and_counts_the_rest() {
        let one = |n: usize, reason: Option<&str>| Outcome {
            git_ref: format!("refs/heads/{n}"),
            app: None,
            deployment: reason.is_none().then(DeploymentId::new),
            reason: reason.map(str::to_owned),
            skipped: false,
        };
        assert_eq!(summary(&[one(1, None)]), None);
        assert_eq!(summary(&[one(1, Some("x"))]).as_deref(), Some("x"));
        let two = [one(1, None), one(2, Some("x"))];
        let named = "refs/heads/2: not deployed: x";
        assert_eq!(summary(&two).as_deref(), Some(named));
        let many: Vec<_> = (0..16).map(|n| one(n, Some("x"))).collect();
        assert!(summary(&many).unwrap().ends_with("; and 6 more refs"));
        let skipped = Outcome {
            deployment: Some(DeploymentId::new()),
            skipped: true,
            ..one(1, Some("x"))
        };
        assert_eq!(summary(&[skipped]).as_deref(), Some("x"));
    }
}
