//! What the engine does with registries on its own: looking names up, pulling what tests and
//! contexts need, and pushing. Base images are pulled by the builder.

use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, PushImageOptions, TagImageOptions};
use futures_util::StreamExt;

use super::builder::login;
use super::{Docker, Result};
use crate::config::Image;
use crate::engine::EngineError;

impl Docker {
    pub async fn digest(&self, image: &Image) -> Result<String> {
        let what = || format!("ask the registry for `{image}`");
        let login = credentials(image)
            .await
            .map_err(|why| refused(what(), why))?;
        let name = image.to_string();
        let found = self.client()?.inspect_registry_image(&name, login).await;
        let found = found.map_err(self.failed(what()))?;
        let digest = found.descriptor.digest;
        digest.ok_or_else(|| refused(what(), "it names no digest".into()))
    }

    pub async fn pull(&self, image: &Image, platform: Option<&str>) -> Result<String> {
        let what = || format!("pull `{image}`");
        let login = credentials(image)
            .await
            .map_err(|why| refused(what(), why))?;
        let version = image.digest.as_ref().unwrap_or(&image.tag);
        let options = CreateImageOptionsBuilder::new()
            .from_image(&image.name)
            .tag(version)
            .platform(platform.unwrap_or_default());
        let docker = self.client()?;
        let mut said = std::pin::pin!(docker.create_image(Some(options.build()), None, login));
        while let Some(message) = said.next().await {
            let message = message.map_err(self.failed(what()))?;
            if let Some(error) = message.error_detail {
                return Err(refused(what(), error.message.unwrap_or_default()));
            }
        }
        let id = self.image_id(&image.pinned()).await?;
        id.ok_or_else(|| refused(what(), "it is not there afterwards".into()))
    }

    pub async fn known_digest(&self, id: &str, image: &Image) -> Result<Option<String>> {
        let found = self.client()?.inspect_image(id).await;
        let found = found.map_err(self.failed(format!("look at the image `{id}`")))?;
        let named = |image: &Image| {
            let whole = image.canonical();
            whole.rsplit_once(':').map(|(name, _)| name.to_owned())
        };
        let known = found.repo_digests.unwrap_or_default();
        let mut known = known.iter().filter_map(|it| it.parse::<Image>().ok());
        let own = known.find(|it| named(it) == named(image));
        Ok(own.and_then(|it| it.digest))
    }

    pub async fn push(&self, id: &str, image: &Image) -> Result<String> {
        let what = || format!("push `{image}`");
        let docker = self.client()?;
        let tag = TagImageOptions {
            repo: Some(image.name.clone()),
            tag: Some(image.tag.clone()),
        };
        let tagged = docker.tag_image(id, Some(tag)).await;
        tagged.map_err(self.failed(what()))?;
        let pushed = self.push_tagged(&docker, image, &what).await;
        // Here it has its own names.
        self.untag_image(id, &image.to_string()).await?;
        pushed
    }

    async fn push_tagged(
        &self,
        docker: &bollard::Docker,
        image: &Image,
        what: &impl Fn() -> String,
    ) -> Result<String> {
        let login = credentials(image)
            .await
            .map_err(|why| refused(what(), why))?;
        let options = PushImageOptions {
            tag: Some(image.tag.clone()),
            ..PushImageOptions::default()
        };
        let mut said = std::pin::pin!(docker.push_image(&image.name, Some(options), login));
        while let Some(message) = said.next().await {
            let message = message.map_err(self.failed(what()))?;
            if let Some(error) = message.error_detail {
                return Err(refused(what(), error.message.unwrap_or_default()));
            }
        }
        let found = docker.inspect_image(&image.to_string()).await;
        let found = found.map_err(self.failed(what()))?;
        let digests = found.repo_digests.unwrap_or_default();
        let mut digests = digests.iter().filter_map(|it| it.split_once('@'));
        let own = digests.find(|(name, _)| *name == image.name);
        let own = own.map(|(_, digest)| digest.to_owned());
        own.ok_or_else(|| refused(what(), "it says no digest".into()))
    }
}

fn refused(what: String, cause: String) -> EngineError {
    EngineError::Refused { what, cause }
}

/// The login that the agent's user has to the image's registry.
async fn credentials(image: &Image) -> std::result::Result<Option<DockerCredentials>, String> {
    let host = image.registry();
    Ok(login(host).await?.map(|(user, secret)| {
        let server = DockerCredentials {
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        };
        match user.is_empty() {
            true => DockerCredentials {
                identitytoken: Some(secret),
                ..server
            },
            false => DockerCredentials {
                username: Some(user),
                password: Some(secret),
                ..server
            },
        }
    }))
}
