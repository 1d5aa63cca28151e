//! Where an image comes from: recorded with its release, as the image itself is the same for every commit
//! with the same files.

use serde::{Deserialize, Serialize};

/// What an image was built from, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Provenance {
    /// The deployment that built it, which may be an earlier one.
    #[schema(example = "d01m5z8k2q4x7a")]
    pub built_by: String,
    /// The repository's address without a password; of an app without one, its image.
    #[schema(example = "https://github.com/acme/hello.git")]
    pub source: String,
    /// The Dockerfile's path in the repository; null if it has none.
    #[schema(required, example = "Dockerfile")]
    pub dockerfile: Option<String>,
    /// Git's id of the Dockerfile's content.
    #[schema(required, example = "5b1d2c0a8b94e7763d5102c9e8f3c2a9d41b07e6")]
    pub dockerfile_id: Option<String>,
    /// The program that built it in place of Docker.
    #[schema(required, example = "pack build")]
    pub command: Option<String>,
    /// The stage that it is, if not the last.
    #[schema(required, example = "run")]
    pub target: Option<String>,
    /// The names of the build's arguments.
    pub args: Vec<String>,
    /// The names of the build's secrets.
    pub secrets: Vec<String>,
    /// The images that it builds on or copies from.
    pub bases: Vec<Base>,
    /// The digest of the manifest by which the image itself says how it was built (SLSA provenance); null if it does
    /// not, since Docker adds one only where it keeps images in containerd's store.
    #[serde(default)]
    #[schema(
        required,
        example = "sha256:36714e9cd0da0e652b4291e8963952286f247b1209dbe5d3de3e6b1b6145872c"
    )]
    pub attestation: Option<String>,
}

/// An image that it builds on or copies from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = BaseImage)]
pub struct Base {
    /// As the Dockerfile names it or, with a digest, as the builder does.
    #[schema(example = "docker.io/library/node:22")]
    pub name: String,
    /// Its digest in its registry, if the builder has asked for it.
    #[schema(
        required,
        example = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    )]
    pub digest: Option<String>,
    /// The id that the engine had for this name, if any.
    #[schema(required, example = "sha256:9a0b44d5f1c26e83")]
    pub image_id: Option<String>,
}
