//! What is wrong with the server for as long as it is: told when it begins and when it is over.

use rusqlite::Connection;

use super::events::{self, Said};
use super::{Result, maybe_parsed, now};
use crate::config::NotifyEvent;
use crate::ids::AppName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    pub what: NotifyEvent,
    /// What has it: a folder, a domain. Two alarms of a kind differ by it.
    pub subject: String,
    pub app: Option<AppName>,
    pub title: String,
    pub text: String,
    /// What is said when it is over.
    pub over: String,
}

/// Records what is wrong now. Returns whether anything is to be told.
pub fn set(db: &Connection, all: &[Alarm]) -> Result<bool> {
    let mut query = db.prepare_cached("SELECT what, subject, app, over FROM alarms")?;
    let rows = query.query_map([], |row| {
        let (what, subject): (String, String) = (row.get("what")?, row.get("subject")?);
        let app = maybe_parsed(row, "app")?;
        Ok((what, subject, app, row.get::<_, String>("over")?))
    })?;
    let before: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    let mut any = false;
    for alarm in all {
        let is_known = before
            .iter()
            .any(|(what, subject, ..)| what == alarm.what.as_str() && *subject == alarm.subject);
        if is_known {
            continue;
        }
        any = true;
        let app = alarm.app.as_ref().map(AppName::as_str);
        let (what, subject) = (alarm.what.as_str(), &alarm.subject);
        db.execute(
            "INSERT INTO alarms (what, subject, app, over, since) VALUES (?1, ?2, ?3, ?4, ?5)",
            (what, subject, app, &alarm.over, now()),
        )?;
        let said = Said {
            about: alarm.what,
            app: alarm.app.clone(),
            title: alarm.title.clone(),
            text: alarm.text.clone(),
        };
        events::said(db, alarm.what, said)?;
    }
    for (what, subject, app, over) in before {
        let still = |it: &&Alarm| it.what.as_str() == what && it.subject == subject;
        if all.iter().find(still).is_some() {
            continue;
        }
        any = true;
        db.execute(
            "DELETE FROM alarms WHERE what = ?1 AND subject = ?2",
            (&what, &subject),
        )?;
        // Of a newer version: nobody was told by this one.
        let Some(about) = NotifyEvent::named(&what) else {
            continue;
        };
        let said = Said {
            about,
            app,
            title: over,
            text: String::new(),
        };
        events::said(db, NotifyEvent::Recovered, said)?;
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::events::{Event, HAPPENED};
    use crate::store::{Store, outbox};

    #[tokio::test]
    async fn what_is_wrong_is_told_when_it_begins_and_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let told = || -> Vec<_> {
                let all = outbox::all(db, &HAPPENED).unwrap().into_iter();
                all.map(|it| serde_json::from_str::<Event>(&it.payload).unwrap().what)
                    .collect()
            };
            let alarm = Alarm {
                what: NotifyEvent::Disk,
                subject: "/data".into(),
                app: None,
                title: "full".into(),
                text: String::new(),
                over: "not full".into(),
            };
            let all = [alarm];
            assert!(set(db, &all)?);
            assert!(!set(db, &all)?);
            assert_eq!(told(), [NotifyEvent::Disk]);
            assert!(set(db, &[])?);
            assert!(!set(db, &[])?);
            assert_eq!(told(), [NotifyEvent::Disk, NotifyEvent::Recovered]);
            Ok(())
        });
        write.await.unwrap();
    }
}
