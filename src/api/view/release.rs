//! A release as the API shows it.

use std::collections::HashSet;

use serde::Serialize;
use utoipa::ToSchema;

use super::rfc3339;
use crate::store::Result;
use crate::store::apps::Serving;
use crate::store::provenance::Provenance;
use crate::store::releases::Release;
use crate::store::{changes, deployments};

/// The image and settings of an app's services. A rollback goes back to a release.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Release)]
pub struct ReleaseView {
    #[schema(example = "r01m5z8k6c0d3f")]
    pub id: String,
    #[schema(example = "hello")]
    pub app: String,
    /// The id of the deployment that made this release.
    #[schema(example = "d01m5z8k2q4x7a")]
    pub deployment: String,
    /// The full commit id.
    #[schema(
        pattern = "^[0-9a-f]{40}$",
        example = "8f3c2a9d41b07e65c1d2f0a8b94e7763d5102c9e"
    )]
    pub commit: String,
    /// The first line of the commit message.
    #[schema(example = "Say hello in colour")]
    pub message: String,
    /// The commit's author.
    #[schema(example = "Ada Lovelace")]
    pub author: String,
    /// The image's tag: `cutover/APP:` and the first 12 digits of the commit.
    #[schema(example = "cutover/hello:8f3c2a9d41b0")]
    pub image: String,
    /// The image's id.
    #[schema(example = "sha256:9a0b44d5f1c26e83")]
    pub image_id: String,
    /// Its name and digest in a registry, if it comes from one or was pushed to one.
    #[schema(
        required,
        example = "ghcr.io/acme/hello:1@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    )]
    pub image_digest: Option<String>,
    /// What its image was built from; null if that is not known.
    #[schema(required)]
    pub provenance: Option<Provenance>,
    /// The settings in which it differs from the last release before it that went live, if both are of the same
    /// commit and image, otherwise null. Values are not shown.
    #[schema(required, example = json!(["env LOG_LEVEL", "secret API_KEY", "worker.memory"]))]
    pub changed: Option<Vec<String>>,
    /// Whether this release is the one that serves traffic now.
    pub current: bool,
    #[schema(format = DateTime, example = "2026-05-04T09:30:01.020Z")]
    pub created_at: String,
    /// When it last went live; null if it never did.
    #[schema(required, format = DateTime, example = "2026-05-04T09:30:03.480Z")]
    pub live_at: Option<String>,
    /// Whether its image is kept, so that a rollback can go back to it.
    pub kept: bool,
    /// Whether it failed in its bake: a rollback that does not name it passes it by.
    pub failed_bake: bool,
    /// Whether its image should be kept but is gone from Docker: somebody removed it. A rollback with
    /// `rebuild` builds it again.
    pub gone: bool,
}

impl ReleaseView {
    /// Adds which images there are.
    pub fn among(mut self, images: &HashSet<String>) -> Self {
        self.gone = self.kept && !images.contains(&self.image_id);
        self.kept &= !self.gone;
        self
    }
}

pub fn release(db: &rusqlite::Connection, row: Release, serving: &Serving) -> Result<ReleaseView> {
    let web = row.main();
    let image = web.map(|service| service.image.clone());
    let image_id = web.map(|service| service.image_id.clone());
    let image_digest = web.and_then(|service| service.image_digest.clone());
    Ok(ReleaseView {
        changed: changes::of(db, &row)?,
        image_digest,
        provenance: row.provenance,
        current: serving.live.as_ref() == Some(&row.id),
        id: row.id.to_string(),
        app: row.app.to_string(),
        deployment: row.deployment.to_string(),
        commit: row.commit.to_string(),
        message: row.message,
        author: row.author,
        image: image.unwrap_or_default(),
        image_id: image_id.unwrap_or_default(),
        created_at: rfc3339(row.created_at),
        live_at: row.went_live.map(rfc3339),
        kept: row.went_live.is_some() && row.removed_at.is_none(),
        failed_bake: deployments::was_rolled_back(db, &row.id)?,
        gone: false,
    })
}
