//! Which pushes have been seen, so that each is deployed once. A push is identified by its app, its
//! ref, and the commits that the ref moved from and to.
//!
//! - The same signed body again is a redelivery, whatever its headers say; so is the same push with
//!   the same forge id. A known id with another push is not a redelivery: ids are not signed, and a
//!   forged one must not swallow a push.
//! - The push that moved the ref to where it is now, in another body, comes from a second webhook.
//! - A push that starts where the ref is now is new, even if the ref moved the same way before: from
//!   A to B, back to A, and to B again.
//! - If none of this decides, the repository does: a deployment is queued, which finds something to
//!   deploy or nothing left to do. This is so for two cases. A known push in another body and under
//!   another id may be a late delivery by a second webhook, or a forced push after one that was never
//!   delivered. An old body that starts where the ref is now may be a replay, or come from a forge
//!   whose bodies for the same move do not differ.

use rusqlite::{Connection, OptionalExtension};

use super::deliveries::{self, Earlier, Move, NewDelivery, Outcome};
use super::{Result, maybe_parsed};
use crate::ids::{AppName, CommitId, DeliveryId, DeploymentId};

/// Whether a push has been seen before.
pub enum Seen {
    New,
    /// Possibly an old push: the repository decides, and the recorded tip of the ref stays unchanged.
    Late,
    /// An earlier delivery of the push led to this.
    Before(Outcome),
}

pub fn seen(db: &Connection, delivery: &NewDelivery, push: &Move) -> Result<Seen> {
    let tip = tip(db, &delivery.app, &push.git_ref)?;
    let is_tip = tip.as_ref() == Some(push);
    let goes_on = !is_tip && tip.is_some_and(|tip| tip.new == push.old);
    let same_id = |earlier: &Earlier| {
        earlier.forge_delivery.is_some() && earlier.forge_delivery == delivery.forge_delivery
    };
    if let Some(earlier) = deliveries::earlier(db, delivery)? {
        return Ok(match goes_on && !same_id(&earlier) {
            true => Seen::Late,
            false => Seen::Before(earlier.outcome),
        });
    }
    let Some(earlier) = same_move(db, &delivery.app, push)? else {
        return Ok(Seen::New);
    };
    Ok(match () {
        () if is_tip || !goes_on && same_id(&earlier) => Seen::Before(earlier.outcome),
        // The sender does not say where the ref was: it may have moved in between.
        () if goes_on || push.old.is_none() => Seen::New,
        () => Seen::Late,
    })
}

/// Records where the refs of a delivery point now.
pub fn moved(db: &Connection, delivery: &NewDelivery) -> Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO tips (app, ref, old, new) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (app, ref) DO UPDATE SET old = ?3, new = ?4",
    )?;
    for push in &delivery.moves {
        let (old, new) = (text(&push.old), text(&push.new));
        upsert.execute((delivery.app.as_str(), &push.git_ref, old, new))?;
    }
    Ok(())
}

/// Corrects the recorded tip of a ref to what the repository says, after a delivery was lost or
/// replayed.
pub fn found(db: &Connection, app: &AppName, git_ref: &str, at: &CommitId) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE tips SET old = new, new = ?3 WHERE app = ?1 AND ref = ?2 AND new IS NOT ?3",
    )?;
    update.execute((app.as_str(), git_ref, at.as_str()))?;
    Ok(())
}

/// Records what a push led to.
pub fn insert(
    db: &Connection,
    app: &AppName,
    push: &Move,
    delivery: &DeliveryId,
    deployment: &DeploymentId,
) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO pushes (app, ref, old, new, delivery, deployment)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute((
        app.as_str(),
        &push.git_ref,
        text(&push.old),
        text(&push.new),
        delivery.as_str(),
        deployment.as_str(),
    ))?;
    Ok(())
}

const LED_TO: &str = "SELECT deployment FROM pushes WHERE app = ?1 AND ref = ?2 AND delivery = ?3";

/// What a ref of an app's delivery led to, if it was recorded.
pub fn led_to(
    db: &Connection,
    app: &AppName,
    delivery: &DeliveryId,
    git_ref: &str,
) -> Result<Option<DeploymentId>> {
    let mut query = db.prepare_cached(LED_TO)?;
    let parameters = (app.as_str(), git_ref, delivery.as_str());
    let found = query.query_row(parameters, |row| maybe_parsed(row, "deployment"));
    Ok(found.optional()?.flatten())
}

fn tip(db: &Connection, app: &AppName, git_ref: &str) -> Result<Option<Move>> {
    let mut query = db.prepare_cached("SELECT old, new FROM tips WHERE app = ?1 AND ref = ?2")?;
    let found = query.query_row((app.as_str(), git_ref), |row| {
        Ok(Move {
            git_ref: git_ref.to_owned(),
            old: maybe_parsed(row, "old")?,
            new: maybe_parsed(row, "new")?,
        })
    });
    Ok(found.optional()?)
}

/// The first delivery of exactly this move that led to a deployment.
fn same_move(db: &Connection, app: &AppName, push: &Move) -> Result<Option<Earlier>> {
    let mut query = db.prepare_cached(
        "SELECT d.id, d.deployment, d.reason, d.forge_delivery
         FROM pushes p JOIN deliveries d ON d.id = p.delivery
         WHERE p.app = ?1 AND p.ref = ?2 AND p.new IS ?3 AND p.old IS ?4
         ORDER BY p.rowid LIMIT 1",
    )?;
    let (old, new) = (text(&push.old), text(&push.new));
    let parameters = (app.as_str(), &push.git_ref, new, old);
    Ok(query
        .query_row(parameters, deliveries::from_row)
        .optional()?)
}

fn text(commit: &Option<CommitId>) -> Option<&str> {
    commit.as_ref().map(CommitId::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database, and the number of deployments that deliveries to it have queued.
    struct Counted {
        db: Connection,
        deployments: usize,
    }

    impl Counted {
        fn new() -> Self {
            let mut db = Connection::open_in_memory().unwrap();
            super::super::migrations::run(&mut db).unwrap();
            Self { db, deployments: 0 }
        }

        /// Delivers a push from one commit to another (a letter each, a space for none). Returns
        /// `new` or `again` with the deployment that it led to, or `late`. With an empty body,
        /// nothing is delivered: a deployment finds the branch at the new commit.
        fn deliver(&mut self, moves: &str, body: &str, id: &str) -> String {
            let commit = |letter: &str| letter.repeat(40).parse::<CommitId>().ok();
            let (old, new) = (commit(&moves[..1]), commit(&moves[1..]));
            let push = Move {
                git_ref: "refs/heads/main".into(),
                old,
                new,
            };
            let app: AppName = "hello".parse().unwrap();
            if body.is_empty() {
                found(&self.db, &app, &push.git_ref, &push.new.unwrap()).unwrap();
                return "".into();
            }
            let delivery = NewDelivery {
                app,
                forge: "github".into(),
                forge_delivery: (!id.is_empty()).then(|| id.to_owned()),
                event: "push".into(),
                body_hash: body.into(),
                moves: vec![push.clone()],
            };
            let seen = seen(&self.db, &delivery, &push).unwrap();
            if let Seen::Before(outcome) = seen {
                return format!("again {}", outcome.deployment.unwrap());
            }
            self.deployments += 1;
            let deployment: DeploymentId = format!("d{:013}", self.deployments).parse().unwrap();
            let outcome =
                deliveries::insert(&self.db, &delivery, Some(deployment.clone()), None).unwrap();
            if let Seen::Late = seen {
                return "late".into();
            }
            moved(&self.db, &delivery).unwrap();
            insert(
                &self.db,
                &delivery.app,
                &push,
                &outcome.delivery,
                &deployment,
            )
            .unwrap();
            format!("new {deployment}")
        }

        #[track_caller]
        fn expect(&mut self, deliveries: &[(&str, &str, &str, &str)]) {
            for (moves, body, id, expected) in deliveries {
                let said = self.deliver(moves, body, id);
                let short = said.replace("d000000000000", "");
                assert_eq!(short, *expected, "{moves:?} {body} {id}");
            }
        }
    }

    #[test]
    fn what_a_ref_led_to_is_found_without_reading_every_push() {
        let counted = Counted::new();
        let (app, id) = ("hello".parse().unwrap(), DeliveryId::new());
        led_to(&counted.db, &app, &id, "refs/heads/main").unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {LED_TO}");
        let plan = counted
            .db
            .query_row(&explain, ("", "", ""), |row| row.get::<_, String>("detail"));
        let plan = plan.unwrap();
        assert!(plan.contains("pushes_by_move (app=? AND ref=?)"), "{plan}");
    }

    #[test]
    fn back_and_forth_is_a_push_each_time() {
        Counted::new().expect(&[
            (" a", "1", "i1", "new 1"),
            ("ab", "2", "i2", "new 2"),
            ("ba", "3", "i3", "new 3"),
            ("ab", "4", "i4", "new 4"),
            ("ba", "5", "i5", "new 5"),
        ]);
        // The same from a forge whose bodies carry no time, so that they repeat.
        Counted::new().expect(&[
            (" a", "1", "i1", "new 1"),
            ("ab", "2", "i2", "new 2"),
            ("ba", "3", "i3", "new 3"),
            ("ab", "2", "i4", "late"),
            (" b", "", "", ""),
            ("ba", "3", "i5", "late"),
            (" a", "", "", ""),
            ("ab", "2", "i6", "late"),
        ]);
        // A push is replayed while the branch is at a; then the branch really moves.
        Counted::new().expect(&[
            (" a", "1", "i1", "new 1"),
            ("ab", "2", "i2", "new 2"),
            ("ba", "3", "i3", "new 3"),
            ("ab", "2", "forged", "late"),
            (" a", "", "", ""),
            ("ab", "4", "i4", "new 5"),
        ]);
        // From a sender that does not say where the branch was: its signed id is part of the hash.
        Counted::new().expect(&[
            (" a", "1", "i1", "new 1"),
            (" b", "2", "i2", "new 2"),
            (" a", "3", "i3", "new 3"),
            (" b", "4", "i4", "new 4"),
        ]);
        // The branch is deleted and created again.
        Counted::new().expect(&[
            (" a", "1", "i1", "new 1"),
            ("a ", "2", "i2", "new 2"),
            (" a", "3", "i3", "new 3"),
        ]);
    }

    #[test]
    fn a_redelivery_leads_to_the_first_however_late() {
        let mut counted = Counted::new();
        counted.expect(&[
            (" a", "1", "i1", "new 1"),
            (" a", "1", "i1", "again 1"),
            ("ab", "2", "i2", "new 2"),
            ("bc", "3", "i3", "new 3"),
            (" a", "1", "i1", "again 1"),
            ("ab", "2", "i9", "again 2"),
            ("ab", "2", "", "again 2"),
            ("cb", "4", "i4", "new 4"),
            // The branch is where this one begins, but the forge's id says that it is not new.
            ("bc", "3", "i3", "again 3"),
            ("bc", "9", "i9", "new 5"),
        ]);
    }

    #[test]
    fn a_known_id_does_not_swallow_another_push() {
        Counted::new().expect(&[
            (" a", "1", "i1", "new 1"),
            ("ab", "2", "i1", "new 2"),
            ("bc", "3", "i1", "new 3"),
            // The same push in a new body, under its old id.
            ("ab", "4", "i1", "again 2"),
            ("ab", "5", "i2", "late"),
            ("bc", "6", "i1", "again 3"),
        ]);
    }

    #[test]
    fn two_webhooks_count_a_push_once() {
        Counted::new().expect(&[
            (" a", "1", "x1", "new 1"),
            (" a", "1y", "y1", "again 1"),
            ("ab", "2", "x2", "new 2"),
            ("bc", "3", "x3", "new 3"),
            // Late: the repository decides, and the recorded tip does not go back to b.
            ("ab", "2y", "y2", "late"),
            ("bc", "3y", "y3", "again 3"),
            ("cd", "4", "x4", "new 5"),
        ]);
    }
}
