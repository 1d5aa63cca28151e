//! Secrets and where they are read from. The values themselves are never part of deploy.toml, nor
//! of a `Config`.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// Where a secret is read from, every time it is used: `{ env = "NAME" }` or `{ file = "PATH" }`.
/// It holds no value, so `Debug` cannot reveal one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    Env(String),
    /// Absolute.
    File(PathBuf),
}

/// Why a secret cannot be used. Never quotes its value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable `{0}`, which holds a secret, is not set")]
    NotSet(String),
    #[error("the environment variable `{0}`, which holds a secret, is empty")]
    EmptyVariable(String),
    #[error("the secret file `{}` cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the secret file `{}` is empty", .0.display())]
    EmptyFile(PathBuf),
    #[error("the secret file `{}` is longer than 64 KiB, so it is probably not a secret", .0.display())]
    TooLong(PathBuf),
    #[error("the secret from {0} must be UTF-8 text")]
    NotText(String),
}

/// The largest file that is read, in bytes.
const LONGEST: u64 = 64 << 10;

impl Secret {
    /// The current value. A single newline at the end of a file is removed, because editors and
    /// `echo` add one.
    pub fn read(&self) -> Result<Vec<u8>, SecretError> {
        self.value(true)
    }

    fn value(&self, without_newline: bool) -> Result<Vec<u8>, SecretError> {
        match self {
            Secret::Env(name) => {
                use std::os::unix::ffi::OsStringExt;
                let value =
                    std::env::var_os(name).ok_or_else(|| SecretError::NotSet(name.clone()))?;
                let value = value.into_vec();
                if value.is_empty() {
                    return Err(SecretError::EmptyVariable(name.clone()));
                }
                Ok(value)
            }
            Secret::File(path) => {
                let mut value = Vec::new();
                File::open(path)
                    .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut value))
                    .map_err(|source| SecretError::Unreadable {
                        path: path.clone(),
                        source,
                    })?;
                if value.len() as u64 > LONGEST {
                    return Err(SecretError::TooLong(path.clone()));
                }
                if without_newline && value.ends_with(b"\n") {
                    value.pop();
                    if value.ends_with(b"\r") {
                        value.pop();
                    }
                }
                if value.is_empty() {
                    return Err(SecretError::EmptyFile(path.clone()));
                }
                Ok(value)
            }
        }
    }

    /// The current value with the newline at its end, for what is a file and not a word, such as .npmrc.
    pub fn read_whole(&self) -> Result<Vec<u8>, SecretError> {
        self.value(false)
    }

    /// The value as text, for tokens that go into a header or a password field. Surrounding white
    /// space, which no token has, is removed.
    pub fn read_text(&self) -> Result<String, SecretError> {
        let text = String::from_utf8(self.read()?).map_err(|_| {
            SecretError::NotText(match self {
                Secret::Env(name) => format!("the environment variable `{name}`"),
                Secret::File(path) => format!("`{}`", path.display()),
            })
        })?;
        match (text.trim(), self) {
            ("", Secret::Env(name)) => Err(SecretError::EmptyVariable(name.clone())),
            ("", Secret::File(path)) => Err(SecretError::EmptyFile(path.clone())),
            (text, _) => Ok(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> (tempfile::TempDir, Secret) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (folder, Secret::File(path))
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_dropped_and_nothing_else() {
        for (content, value) in [
            (&b"abc"[..], &b"abc"[..]),
            (b"abc\n", b"abc"),
            (b"abc\r\n", b"abc"),
            (b"abc\n\n", b"abc\n"),
            (b" abc ", b" abc "),
        ] {
            assert_eq!(file(content).1.read().unwrap(), value);
        }
    }

    #[test]
    fn a_token_has_no_white_space_around_it() {
        assert_eq!(file(b" tok\r\n\n").1.read_text().unwrap(), "tok");
        let blank = file(b" \n ").1.read_text();
        assert!(matches!(blank, Err(SecretError::EmptyFile(_))));
    }

    #[test]
    fn an_empty_missing_or_endless_secret_is_an_error() {
        assert!(matches!(file(b"").1.read(), Err(SecretError::EmptyFile(_))));
        assert!(matches!(
            file(b"\n").1.read(),
            Err(SecretError::EmptyFile(_))
        ));
        assert!(matches!(
            Secret::File("/nowhere/at/all".into()).read(),
            Err(SecretError::Unreadable { .. })
        ));
        assert!(matches!(
            Secret::File("/dev/zero".into()).read(),
            Err(SecretError::TooLong(_))
        ));
        assert!(matches!(
            Secret::Env("CUTOVER_TEST_NOT_SET".into()).read(),
            Err(SecretError::NotSet(_))
        ));
        assert!(matches!(
            file(b"\xff").1.read_text(),
            Err(SecretError::NotText(_))
        ));
    }

    #[test]
    fn a_secret_is_read_again_each_time() {
        let (_folder, secret) = file(b"old");
        assert_eq!(secret.read().unwrap(), b"old");
        let Secret::File(path) = &secret else {
            unreachable!()
        };
        std::fs::write(path, "new").unwrap();
        assert_eq!(secret.read().unwrap(), b"new");
    }

    #[test]
    fn no_message_shows_a_value() {
        let (_folder, secret) = file(b"hunter2\xff");
        let message = secret.read_text().unwrap_err();
        assert!(!format!("{message} {message:?} {secret:?}").contains("hunter2"));
    }
}
