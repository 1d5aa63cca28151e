//! Which of Cutover's images are there. Building them is `build`'s work.

use bollard::query_parameters::RemoveImageOptionsBuilder;

use super::{Docker, Result, status_code};

impl Docker {
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
        let ours: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with("cutover/"))
            .collect();
        let all_ours = ours.len() == names.len();
        let mut doomed: Vec<&str> = ours.into_iter().map(String::as_str).collect();
        if doomed.is_empty() && all_ours {
            doomed.push(id);
        }
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
