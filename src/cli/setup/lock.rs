//! Allows only one setup at a time on this machine.

use std::fs::File;

use super::Error;

const PATH: &str = "/run/cutover-setup.lock";

/// Waits until no other process is setting up. The lock is held until the file is dropped.
pub async fn take() -> Result<File, Error> {
    let locked = tokio::task::spawn_blocking(|| {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(PATH)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    });
    match locked.await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(Error::usage(format!("failed to lock `{PATH}`")).because(&error)),
        Err(error) => Err(Error::usage(format!("failed to lock `{PATH}`")).because(&error)),
    }
}
