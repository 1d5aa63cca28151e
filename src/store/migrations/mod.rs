//! The schema, as an append-only list of migrations. `user_version` is the number of migrations that
//! a database has seen; it is updated in the transaction of each migration, so none is ever half
//! applied.

use rusqlite::Connection;

const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (
        key   TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;

    CREATE TABLE apps (
        name             TEXT PRIMARY KEY,
        live_release     TEXT,
        route_generation INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE deliveries (
        id             TEXT PRIMARY KEY,
        app            TEXT NOT NULL,
        forge          TEXT NOT NULL,
        forge_delivery TEXT,
        event          TEXT NOT NULL,
        body_hash      TEXT NOT NULL,
        received_at    INTEGER NOT NULL,
        deployment     TEXT,
        reason         TEXT
    ) STRICT;
    CREATE INDEX deliveries_by_body ON deliveries (app, body_hash);

    CREATE TABLE deployments (
        id         TEXT PRIMARY KEY,
        app        TEXT NOT NULL,
        trigger    TEXT NOT NULL,
        want       TEXT NOT NULL,
        ref        TEXT,
        commit_id  TEXT,
        message    TEXT,
        author     TEXT,
        state      TEXT NOT NULL,
        release    TEXT,
        attempts   INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        ended_at   INTEGER,
        receipt    TEXT,
        error      TEXT
    ) STRICT;
    CREATE INDEX deployments_by_app ON deployments (app, id);
    CREATE INDEX deployments_open ON deployments (app) WHERE ended_at IS NULL;

    CREATE TABLE steps (
        deployment TEXT NOT NULL REFERENCES deployments (id),
        name       TEXT NOT NULL,
        position   INTEGER NOT NULL,
        state      TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at   INTEGER,
        detail     TEXT,
        PRIMARY KEY (deployment, name)
    ) STRICT;

    CREATE TABLE releases (
        id         TEXT PRIMARY KEY,
        app        TEXT NOT NULL,
        deployment TEXT NOT NULL REFERENCES deployments (id),
        commit_id  TEXT NOT NULL,
        message    TEXT NOT NULL,
        author     TEXT NOT NULL,
        image      TEXT NOT NULL,
        image_id   TEXT NOT NULL,
        settings   TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        went_live  INTEGER,
        removed_at INTEGER
    ) STRICT;
    CREATE INDEX releases_by_app ON releases (app, id);

    CREATE TABLE instances (
        name       TEXT PRIMARY KEY,
        app        TEXT NOT NULL,
        release    TEXT NOT NULL,
        deployment TEXT NOT NULL,
        address    TEXT NOT NULL UNIQUE
    ) STRICT;
",
    "
    ALTER TABLE deployments ADD COLUMN no_cache INTEGER NOT NULL DEFAULT 0;
",
    "
    CREATE TABLE reporting (
        app         TEXT PRIMARY KEY,
        deployments INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE reports (
        kind       TEXT NOT NULL,
        subject    TEXT NOT NULL,
        commit_id  TEXT NOT NULL,
        app        TEXT NOT NULL,
        deployment TEXT NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
        phase      TEXT NOT NULL,
        revision   INTEGER NOT NULL,
        told       INTEGER NOT NULL DEFAULT 0,
        since      INTEGER NOT NULL,
        due_at     INTEGER NOT NULL,
        attempts   INTEGER NOT NULL DEFAULT 0,
        asked      INTEGER NOT NULL DEFAULT 0,
        forge_id   TEXT,
        error      TEXT,
        PRIMARY KEY (kind, subject, commit_id)
    ) STRICT;
    CREATE INDEX reports_waiting ON reports (app, due_at) WHERE told < revision;
    CREATE INDEX reports_by_deployment ON reports (deployment);
    CREATE INDEX reports_live ON reports (app) WHERE phase = 'live';
    CREATE INDEX deployments_by_commit ON deployments (app, commit_id);
",
    "
    CREATE TABLE pushes (
        app        TEXT NOT NULL,
        ref        TEXT NOT NULL,
        old        TEXT,
        new        TEXT,
        delivery   TEXT NOT NULL,
        deployment TEXT NOT NULL
    ) STRICT;
    CREATE INDEX pushes_by_move ON pushes (app, ref, new);

    CREATE TABLE tips (
        app TEXT NOT NULL,
        ref TEXT NOT NULL,
        old TEXT,
        new TEXT,
        PRIMARY KEY (app, ref)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE taken (
        app       TEXT NOT NULL,
        ref       TEXT NOT NULL,
        commit_id TEXT NOT NULL,
        no_cache  INTEGER NOT NULL,
        at        INTEGER NOT NULL
    ) STRICT;
",
    "
    CREATE INDEX deployments_with_release ON deployments (app, id) WHERE release IS NOT NULL;
    CREATE INDEX deployments_by_release ON deployments (release, id) WHERE release IS NOT NULL;
",
    "
    CREATE INDEX releases_by_deployment ON releases (deployment);
",
    // Every existing release has one service, `web`. Its settings stay as they were written.
    "
    CREATE TABLE services (
        release      TEXT NOT NULL REFERENCES releases (id) ON DELETE CASCADE,
        name         TEXT NOT NULL,
        image        TEXT NOT NULL,
        image_id     TEXT NOT NULL,
        image_digest TEXT,
        settings     TEXT NOT NULL,
        replicas     INTEGER NOT NULL,
        port         INTEGER,
        protocol     TEXT NOT NULL,
        PRIMARY KEY (release, name)
    ) STRICT, WITHOUT ROWID;

    INSERT INTO services
        (release, name, image, image_id, settings, replicas, port, protocol)
    SELECT id, 'web', image, image_id, settings,
        json_extract(settings, '$.run.replicas'), json_extract(settings, '$.port'),
        coalesce(json_extract(settings, '$.protocol'), 'http1')
    FROM releases;

    ALTER TABLE releases DROP COLUMN image;
    ALTER TABLE releases DROP COLUMN image_id;
    ALTER TABLE releases DROP COLUMN settings;

    ALTER TABLE instances ADD COLUMN service TEXT NOT NULL DEFAULT 'web';
",
    // Deployments that had nothing to deploy get a state of their own, `skipped`.
    "
    UPDATE deployments SET state = 'skipped'
    WHERE state = 'superseded' AND json_extract(error, '$.code')
        IN ('paths_unchanged', 'skipped');
",
    // Index only deliveries that led to a deployment: then looking up a body that is sent again and
    // again costs the same each time.
    "
    DROP INDEX deliveries_by_body;
    CREATE INDEX deliveries_by_body ON deliveries (app, body_hash, id)
        WHERE deployment IS NOT NULL;
",
    // Move what waits to be sent (`outbox`) out of the rows that record what is true (`statuses`).
    "
    CREATE TABLE outbox (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        topic    TEXT NOT NULL,
        key      TEXT NOT NULL,
        subject  TEXT,
        payload  TEXT NOT NULL,
        revision INTEGER NOT NULL DEFAULT 1,
        since    INTEGER NOT NULL,
        due_at   INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        UNIQUE (topic, key, subject)
    ) STRICT;

    INSERT INTO outbox (topic, key, subject, payload, since, due_at, attempts)
    SELECT
        iif(kind = 'status', 'commit-status', 'deployment-status'), app,
        iif(kind = 'status', commit_id, deployment || ' ' || commit_id),
        json_object('deployment', deployment, 'commit', commit_id), since, due_at, attempts
    FROM reports WHERE told < revision ORDER BY due_at;

    UPDATE reports SET told = told >= revision;
    DROP INDEX reports_waiting;
    DROP INDEX reports_by_deployment;
    DROP INDEX reports_live;
    ALTER TABLE reports DROP COLUMN revision;
    ALTER TABLE reports DROP COLUMN due_at;
    ALTER TABLE reports DROP COLUMN attempts;
    ALTER TABLE reports RENAME TO statuses;
    CREATE INDEX statuses_by_deployment ON statuses (deployment);
    CREATE INDEX statuses_live ON statuses (app) WHERE phase = 'live';
",
    // Record who requested or cancelled a deployment, and what became of each ref of a push.
    "
    ALTER TABLE deployments ADD COLUMN requested_by TEXT;
    ALTER TABLE deployments ADD COLUMN cancelled_by TEXT;

    ALTER TABLE taken RENAME TO pending_pushes;
    ALTER TABLE pending_pushes ADD COLUMN old TEXT;
    ALTER TABLE pending_pushes ADD COLUMN skip INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE pending_pushes ADD COLUMN requested_by TEXT NOT NULL
        DEFAULT '{\"kind\":\"git-http\",\"token\":\"admin\",\"user\":null}';

    CREATE TABLE moved_refs (
        id           TEXT PRIMARY KEY,
        app          TEXT NOT NULL,
        delivery     TEXT,
        ref          TEXT NOT NULL,
        old          TEXT,
        new          TEXT,
        deployment   TEXT,
        reason       TEXT,
        requested_by TEXT NOT NULL
    ) STRICT;
",
    // The engine returns the endpoint, so the row of an instance exists before its endpoint is known.
    "
    ALTER TABLE instances RENAME TO instances_with_address;
    CREATE TABLE instances (
        name       TEXT PRIMARY KEY,
        app        TEXT NOT NULL,
        release    TEXT NOT NULL,
        service    TEXT NOT NULL,
        deployment TEXT NOT NULL,
        endpoint   TEXT UNIQUE
    ) STRICT;
    INSERT INTO instances (name, app, release, service, deployment, endpoint)
    SELECT i.name, i.app, i.release, i.service, i.deployment, i.address || ':' || s.port
    FROM instances_with_address i
    LEFT JOIN services s ON s.release = i.release AND s.name = i.service;
    DROP TABLE instances_with_address;

    CREATE TABLE jobs (
        name       TEXT PRIMARY KEY,
        app        TEXT NOT NULL,
        release    TEXT NOT NULL,
        kind       TEXT NOT NULL,
        deployment TEXT,
        started_at INTEGER NOT NULL,
        ended_at   INTEGER,
        exit_code  INTEGER
    ) STRICT;
    CREATE INDEX jobs_by_deployment ON jobs (deployment);
",
    "
    ALTER TABLE apps ADD COLUMN route TEXT;
    ALTER TABLE apps ADD COLUMN removing INTEGER;
    ALTER TABLE apps ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
",
    // A container is ours only if a row names it and it carries the mark in that row, which no other
    // container has. Containers made by earlier versions carry no mark.
    "
    ALTER TABLE instances ADD COLUMN mark TEXT;
    ALTER TABLE jobs ADD COLUMN mark TEXT;

    CREATE TABLE images (
        app       TEXT NOT NULL,
        cache_key TEXT NOT NULL,
        id        TEXT NOT NULL,
        built_at  INTEGER NOT NULL,
        PRIMARY KEY (app, cache_key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX images_by_id ON images (id);
",
    // Data in an image's VOLUME outlives its container for as long as the release is kept.
    "
    CREATE TABLE volumes (
        name       TEXT PRIMARY KEY,
        app        TEXT NOT NULL,
        release    TEXT NOT NULL,
        path       TEXT NOT NULL,
        kept_since INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX volumes_by_release ON volumes (release);
",
    // An instance that nothing needs any more is stopped in the background.
    "
    ALTER TABLE instances ADD COLUMN retiring_since INTEGER;
",
    // What was live when a release first went live: where a rollback goes back to.
    "
    ALTER TABLE releases ADD COLUMN replaced TEXT;
",
    // The engine that an instance was found on, the instance that still uses a volume, and what people had
    // the agent remove or adopt.
    "
    ALTER TABLE instances ADD COLUMN engine TEXT;
    ALTER TABLE volumes ADD COLUMN instance TEXT;

    CREATE TABLE actions (
        id           TEXT PRIMARY KEY,
        action       TEXT NOT NULL,
        app          TEXT,
        detail       TEXT NOT NULL,
        requested_by TEXT NOT NULL
    ) STRICT;
",
    // A live release that crashed after its bake, until it has run for a while again.
    "
    CREATE TABLE outages (
        app        TEXT PRIMARY KEY,
        deployment TEXT NOT NULL,
        since      INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX outages_by_deployment ON outages (deployment);
",
    // A deployment takes the place of others only once its commit has been found.
    "
    ALTER TABLE deployments ADD COLUMN found INTEGER NOT NULL DEFAULT 1;
",
    // A deployment may ask the registries for its base images; an image names the deployment that built
    // it.
    "
    ALTER TABLE deployments ADD COLUMN pull INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE images ADD COLUMN deployment TEXT;
",
    // The volumes that deploy.toml names: an app's data, which no sweep may remove.
    "
    CREATE TABLE named_volumes (
        app     TEXT NOT NULL,
        name    TEXT NOT NULL,
        volume  TEXT NOT NULL UNIQUE,
        made_at INTEGER NOT NULL,
        PRIMARY KEY (app, name)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE secrets (
        app     TEXT NOT NULL,
        name    TEXT NOT NULL,
        version INTEGER NOT NULL,
        sealed  BLOB NOT NULL,
        set_at  INTEGER NOT NULL,
        set_by  TEXT NOT NULL,
        PRIMARY KEY (app, name)
    ) STRICT;
",
    "
    CREATE TABLE scales (
        app      TEXT NOT NULL,
        service  TEXT NOT NULL,
        replicas INTEGER NOT NULL,
        PRIMARY KEY (app, service)
    ) STRICT, WITHOUT ROWID;
",
    // A push may ask the registries for the base images.
    "
    ALTER TABLE pending_pushes ADD COLUMN pull INTEGER NOT NULL DEFAULT 0;
",
    "
    CREATE TABLE tokens (
        name       TEXT PRIMARY KEY,
        hash       TEXT NOT NULL UNIQUE,
        prefix     TEXT NOT NULL,
        role       TEXT NOT NULL,
        all_apps   INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        expires_at INTEGER,
        used_at    INTEGER
    ) STRICT;
    CREATE TABLE token_apps (
        token TEXT NOT NULL,
        app   TEXT NOT NULL,
        PRIMARY KEY (token, app)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE sessions (
        hash       TEXT PRIMARY KEY,
        holder     TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        seen_at    INTEGER NOT NULL,
        browser    TEXT NOT NULL,
        address    TEXT NOT NULL
    ) STRICT;
",
    // What is known of the names that certificates are ordered for, and when orders were placed, because
    // authorities limit their number. The certificates themselves are files.
    "
    CREATE TABLE certificates (
        name      TEXT PRIMARY KEY,
        directory TEXT,
        order_url TEXT,
        asked_at  INTEGER,
        failures  INTEGER NOT NULL DEFAULT 0,
        error     TEXT,
        next_try  INTEGER
    ) STRICT;
    CREATE TABLE certificate_orders (at INTEGER NOT NULL) STRICT;
    CREATE INDEX certificate_orders_by_time ON certificate_orders (at);
",
    // Runs of schedules, each with what another agent needs to go on with it.
    "
    CREATE TABLE crons (
        app      TEXT NOT NULL,
        name     TEXT NOT NULL,
        seen     INTEGER NOT NULL,
        schedule TEXT NOT NULL,
        PRIMARY KEY (app, name)
    ) STRICT, WITHOUT ROWID;

    ALTER TABLE jobs ADD COLUMN cron TEXT;
    ALTER TABLE jobs ADD COLUMN due_at INTEGER;
    ALTER TABLE jobs ADD COLUMN command TEXT;
    ALTER TABLE jobs ADD COLUMN timeout_ms INTEGER;
    ALTER TABLE jobs ADD COLUMN requested_by TEXT;
    ALTER TABLE jobs ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN outcome TEXT;
    ALTER TABLE jobs ADD COLUMN log_tail TEXT;
    CREATE INDEX jobs_by_cron ON jobs (app, cron, started_at) WHERE cron IS NOT NULL;
    CREATE INDEX jobs_open ON jobs (kind) WHERE ended_at IS NULL;
",
    // Apps that a person stopped, and variables that Cutover keeps for them.
    "
    ALTER TABLE apps ADD COLUMN stopped_at INTEGER;
    ALTER TABLE apps ADD COLUMN stopped_by TEXT;

    CREATE TABLE variables (
        app    TEXT NOT NULL,
        name   TEXT NOT NULL,
        value  TEXT NOT NULL,
        set_at INTEGER NOT NULL,
        set_by TEXT NOT NULL,
        PRIMARY KEY (app, name)
    ) STRICT, WITHOUT ROWID;
",
    // What is wrong with the server for as long as it is.
    "
    CREATE TABLE alarms (
        what    TEXT NOT NULL,
        subject TEXT NOT NULL,
        app     TEXT,
        over    TEXT NOT NULL,
        since   INTEGER NOT NULL,
        PRIMARY KEY (what, subject)
    ) STRICT, WITHOUT ROWID;
",
    // What arrived for an app is listed by app.
    "
    CREATE INDEX deliveries_by_app ON deliveries (app, id) WHERE deployment IS NULL;
    CREATE INDEX moved_refs_by_app ON moved_refs (app, id);
    CREATE INDEX moved_refs_by_delivery ON moved_refs (delivery) WHERE delivery IS NOT NULL;
",
    // With a hundred thousand deployments: the counts in the metrics, the releases that an app keeps, and
    // whether apps share an image.
    "
    CREATE INDEX deployments_by_state ON deployments (app, state);
    CREATE INDEX releases_kept ON releases (app) WHERE removed_at IS NULL;
    CREATE INDEX services_by_image ON services (image_id);
    CREATE INDEX instances_by_release ON instances (release);
",
    // Where a release's image comes from.
    "
    ALTER TABLE releases ADD COLUMN provenance TEXT;
",
    // The networks of apps with links.
    "
    CREATE TABLE networks (
        name   TEXT PRIMARY KEY,
        app    TEXT NOT NULL,
        subnet TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    // A token may be replaced while its predecessor is still good for a while; a request that is sent again
    // leads to the same deployment; deployments are listed by state.
    "
    ALTER TABLE tokens ADD COLUMN old_hash TEXT;
    ALTER TABLE tokens ADD COLUMN old_until INTEGER;

    CREATE TABLE idempotency_keys (
        holder     TEXT NOT NULL,
        key        TEXT NOT NULL,
        request    TEXT NOT NULL,
        deployment TEXT NOT NULL,
        at         INTEGER NOT NULL,
        PRIMARY KEY (holder, key)
    ) STRICT, WITHOUT ROWID;

    DROP INDEX deployments_by_state;
    CREATE INDEX deployments_by_state ON deployments (app, state, id);
",
    // The deployment for which an app's live release was stopped before the switch.
    "
    ALTER TABLE apps ADD COLUMN vacated_by TEXT;
",
    // The audit log is a chain: what is in it already has a number, and no hash. The hash of what was deleted
    // in the end is kept.
    "
    ALTER TABLE actions ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE actions ADD COLUMN hash TEXT NOT NULL DEFAULT '';
    UPDATE actions SET seq = numbered.n
        FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM actions) numbered
        WHERE numbered.id = actions.id;
    CREATE UNIQUE INDEX actions_by_seq ON actions (seq);
    CREATE INDEX actions_by_app ON actions (app, id);

    CREATE TABLE action_chain (
        one       INTEGER PRIMARY KEY CHECK (one = 1),
        seq       INTEGER NOT NULL,
        hash      TEXT NOT NULL,
        gone_seq  INTEGER NOT NULL,
        gone_hash TEXT NOT NULL
    ) STRICT;
    INSERT INTO action_chain SELECT 1, count(*), '', 0, '' FROM actions;
",
    // The versions of secrets that a release started with, by name, and the values that these had.
    "
    ALTER TABLE releases ADD COLUMN secrets TEXT;

    CREATE TABLE former_secrets (
        app     TEXT NOT NULL,
        name    TEXT NOT NULL,
        version INTEGER NOT NULL,
        sealed  BLOB NOT NULL,
        PRIMARY KEY (app, name, version)
    ) STRICT, WITHOUT ROWID;
",
    // Whether an instance of a release that the app goes back to was found not running.
    "
    ALTER TABLE instances ADD COLUMN stopped INTEGER NOT NULL DEFAULT 0;
",
    // What the tests of an image said of each.
    "
    CREATE TABLE test_results (
        deployment TEXT PRIMARY KEY REFERENCES deployments (id) ON DELETE CASCADE,
        results    TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    // What a person has put on an app, as JSON: when, by whom and why.
    "
    ALTER TABLE apps ADD COLUMN pinned TEXT;
    ALTER TABLE apps ADD COLUMN maintenance TEXT;
",
    // Names that deploy.toml does not have, and that an app serves all the same.
    "
    ALTER TABLE certificates ADD COLUMN app TEXT;
    ALTER TABLE certificates ADD COLUMN allowed_until INTEGER;
",
    // When the authority wants a certificate renewed: which one, when and why, and when it is asked again;
    // and when one was last renewed early because of that.
    "
    ALTER TABLE certificates ADD COLUMN renewal_of TEXT;
    ALTER TABLE certificates ADD COLUMN renewal_at INTEGER;
    ALTER TABLE certificates ADD COLUMN renewal_why TEXT;
    ALTER TABLE certificates ADD COLUMN renewal_ask_at INTEGER;
    ALTER TABLE certificates ADD COLUMN hastened_at INTEGER;
",
    // Containers of forgotten instances, which Docker may make yet.
    "
    CREATE TABLE given_up (
        mark TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        at   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX given_up_by_name ON given_up (name);
",
    // Receivers of notifications that could not be reached the last time.
    "
    CREATE TABLE unreached (
        receiver TEXT PRIMARY KEY,
        since    INTEGER NOT NULL,
        error    TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    // What was queued after a removal began waits for its end.
    "
    ALTER TABLE apps ADD COLUMN removing_since INTEGER;
    CREATE INDEX deliveries_pulls ON deliveries (app, body_hash, id) WHERE event = 'pull';
",
];

/// Brings the schema up to date. The error is a message for the user.
pub fn run(db: &mut Connection) -> Result<(), String> {
    run_first(db, MIGRATIONS.len())
}

/// Applies those of the first `count` migrations that the database has not seen.
fn run_first(db: &mut Connection, count: usize) -> Result<(), String> {
    let text = |e: rusqlite::Error| e.to_string();
    let seen: i64 = db
        .pragma_query_value(None, "user_version", |r| r.get(0))
        .map_err(text)?;
    let seen = seen as usize;
    if seen > count {
        return Err(format!(
            "it was written by a newer version of Cutover (schema {seen}; this version supports up to {count}); \
             run that version"
        ));
    }
    for (index, migration) in MIGRATIONS[..count].iter().enumerate().skip(seen) {
        let tx = db.transaction().map_err(text)?;
        tx.execute_batch(migration).map_err(text)?;
        tx.pragma_update(None, "user_version", index as i64 + 1)
            .map_err(text)?;
        tx.commit().map_err(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
