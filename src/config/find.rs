//! Finds the configuration file.

use std::path::{Path, PathBuf};

use super::Problems;

const HERE: &str = "./deploy.toml";
const SYSTEM: &str = "/etc/cutover/deploy.toml";

/// The file named by `--config`, else `./deploy.toml`, else `/etc/cutover/deploy.toml`. A named
/// file is returned whether or not it exists: [`super::load`] reports a missing one by name.
pub fn find(explicit: Option<&Path>) -> Result<PathBuf, Problems> {
    if let Some(path) = explicit {
        return Ok(path.to_owned());
    }
    // A broken link or a folder of that name counts as found, so that it is reported, not skipped.
    [HERE, SYSTEM]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok())
        .ok_or_else(|| {
            Problems::whole_file(
                Path::new("deploy.toml"),
                format!(
                    "there is no configuration: neither `{HERE}` nor `{SYSTEM}` exists; \
                     write one with `cutover init`, or name it with `--config PATH`"
                ),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_taken_as_it_is() {
        let path = Path::new("/nowhere/x.toml");
        assert_eq!(find(Some(path)).unwrap(), path);
    }
}
