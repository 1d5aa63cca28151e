//! Removes from Docker what the agent with one data folder created there, and nothing else.

use std::collections::HashMap;
use std::path::Path;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    RemoveVolumeOptions,
};

/// The labels that name the owner of a container or a network, and that of an image.
pub const DATA_DIR: &str = "cutover.data-dir";
pub const IMAGE_DATA_DIR: &str = "cutover.image.data-dir";

/// Removes every container, image, volume and network of the agent in `data_dir`, which must have ended.
pub async fn remove_all_of(docker: &Docker, data_dir: &Path) -> Result<(), Error> {
    let of = |label: &str| {
        let label = format!("{label}={}", data_dir.display());
        HashMap::from([("label".to_owned(), vec![label])])
    };
    let filters = of(DATA_DIR);
    let containers = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters);
    for container in docker.list_containers(Some(containers.build())).await? {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        let id = container.id.unwrap_or_default();
        gone(docker.remove_container(&id, Some(options.build())).await)?;
    }
    let of_images = of(IMAGE_DATA_DIR);
    let images = ListImagesOptionsBuilder::new()
        .all(true)
        .filters(&of_images);
    for image in docker.list_images(Some(images.build())).await? {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        gone(docker.remove_image(&image.id, Some(options), None).await)?;
    }
    let volumes = ListVolumesOptionsBuilder::new().filters(&filters);
    let volumes = docker.list_volumes(Some(volumes.build())).await?.volumes;
    for volume in volumes.unwrap_or_default() {
        let removed = docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>);
        gone(removed.await)?;
    }
    let networks = ListNetworksOptionsBuilder::new().filters(&filters);
    for network in docker.list_networks(Some(networks.build())).await? {
        gone(docker.remove_network(&network.id.unwrap_or_default()).await)?;
    }
    Ok(())
}

/// If it is already gone, or being removed, the purpose is fulfilled.
fn gone<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(Error::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        })
        | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
