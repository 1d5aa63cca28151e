//! Looks up, tags and removes Cutover's images. Building them is done in `builder`.

use bollard::query_parameters::{RemoveImageOptionsBuilder, RemoveVolumeOptions};

use super::{Docker, Result, gone_is_done, status_code};
use crate::ids::{AppName, DeploymentId};

impl Docker {
    pub async fn volumes_of_image(&self, id: &str) -> Result<Vec<String>> {
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
        let ours: Vec<_> = names.iter().filter(|name| is_our_name(name)).collect();
        let all_ours = ours.len() == names.len();
        let mut doomed: Vec<&str> = ours.into_iter().map(String::as_str).collect();
        if doomed.is_empty() && all_ours {
            doomed.push(id);
        }
        // The deployment's own name goes last: where a container still uses the image, it is the one
        // that stays, and no later build takes it over.
        doomed.sort_by_key(|name| is_own_name(name));
        for name in doomed {
            let options = RemoveImageOptionsBuilder::new().build();
            match docker.remove_image(name, Some(options), None).await {
                Ok(_) => {}
                Err(error) if status_code(&error) == Some(404) => {}
                Err(error) => return Err(self.failed(format!("remove `{name}`"))(error)),
            }
        }
        Ok(())
    }
}

/// Whether a name has the form that Cutover gives: `cutover/APP:`, then twelve digits of the commit
/// or the deployment's id.
fn is_our_name(name: &str) -> bool {
    let named = name.strip_prefix("cutover/");
    let Some((app, tag)) = named.and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    let is_commit = tag.len() == 12 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    app.parse::<AppName>().is_ok() && (is_commit || tag.parse::<DeploymentId>().is_ok())
}

/// Whether it is the name that only one deployment gives.
fn is_own_name(name: &str) -> bool {
    let tag = name.rsplit_once(':').map(|(_, tag)| tag);
    tag.is_some_and(|tag| tag.parse::<DeploymentId>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_person_gave_stays() {
        assert!(is_our_name("cutover/hello:8f3c2a9d41b0"));
        let own = format!("cutover/hello:{}", DeploymentId::new());
        assert!(is_our_name(&own));
        for name in [
            "cutover/hello:keep",
            "cutover/hello",
            "hello:8f3c2a9d41b0",
            "cutover/a/b:8f3c2a9d41b0",
        ] {
            assert!(!is_our_name(name), "{name}");
        }
    }
}
