//! Encrypts the secrets that Cutover keeps: ChaCha20-Poly1305 with a random nonce, and with the app and
//! the name as associated data, so that no row can be read as another. The key is beside the database
//! in `secrets.key`, which only the agent's user can read: a copy of the database alone reveals nothing.
//!
//! While a new key takes the place of the old one it is in `secrets.key.next`; both are tried until then.
//!
//! If systemd hands over the credential `cutover-key`, that is the key, and none is written anywhere. A new one
//! comes as `cutover-key.next`: what is sealed with another is sealed anew at the start, also with what was in
//! `secrets.key`, which is deleted then.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;

use crate::ids::AppName;

const KEY: &str = "secrets.key";
/// The key that is to take the place of the other.
const NEXT: &str = "secrets.key.next";
const KEY_LENGTH: usize = 32;
/// The credential that is the key, and the one that is to take its place.
const CREDENTIAL: &str = "cutover-key";
const NEXT_CREDENTIAL: &str = "cutover-key.next";
/// The first byte of what is encrypted this way.
const FORM: u8 = 1;

/// Quotes no value.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(
        "the key of the secrets, `{}`, is missing: restore it from a backup, or unset the secrets and set \
         them again", .0.display()
    )]
    NoKey(PathBuf),
    #[error(
        "the key of the secrets, `{}`, cannot be used: {cause}; it has to belong to the user that the agent \
         runs as, with mode 0600", path.display()
    )]
    Key { path: PathBuf, cause: String },
    #[error("`{0}` cannot be decrypted with this key: set it again (`cutover secret set {1} {0}`)")]
    Damaged(String, AppName),
    #[error(
        "the key of the secrets is systemd's credential `{CREDENTIAL}`, which Cutover cannot replace: add the new \
         key as the credential `{NEXT_CREDENTIAL}` and restart the agent, which encrypts every secret with it; \
         then put it in the place of `{CREDENTIAL}`"
    )]
    Given,
}

/// Where the keys are.
struct Places {
    /// That of the key that seals.
    key: PathBuf,
    /// Those of keys that values may still be sealed with.
    others: Vec<PathBuf>,
    /// Whether the key is a credential.
    is_given: bool,
}

impl Places {
    fn of(data_dir: &Path) -> Self {
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
        Self::with(data_dir, folder.as_deref().map(Path::new))
    }

    fn with(data_dir: &Path, credentials: Option<&Path>) -> Self {
        let there = |path: PathBuf| path.exists().then_some(path);
        let credential = |name| there(credentials?.join(name));
        let Some(given) = credential(CREDENTIAL) else {
            return Self {
                key: data_dir.join(KEY),
                others: there(data_dir.join(NEXT)).into_iter().collect(),
                is_given: false,
            };
        };
        let files = [KEY, NEXT].map(|name| there(data_dir.join(name)));
        let (key, before) = match credential(NEXT_CREDENTIAL) {
            Some(next) => (next, Some(given)),
            None => (given, None),
        };
        Self {
            key,
            others: before
                .into_iter()
                .chain(files.into_iter().flatten())
                .collect(),
            is_given: true,
        }
    }
}

/// Where the key is.
pub fn path(data_dir: &Path) -> PathBuf {
    Places::of(data_dir).key
}

/// Whether others than the agent's user can read the key, and what to do about it. Blocks.
pub fn too_open(data_dir: &Path) -> Option<String> {
    let path = path(data_dir);
    let mode = path.metadata().ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "the key of the secrets, `{0}`, can be read by others: `chmod 600 {0}`",
            path.display()
        )
    })
}

/// The key, read. Not `Debug`, so that it cannot be logged.
pub struct Vault {
    cipher: LessSafeKey,
    /// Keys that values may still be sealed with.
    others: Vec<LessSafeKey>,
    /// What versions of values are derived from.
    versions: Hmac<Sha256>,
}

impl Vault {
    /// Reads the key, and the others that there are while one takes another's place. Blocks.
    pub fn open(data_dir: &Path) -> Result<Self, VaultError> {
        Self::open_in(Places::of(data_dir))
    }

    fn open_in(places: Places) -> Result<Self, VaultError> {
        let others = places.others.into_iter().map(Self::read);
        let others = others.map(|read| match read {
            Ok(vault) => Ok(Some(vault.cipher)),
            // It has just been moved.
            Err(VaultError::NoKey(_)) => Ok(None),
            Err(error) => Err(error),
        });
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let vault = Self::read(places.key)?;
        Ok(Self {
            others: others.into_iter().flatten().collect(),
            ..vault
        })
    }

    fn read(path: PathBuf) -> Result<Self, VaultError> {
        let unusable = |cause: String| VaultError::Key {
            path: path.clone(),
            cause,
        };
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => file
                .take(1024)
                .read_to_string(&mut text)
                .map_err(|error| unusable(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VaultError::NoKey(path));
            }
            Err(error) => return Err(unusable(error.to_string())),
        };
        let bytes = hex::decode(text.trim());
        let keys = bytes
            .ok()
            .filter(|bytes| bytes.len() == KEY_LENGTH)
            .and_then(|bytes| {
                let cipher = UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok()?;
                let versions = Hmac::new_from_slice(&bytes).ok()?;
                Some((cipher, versions))
            });
        let (cipher, versions) =
            keys.ok_or_else(|| unusable("it is not 64 hexadecimal digits".into()))?;
        Ok(Self {
            cipher: LessSafeKey::new(cipher),
            others: Vec::new(),
            versions,
        })
    }

    /// The vault of the next key, which is made unless an earlier attempt has or systemd hands it over. It
    /// reads what either key has sealed. Blocks.
    pub fn open_next(data_dir: &Path) -> Result<Self, VaultError> {
        let places = Places::of(data_dir);
        if places.is_given {
            return match places.others.is_empty() {
                true => Err(VaultError::Given),
                false => Self::open_in(places),
            };
        }
        let now = Self::open_in(places)?;
        if now.others.is_empty() {
            make(data_dir, NEXT).map_err(|error| VaultError::Key {
                path: data_dir.join(NEXT),
                cause: error.to_string(),
            })?;
        }
        let next = Self::read(data_dir.join(NEXT))?;
        Ok(Self {
            others: vec![now.cipher],
            ..next
        })
    }

    /// Tells one value of a secret from another; without the key it reveals nothing of it.
    pub fn version(&self, name: &str, value: &[u8]) -> String {
        let mut hash = self.versions.clone();
        hash.update(b"cutover secret version\0");
        hash.update(name.as_bytes());
        hash.update(b"\0");
        hash.update(value);
        hex::encode(hash.finalize().into_bytes())
    }

    /// The same, with a new key if there is none yet. Blocks.
    pub fn open_or_make(data_dir: &Path) -> Result<Self, VaultError> {
        match Self::open(data_dir) {
            Err(VaultError::NoKey(path)) => {
                make(data_dir, KEY).map_err(|error| VaultError::Key {
                    path,
                    cause: error.to_string(),
                })?;
                Self::open(data_dir)
            }
            other => other,
        }
    }

    pub fn seal(&self, app: &AppName, name: &str, value: &str) -> Vec<u8> {
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).expect("the operating system provides random bytes");
        let mut sealed = value.as_bytes().to_vec();
        let of = Aad::from(owner(app, name));
        self.cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), of, &mut sealed)
            .expect("a value is shorter than what the cipher can take");
        [&[FORM], &nonce[..], &sealed].concat()
    }

    /// The value that was sealed for this app and name.
    pub fn unseal(&self, app: &AppName, name: &str, sealed: &[u8]) -> Result<String, VaultError> {
        let damaged = || VaultError::Damaged(name.to_owned(), app.clone());
        let (head, body) = sealed.split_at_checked(1 + NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(&head[1..]).map_err(|_| damaged())?;
        let nonce: [u8; NONCE_LEN] = *nonce.as_ref();
        let open = |key: &LessSafeKey| {
            let mut body = body.to_vec();
            let nonce = Nonce::assume_unique_for_key(nonce);
            let opened = key.open_in_place(nonce, Aad::from(owner(app, name)), &mut body);
            opened.ok().map(|opened| opened.to_vec())
        };
        let opened = open(&self.cipher).or_else(|| self.others.iter().find_map(open));
        let opened = opened.ok_or_else(damaged)?;
        let known = head[0] == FORM;
        let text = String::from_utf8(opened).ok().filter(|_| known);
        text.ok_or_else(damaged)
    }
}

/// Neither an app's name nor a variable's contains a NUL.
fn owner(app: &AppName, name: &str) -> Vec<u8> {
    format!("cutover secret\0{app}\0{name}").into_bytes()
}

/// Writes a random key so that after a crash there is a whole one or none. An existing key stays.
fn make(data_dir: &Path, name: &str) -> io::Result<()> {
    let mut key = [0u8; KEY_LENGTH];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    let temp = data_dir.join(format!("{name}.new"));
    let _ = std::fs::remove_file(&temp);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temp)?;
    file.write_all(format!("{}\n", hex::encode(key)).as_bytes())?;
    file.sync_all()?;
    // Unlike a rename, this replaces no key that was written meanwhile.
    match std::fs::hard_link(&temp, data_dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    std::fs::remove_file(&temp)?;
    File::open(data_dir)?.sync_all()
}

/// Whether values may be sealed with another key: a change was cut short, or systemd hands over a new one.
/// Blocks.
pub fn is_changing(data_dir: &Path) -> bool {
    !Places::of(data_dir).others.is_empty()
}

/// Puts the next key in the place of the other, once all is sealed with it; or deletes those that a credential
/// replaces. Returns what is left to do. Blocks.
pub fn advance(data_dir: &Path) -> io::Result<String> {
    let places = Places::of(data_dir);
    if !places.is_given {
        std::fs::rename(data_dir.join(NEXT), data_dir.join(KEY))?;
        File::open(data_dir)?.sync_all()?;
        return Ok(format!("back up `{KEY}` again, apart from the database"));
    }
    for path in places.others.iter().filter(|it| it.starts_with(data_dir)) {
        std::fs::remove_file(path)?;
    }
    File::open(data_dir)?.sync_all()?;
    Ok(match places.key.ends_with(NEXT_CREDENTIAL) {
        true => format!("put the credential `{NEXT_CREDENTIAL}` in the place of `{CREDENTIAL}`"),
        false => format!("back up the credential `{CREDENTIAL}`, apart from the database"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_value_can_be_read_only_as_what_it_was_sealed_for() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Vault::open(folder.path()),
            Err(VaultError::NoKey(_))
        ));
        let vault = Vault::open_or_make(folder.path()).unwrap();
        let mode = std::fs::metadata(folder.path().join(KEY)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let app: AppName = "hello".parse().unwrap();
        let sealed = vault.seal(&app, "A", "hunter2");
        assert_ne!(sealed, vault.seal(&app, "A", "hunter2"), "a new nonce");
        assert!(!sealed.windows(7).any(|it| it == b"hunter2"));
        let version = vault.version("A", b"hunter2");
        assert_ne!(version, vault.version("A", b"hunter3"));
        assert_ne!(version, vault.version("B", b"hunter2"));
        // Read again, the key is the same.
        let vault = Vault::open_or_make(folder.path()).unwrap();
        assert_eq!(vault.unseal(&app, "A", &sealed).unwrap(), "hunter2");
        assert_eq!(vault.version("A", b"hunter2"), version);
        assert!(vault.unseal(&app, "B", &sealed).is_err());
        assert!(
            vault
                .unseal(&"other".parse().unwrap(), "A", &sealed)
                .is_err()
        );
        // A next key reads what either has sealed, as does the one before until it is gone.
        let next = Vault::open_next(folder.path()).unwrap();
        let resealed = next.seal(&app, "A", "hunter2");
        assert_eq!(next.unseal(&app, "A", &sealed).unwrap(), "hunter2");
        let both = Vault::open(folder.path()).unwrap();
        assert_eq!(both.unseal(&app, "A", &resealed).unwrap(), "hunter2");
        assert!(vault.unseal(&app, "A", &resealed).is_err());
        advance(folder.path()).unwrap();
        assert!(!is_changing(folder.path()));
        let after = Vault::open(folder.path()).unwrap();
        assert_eq!(after.unseal(&app, "A", &resealed).unwrap(), "hunter2");
        assert!(after.unseal(&app, "A", &sealed).is_err());
        // A credential is the key, and reads what the file's has sealed; a next one reads what both have.
        let credentials = tempfile::tempdir().unwrap();
        let given = || Places::with(folder.path(), Some(credentials.path()));
        assert!(!given().is_given);
        for (name, digit) in [(CREDENTIAL, "1"), (NEXT_CREDENTIAL, "2")] {
            std::fs::write(credentials.path().join(name), digit.repeat(64)).unwrap();
            let read = Vault::open_in(given()).unwrap();
            assert_eq!(read.unseal(&app, "A", &resealed).unwrap(), "hunter2");
            let own = read.seal(&app, "A", "hunter2");
            assert!(
                after.unseal(&app, "A", &own).is_err(),
                "not with the file's"
            );
        }
        assert!(given().key.ends_with(NEXT_CREDENTIAL));
        assert_eq!(given().others.len(), 2);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            let error = vault.unseal(&app, "A", &damaged).unwrap_err();
            assert!(!error.to_string().contains("hunter2"));
        }
        for length in 0..sealed.len() {
            assert!(vault.unseal(&app, "A", &sealed[..length]).is_err());
        }
    }
}
