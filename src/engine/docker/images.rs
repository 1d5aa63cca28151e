//! Looks up, tags and removes Cutover's images. Building them is done in `builder`.

use std::collections::HashSet;

use bollard::query_parameters::{
    ListImagesOptions, RemoveImageOptionsBuilder, RemoveVolumeOptions,
};

use super::{Docker, Result, gone_is_done, status_code};
use crate::engine::inventory::{ImageName, ImageTag};

impl Docker {
    pub(super) async fn volumes_of_image(&self, id: &str) -> Result<Vec<String>> {
        let found = self.client()?.inspect_image(id).await;
        let found = found.map_err(self.failed(format!("look at the image `{id}`")))?;
        Ok(found.config.and_then(|it| it.volumes).unwrap_or_default())
    }

    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        let removed = self
            .client()?
            .remove_volume(name, None::<RemoveVolumeOptions>)
            .await;
        gone_is_done(removed).map_err(self.failed(format!("remove the volume `{name}`")))
    }

    pub async fn image_id(&self, name: &str) -> Result<Option<String>> {
        match self.client()?.inspect_image(name).await {
            Ok(image) => Ok(image.id),
            // 400: no image can have this name. The builder will say so.
            Err(error) if matches!(status_code(&error), Some(400 | 404)) => Ok(None),
            Err(error) => Err(self.failed(format!("look at the image `{name}`"))(error)),
        }
    }

    pub async fn has_image(&self, id: &str) -> Result<bool> {
        match self.client()?.inspect_image(id).await {
            Ok(_) => Ok(true),
            Err(error) if status_code(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.failed(format!("look at the image `{id}`"))(error)),
        }
    }

    pub async fn remove_image(&self, id: &str) -> Result<()> {
        let docker = self.client()?;
        let found = match docker.inspect_image(id).await {
            Err(error) if status_code(&error) == Some(404) => return Ok(()),
            other => other.map_err(self.failed(format!("look at the image `{id}`")))?,
        };
        let names = found.repo_tags.unwrap_or_default();
        let mut ours: Vec<_> = names.iter().filter_map(|it| ImageName::parse(it)).collect();
        let all_ours = ours.len() == names.len();
        // The deployment's own name goes last: where a container still uses the image, it is the one
        // that stays, and no later build takes it over.
        ours.sort_by_key(|name| matches!(name.tag, ImageTag::Deployment(_)));
        let mut doomed: Vec<&str> = ours.iter().map(|name| name.full.as_str()).collect();
        if doomed.is_empty() && all_ours {
            doomed.push(id);
        }
        for name in doomed {
            self.remove_name(&docker, name).await?;
        }
        Ok(())
    }

    /// Leaves an image that has a name.
    pub async fn remove_unnamed_image(&self, id: &str) -> Result<()> {
        let docker = self.client()?;
        match docker.inspect_image(id).await {
            Ok(found) if found.repo_tags.as_ref().is_none_or(Vec::is_empty) => {
                self.remove_name(&docker, id).await
            }
            Ok(_) => Ok(()),
            Err(error) if status_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.failed(format!("look at the image `{id}`"))(error)),
        }
    }

    pub async fn untag_image(&self, id: &str, name: &str) -> Result<()> {
        let docker = self.client()?;
        match docker.inspect_image(name).await {
            Ok(found) if found.id.as_deref() == Some(id) => self.remove_name(&docker, name).await,
            Ok(_) => Ok(()),
            Err(error) if status_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.failed(format!("look at the image `{name}`"))(error)),
        }
    }

    async fn remove_name(&self, docker: &bollard::Docker, name: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::new().build();
        match docker.remove_image(name, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) if status_code(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.failed(format!("remove `{name}`"))(error)),
        }
    }

    pub async fn image_ids(&self) -> Result<HashSet<String>> {
        let found = self.client()?.list_images(None::<ListImagesOptions>).await;
        let found = found.map_err(self.failed("list its images"))?;
        Ok(found.into_iter().map(|image| image.id).collect())
    }
}
