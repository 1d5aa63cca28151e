//! The engine that the tests run on.

use bollard::Docker;
use cutover::cli::demo::cleanup;
use cutover::cli::setup;
use tokio::sync::OnceCell;

/// A Docker Engine, installed and started where none is, without what dead test runs left in it.
pub async fn docker() -> Docker {
    let ready = setup::ensure(setup::DEFAULT_HOST, |step| eprintln!("{step}")).await;
    ready.unwrap_or_else(|error| panic!("{error}"));
    let docker = Docker::connect_with_host(setup::DEFAULT_HOST).expect("Docker's socket");
    static REAPED: OnceCell<()> = OnceCell::const_new();
    let reap = || async {
        for folder in cleanup::left_behind(&docker).await.unwrap_or_default() {
            let _ = cleanup::remove_all_of(&docker, &folder).await;
        }
    };
    REAPED.get_or_init(reap).await;
    docker
}
