//! Volumes with a name: an app's data.

use bollard::models::VolumeCreateRequest;

use super::{Docker, EngineError, Result, label};
use crate::ids::AppName;

impl Docker {
    pub async fn make_volume(&self, name: &str, app: &AppName) -> Result<()> {
        let mut labels = self.labels();
        labels.insert(label::APP.to_owned(), app.to_string());
        let wanted = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..Default::default()
        };
        let what = format!("create the volume `{name}`");
        // Docker answers with the one that exists, if there is one.
        let found = self.client()?.create_volume(wanted).await;
        let found = found.map_err(self.failed(&*what))?;
        // One without labels was made by hand, for example to move data in. After a lost database the
        // agent has a new id, but still its folder.
        let folder = found.labels.get(label::DATA_DIR);
        match folder.filter(|folder| **folder != self.data_dir) {
            None => Ok(()),
            Some(other) => Err(EngineError::Refused {
                what,
                cause: format!(
                    "the Cutover agent with the data folder `{other}` has one of this name: choose \
                     another name, or remove that one"
                ),
            }),
        }
    }
}
