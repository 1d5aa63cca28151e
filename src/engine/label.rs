//! The containers and networks that Cutover creates carry these labels, so that left-over ones can
//! be found. A label does not make anything ours: only our record does.

pub const AGENT: &str = "cutover.agent";
pub const APP: &str = "cutover.app";
pub const DEPLOYMENT: &str = "cutover.deployment";
pub const RELEASE: &str = "cutover.release";
/// The full id of the commit, so that a release can be recorded again if the database was lost.
pub const COMMIT: &str = "cutover.commit";
/// The agent's data folder: for people, and to identify the owner of left-overs when the folder
/// is gone.
pub const DATA_DIR: &str = "cutover.data-dir";
/// Where a volume is mounted.
pub const PATH: &str = "cutover.path";
/// A value that no other container has; see [`crate::store::ours`].
pub const MARK: &str = "cutover.mark";

/// The labels of images. They have different names, because a container inherits its image's labels.
pub mod image {
    pub const AGENT: &str = "cutover.image.agent";
    pub const APP: &str = "cutover.image.app";
    pub const DATA_DIR: &str = "cutover.image.data-dir";
}
