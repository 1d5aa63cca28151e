//! What is shared by two releases during a switch although only one may have it open.

use super::{App, Strategy, VolumeSource};

/// What databases of which a folder belongs to one process are called, in the path or name of a volume.
const SINGLE: [&str; 17] = [
    "postgres",
    "pgdata",
    "mysql",
    "mariadb",
    "mongo",
    "redis",
    "valkey",
    "sqlite",
    "pocketbase",
    "elasticsearch",
    "opensearch",
    "meilisearch",
    "clickhouse",
    "influxdb",
    "rabbitmq",
    "leveldb",
    "rocksdb",
];

/// `at`: the app's key, with an opening backtick.
pub(super) fn warnings(at: &str, app: &App) -> Vec<String> {
    let volumes = app.run.volumes.iter().filter(|it| !it.read_only);
    let written: Vec<_> = volumes.collect();
    if app.deploy.strategy == Strategy::Recreate {
        return recreate(at, app, !written.is_empty());
    }
    let single = written.iter().filter(|it| {
        let source = match &it.source {
            VolumeSource::Named(name) => name.clone(),
            VolumeSource::Host(path) => path.display().to_string(),
        };
        let both = format!("{source} {}", it.target).to_lowercase();
        SINGLE.iter().any(|word| both.contains(word)) || it.target == "/data/db"
    });
    let of = |target: &str| {
        format!(
            "{at}.run.volumes`: old and new release both write to `{target}` during a switch. If only one may \
             have it open, as with most databases, set `deploy.strategy = \"recreate\"`: the old release then \
             stops before the new one starts, and requests wait meanwhile, for up to `proxy.hold`"
        )
    };
    single.map(|it| of(&it.target)).collect()
}

fn recreate(at: &str, app: &App, writes: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if app.proxy.hold <= app.deploy.drain {
        warnings.push(format!(
            "{at}.proxy.hold` is not longer than `deploy.drain`: with `deploy.strategy = \"recreate\"` requests \
             get 503 where the old release's last ones take that long"
        ));
    }
    if writes && app.run.replicas > 1 {
        let replicas = app.run.replicas;
        warnings.push(format!(
            "{at}.run.replicas` is {replicas}: with `deploy.strategy = \"recreate\"` two releases never run at a \
             time, but the instances of one share its volumes"
        ));
    }
    warnings
}
