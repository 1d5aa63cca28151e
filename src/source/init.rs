//! libgit2's settings are global to the process and must be set before its first use.
// The only unsafe calls in this folder, but for what registers the transports: git2 marks these setters
// unsafe because they write C globals without a lock.
#![allow(unsafe_code)]

use std::sync::Once;

use git2::ConfigLevel;

use super::transport;

// libgit2 maps packs into memory: by default up to a gigabyte at a time, and keeps every one mapped.
const WINDOW: usize = 1 << 20;
const MAPPED: usize = 16 << 20;
const CACHED: isize = 8 << 20;

/// Sets up libgit2 the first time it is called.
pub(crate) fn once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: these globals, the list of transports among them, are read only when a repository or
        // its configuration is opened and when a server is connected to. Whatever does that in this crate (here, `api::git`,
        // `cli::receive`, `cli::demo`) calls `once` first, and `Once` lets nobody pass
        // before they are set. The callers that do not, `webhook::push` and `config::repo`, check the
        // name of a ref, which reads none of them.
        let set = unsafe { set() };
        if let Err(error) = set {
            tracing::warn!(%error, "failed to set a libgit2 option");
        }
    });
}

unsafe fn set() -> Result<(), git2::Error> {
    unsafe {
        transport::register()?;
        git2::opts::set_mwindow_size(WINDOW)?;
        git2::opts::set_mwindow_mapped_limit(MAPPED)?;
        git2::opts::set_cache_max_size(CACHED)?;
        // The agent may run as root while the repository that deploy.toml names is owned by a user
        // `git`. libgit2 has only one switch for the whole process; it opens nothing but this agent's
        // mirrors and the paths that the administrator configured, and it runs no hooks.
        git2::opts::set_verify_owner_validation(false)?;
        // A fetch depends on deploy.toml alone, not on the gitconfig of whoever starts the agent
        // (`url.insteadOf` could redirect it, and its token, elsewhere).
        for level in [
            ConfigLevel::ProgramData,
            ConfigLevel::System,
            ConfigLevel::XDG,
            ConfigLevel::Global,
        ] {
            git2::opts::set_search_path(level, "")?;
        }
    }
    Ok(())
}
