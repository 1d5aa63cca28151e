//! A key for finding an existing image of exactly the same content and settings.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::resolved::Base;
use super::walk::{Kind, List};
use super::{Context, Secret};
use crate::config;
use crate::ids::AppName;

/// A digest of everything that goes into an image: the files, the Dockerfile, the settings, and the images
/// that it builds on. A change to a file that .dockerignore excludes, or outside the context
/// folder, does not change it.
pub fn cache_key(
    app: &AppName,
    context: &Context,
    settings: &config::Build,
    args: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, Secret>,
    bases: &[Base],
) -> String {
    let mut hash = Sha256::new();
    // Each text is prefixed with its length, so that no two lists of texts give the same bytes.
    let mut add = |text: &[u8]| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    add(b"3");
    add(app.as_str().as_bytes());
    add(context.dockerfile.id.as_bytes());
    for (name, value) in args {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    let keys = [
        ("target", settings.target.as_deref()),
        ("platform", settings.platform.as_deref()),
        ("network", settings.network.as_deref()),
    ];
    for (key, value) in keys {
        add(key.as_bytes());
        add(value.unwrap_or_default().as_bytes());
    }
    if let config::Frontends::Builtin = settings.frontends {
        add(b"builtin");
    }
    if let Some(scanner) = &settings.sbom {
        add(b"sbom");
        add(scanner.to_string().as_bytes());
    }
    for word in settings.command.iter().flatten() {
        add(b"command");
        add(word.as_bytes());
    }
    if let Some(site) = settings
        .site
        .as_ref()
        .filter(|_| settings.command.is_some())
    {
        add(b"dir");
        add(site.dir.as_bytes());
    }
    for (name, address) in &settings.extra_hosts {
        add(b"host");
        add(name.as_bytes());
        add(address.as_bytes());
    }
    for (id, secret) in secrets {
        add(b"secret");
        add(id.as_bytes());
        add(secret.version.as_bytes());
    }
    for id in settings.ssh.keys() {
        add(b"ssh");
        add(id.as_bytes());
    }
    for base in bases {
        add(b"base");
        add(base.name.as_bytes());
        let known = base.digest.as_deref().or(base.id.as_deref());
        add(known.unwrap_or_default().as_bytes());
    }
    for (name, named) in &settings.contexts {
        if let config::Named::Image(image) = named {
            add(b"named image");
            add(name.as_bytes());
            add(image.to_string().as_bytes());
        }
    }
    add_files(&context.list, &mut add);
    for folder in &context.named {
        add(b"named folder");
        add(folder.name.as_bytes());
        add_files(&folder.context.list, &mut add);
    }
    hex::encode(hash.finalize())
}

fn add_files(list: &List, add: &mut impl FnMut(&[u8])) {
    add(b"files");
    for entry in &list.entries {
        add(&entry.path);
        match &entry.kind {
            Kind::Folder => add(b"folder"),
            Kind::Link(target) => {
                add(b"link");
                add(target);
            }
            Kind::File { id, executable, .. } => {
                add(if *executable { b"program" } else { b"file" });
                add(id.as_bytes());
            }
        }
    }
}
