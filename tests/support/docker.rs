//! The engine that the tests run on.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
};
use cutover::cli::setup;
use tokio::sync::OnceCell;

use super::demo::cleanup::{self, DATA_DIR, IMAGE_DATA_DIR};

/// A Docker Engine, installed and started where none is, without what dead test runs left in it.
pub async fn docker() -> Docker {
    let ready = setup::ensure(setup::DEFAULT_HOST, |step| eprintln!("{step}")).await;
    ready.unwrap_or_else(|error| panic!("{error}"));
    let docker = Docker::connect_with_host(setup::DEFAULT_HOST).expect("Docker's socket");
    static REAPED: OnceCell<()> = OnceCell::const_new();
    let reap = || async {
        for folder in left_behind(&docker).await.unwrap_or_default() {
            let _ = cleanup::remove_all_of(&docker, &folder).await;
        }
    };
    REAPED.get_or_init(reap).await;
    docker
}

/// The data folders that are gone, of agents that left something in Docker: runs that were killed
/// before they could clean up.
async fn left_behind(docker: &Docker) -> Result<Vec<PathBuf>, Error> {
    let filters = HashMap::from([("label".to_owned(), vec![DATA_DIR.to_owned()])]);
    let mut labels = Vec::new();
    let containers = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters);
    for container in docker.list_containers(Some(containers.build())).await? {
        labels.extend(container.labels);
    }
    let of_images = HashMap::from([("label".to_owned(), vec![IMAGE_DATA_DIR.to_owned()])]);
    let images = ListImagesOptionsBuilder::new().filters(&of_images);
    for image in docker.list_images(Some(images.build())).await? {
        labels.push(image.labels);
    }
    let networks = ListNetworksOptionsBuilder::new().filters(&filters);
    for network in docker.list_networks(Some(networks.build())).await? {
        labels.extend(network.labels);
    }
    let mut folders: Vec<PathBuf> = labels
        .iter_mut()
        .flat_map(|labels| [DATA_DIR, IMAGE_DATA_DIR].map(|label| labels.remove(label)))
        .flatten()
        .map(PathBuf::from)
        .filter(|folder| !folder.exists())
        .collect();
    folders.sort();
    folders.dedup();
    Ok(folders)
}
