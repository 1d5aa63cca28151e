//! Which runs are due, and which were missed.

use std::sync::Arc;

use rusqlite::Connection;

use crate::config::{self, App, Overlap, Schedule};
use crate::deploy::{Agent, Result, rollback};
use crate::ids::ServiceName;
use crate::principal::Requester;
use crate::store::jobs::{self, Job, JobKind};
use crate::store::ours::mark;
use crate::store::releases::Release;
use crate::store::{StoreError, actions, apps, crons, now};

/// A clock that was this far ahead was wrong.
const AHEAD: i64 = 24 * 3600 * 1000;
/// How many runs are looked at for one of the same time.
const RECENT: usize = 50;

/// What the time has come for.
#[derive(Default)]
pub struct Due {
    /// Runs to stop, since the next one is due.
    pub stop: Vec<Job>,
    /// When the next one is due, in milliseconds since 1970.
    pub next: Option<i64>,
}

/// Records the runs whose time has come; they are then [`unfinished`](super::unfinished). `started` is
/// when this agent began to look: what was due before that was missed.
pub async fn due(agent: &Agent, started: i64) -> Result<Due> {
    let in_force = agent.in_force();
    let apps = in_force.config.apps.values();
    let apps: Vec<_> = apps.filter(|app| !app.cron.is_empty()).cloned().collect();
    if apps.is_empty() {
        return Ok(Due::default());
    }
    let write = agent.store.write(move |db| {
        let mut due = Due::default();
        for app in &apps {
            let live = match apps::stopped(db, &app.name)? {
                Some(_) => None,
                None => rollback::live(db, &app.name)?,
            };
            for (name, cron) in &app.cron {
                let cron = Scheduled { app, name, cron };
                cron.look(db, live.as_ref(), started, &mut due)?;
            }
        }
        Ok(due)
    });
    write.await
}

/// One schedule of an app.
struct Scheduled<'a> {
    app: &'a App,
    name: &'a ServiceName,
    cron: &'a config::Cron,
}

impl Scheduled<'_> {
    fn look(
        &self,
        db: &Connection,
        live: Option<&Release>,
        started: i64,
        due: &mut Due,
    ) -> Result<()> {
        let (app, schedule, now) = (&self.app.name, &self.cron.schedule, now());
        let key = format!("{} {}", schedule.text, schedule.timezone);
        let seen = match crons::seen(db, app, self.name)? {
            Some((seen, by)) if by == key && live.is_some() && seen < now + AHEAD => seen,
            // Only its time zone has changed, while no agent ran, and it was due in that time by the old one too.
            Some((seen, by))
                if live.is_some() && missed_in_its_zone(&by, &schedule.text, seen, started) =>
            {
                crons::set_seen(db, app, self.name, seen, &key)?;
                seen
            }
            // What was due before there was such a schedule, or anything live, was not missed.
            _ => {
                crons::set_seen(db, app, self.name, now, &key)?;
                now
            }
        };
        let (Some(live), Some(next)) = (live, schedule.next(seen)) else {
            return Ok(());
        };
        if next > now {
            if seen < started {
                // What changes from now on changes nothing of what was due before.
                crons::set_seen(db, app, self.name, started, &key)?;
            }
            due.next = Some(due.next.map_or(next, |soonest| soonest.min(next)));
            return Ok(());
        }
        // Of several that were missed, the last.
        let at = schedule.last(now).unwrap_or(next).max(next);
        let runs = jobs::of_cron(db, app, self.name, &jobs::Part::default(), RECENT)?;
        let mut known = runs.iter().filter_map(|job| job.cron.as_ref());
        // The clock was set back.
        if known.any(|cron| cron.due_at == Some(at)) {
            return crons::set_seen(db, app, self.name, at, &key);
        }
        let open = open(db, self)?;
        if let Some(open) = open {
            match self.cron.overlap {
                Overlap::Skip => {
                    crons::set_seen(db, app, self.name, at, &key)?;
                    let why = "skipped: the run before was still going on";
                    self.skip(db, live, at, why)?;
                }
                // It is still due when the other has ended.
                Overlap::Queue => {}
                Overlap::Kill => due.stop.push(open),
            }
            return Ok(());
        }
        crons::set_seen(db, app, self.name, at, &key)?;
        if at < started && !self.cron.missed {
            return self.skip(db, live, at, "skipped: no agent ran when it was due");
        }
        let job = self.job(live, Some(at), None);
        jobs::insert(db, &job)
    }

    fn job(&self, live: &Release, due_at: Option<i64>, by: Option<Requester>) -> Job {
        let (app, name) = (&self.app.name, self.name);
        let tail = &mark()[..8];
        let container = format!("cutover-{app}-cron-{name}-{:x}-{tail}", now());
        Job {
            cron: Some(jobs::Cron {
                name: name.clone(),
                due_at,
                command: self.cron.command.clone(),
                timeout: self.cron.timeout,
                requested_by: by,
            }),
            ..Job::new(container, app.clone(), live.id.clone(), JobKind::Cron, None)
        }
    }

    fn skip(&self, db: &Connection, live: &Release, at: i64, why: &str) -> Result<()> {
        let job = self.job(live, Some(at), None);
        jobs::insert(db, &job)?;
        tracing::warn!(app = %self.app.name, cron = %self.name, "{why}");
        jobs::ended_with(db, &job, None, Some(why), &[])
    }
}

/// Whether a key is of a schedule with this text, which was due between the two times in the key's time zone.
fn missed_in_its_zone(key: &str, text: &str, seen: i64, started: i64) -> bool {
    let Some((of, zone)) = key.rsplit_once(' ') else {
        return false;
    };
    let schedule = Schedule::parse(of, zone).ok().filter(|_| of == text);
    let next = schedule.and_then(|schedule| schedule.next(seen));
    next.is_some_and(|next| next <= started)
}

/// The run of a schedule that has not ended.
fn open(db: &Connection, scheduled: &Scheduled<'_>) -> Result<Option<Job>> {
    let all = jobs::open(db, JobKind::Cron)?.into_iter();
    let of = |job: &Job| {
        let name = job.cron.as_ref().map(|cron| &cron.name);
        job.app == scheduled.app.name && name == Some(scheduled.name)
    };
    let mut all = all.filter(of);
    Ok(all.next())
}

/// Records a run that a person asks for; the schedule's job begins it.
pub async fn run_now(
    agent: &Agent,
    app: Arc<App>,
    name: ServiceName,
    by: Requester,
) -> Result<Job> {
    let write = agent.store.write(move |db| {
        let Some(cron) = app.cron.get(&name) else {
            return Err(StoreError::Refused(format!(
                "`{}` has no `[apps.{0}.cron.{name}]` in deploy.toml",
                app.name
            )));
        };
        let (app, name) = (&*app, &name);
        if apps::stopped(db, &app.name)?.is_some() {
            let why = format!("`{0}` is stopped: `cutover start {0}`", app.name);
            return Err(StoreError::Refused(why));
        }
        let scheduled = Scheduled { app, name, cron };
        let Some(live) = rollback::live(db, &app.name)? else {
            let why = format!("nothing of `{}` is live that could run it", app.name);
            return Err(StoreError::Refused(why));
        };
        if let Some(open) = open(db, &scheduled)? {
            let why = format!(
                "`{name}` is running already, in the container `{}`",
                open.name
            );
            return Err(StoreError::Refused(why));
        }
        let detail = serde_json::json!({ "cron": name });
        actions::insert(db, actions::Kind::Cron, Some(&app.name), &detail, &by)?;
        let job = scheduled.job(&live, None, Some(by));
        jobs::insert(db, &job)?;
        Ok(job)
    });
    let job = write.await?;
    agent.scheduling.notify_one();
    Ok(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_time_zone_makes_up_for_what_was_missed_by_the_old_one() {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let (text, key) = ("0 3 * * *", "0 3 * * * Europe/Berlin");
        // In winter it is due at 02:00 UTC.
        let ran = at("2026-11-29T02:00:00Z");
        let missed = |key, started| missed_in_its_zone(key, text, ran, at(started));
        assert!(!missed(key, "2026-11-29T10:00:00Z"), "it ran today");
        assert!(missed(key, "2026-11-30T10:00:00Z"));
        assert!(!missed("0 4 * * * Europe/Berlin", "2026-11-30T10:00:00Z"));
        assert!(!missed(key, "2026-11-29T01:00:00Z"), "after the start");
    }
}
