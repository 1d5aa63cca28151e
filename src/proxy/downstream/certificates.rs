//! Certificates and the answers to an authority's challenges, from files that are read again when they
//! change. A handshake never waits for a file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::unknown_names::UnknownNames;
use crate::log_limit::limited;

/// The protocol by which an authority asks for the answer to a TLS-ALPN-01 challenge (RFC 8737).
pub const CHALLENGE: &[u8] = b"acme-tls/1";

/// The folder in the data folder that holds what the agent gets from a certificate authority.
pub const ACME: &str = "acme";

/// How often an unknown challenge may cause the files to be read.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a request may wait for the files: their disk may hang.
const HUNG: Duration = Duration::from_secs(2);

/// The longest answer to a challenge, in bytes.
const LONGEST: u64 = 1 << 10;

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The owner's certificates: `NAME.pem` holds a chain, beginning with the server's own certificate,
    /// and `NAME.key` its private key, if that is not in `NAME.pem` too.
    pub own: PathBuf,
    /// The agent's, in the same form. A name that the owner has a certificate for is not served from here.
    pub ordered: PathBuf,
    /// The answers to challenges: a text whose name is the token, or a certificate `NAME.pem`.
    pub challenges: PathBuf,
}

impl Folders {
    pub fn new(own: PathBuf, data_dir: &Path) -> Self {
        let acme = data_dir.join(ACME);
        Self {
            own,
            ordered: acme.join("certificates"),
            challenges: acme.join("challenges"),
        }
    }
}

/// All certificates, selected by the server name that the client sends (SNI).
#[derive(Debug)]
pub struct Certificates {
    folders: Folders,
    known: RwLock<Known>,
    /// What clients asked for in vain.
    pub unknown: UnknownNames,
    /// Locked while the files are read. When that was last caused by an unknown challenge.
    reading: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    files: BTreeMap<PathBuf, Arc<File>>,
    own: ByName,
    ordered: ByName,
    /// For clients that send no name.
    default: Option<Arc<CertifiedKey>>,
    /// By token.
    answers: HashMap<String, Arc<str>>,
    /// The certificates that answer challenges, by name.
    proofs: HashMap<String, Arc<CertifiedKey>>,
}

/// By DNS name in lower case; `*.example.com` is kept as in the certificate.
type ByName = HashMap<String, Arc<CertifiedKey>>;

/// When the file itself, and one that belongs to it, was last written.
type Written = (SystemTime, Option<SystemTime>);

#[derive(Debug)]
struct File {
    written: Written,
    /// `None` if it could never be used.
    content: Option<Content>,
}

#[derive(Clone, Debug)]
enum Content {
    Certificate(Arc<[String]>, Arc<CertifiedKey>),
    Answer(Arc<str>),
}

impl Certificates {
    /// Reads the folders, which need not exist yet. Blocks.
    pub fn load(folders: Folders) -> Arc<Self> {
        let certificates = Arc::new(Self {
            folders,
            known: RwLock::default(),
            unknown: UnknownNames::default(),
            reading: Mutex::default(),
        });
        certificates.refresh();
        certificates
    }

    /// Reads the files that have changed. One that cannot be used is logged, and what it held before
    /// stays. Blocks.
    pub fn refresh(&self) {
        let _turn = self.reading.lock();
        self.read();
    }

    /// Whether a name is served with a certificate.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The answer to a challenge. An unknown token causes the files to be read, though not often.
    pub async fn answer(self: &Arc<Self>, token: &str) -> Option<Arc<str>> {
        if let Some(answer) = self.known.read().answers.get(token) {
            return Some(answer.clone());
        }
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || this.read_now_and_then());
        tokio::time::timeout(HUNG, read).await.ok()?.ok()?;
        self.known.read().answers.get(token).cloned()
    }

    fn read_now_and_then(&self) {
        let Some(mut last) = self.reading.try_lock() else {
            return;
        };
        if last.is_none_or(|last| last.elapsed() >= AGAIN) {
            *last = Some(Instant::now());
            self.read();
        }
    }

    fn read(&self) {
        let Folders {
            own,
            ordered,
            challenges,
        } = &self.folders;
        let before = self.known.read().files.clone();
        let mut files = BTreeMap::new();
        for folder in [own, ordered, challenges] {
            let listed = list(folder, folder == challenges).unwrap_or_else(|error| {
                limited!(
                    error,
                    "failed to read a folder of certificates",
                    "failed to read the folder `{}`: {error}; its certificates are served as before",
                    folder.display()
                );
                let kept = before.iter().filter(|(path, _)| path.starts_with(folder));
                kept.map(|(path, file)| (path.clone(), file.written))
                    .collect()
            });
            for (path, written) in listed {
                let known = before.get(&path);
                let file = match known.filter(|known| known.written == written) {
                    Some(same) => same.clone(),
                    None => Arc::new(File {
                        content: content(&path, folder == challenges)
                            .or_else(|| known?.content.clone()),
                        written,
                    }),
                };
                files.insert(path, file);
            }
        }
        let same = files.len() == before.len()
            && (files.iter()).all(|(path, file)| {
                (before.get(path)).is_some_and(|before| Arc::ptr_eq(before, file))
            });
        if !same {
            let known = Known::of(files, &self.folders);
            let names = known.own.len() + known.ordered.len();
            tracing::info!("loaded TLS certificates for {names} names");
            *self.known.write() = known;
        }
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let known = self.known.read();
        // Every request without TLS comes here, mostly with an exact name in lower case.
        let name = match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        // A wildcard stands for exactly one label.
        let wild = |names: &ByName| {
            let (_, parent) = name.split_once('.')?;
            names.get(&format!("*.{parent}")).cloned()
        };
        let of = |names: &ByName| names.get(name.as_ref()).cloned().or_else(|| wild(names));
        of(&known.own).or_else(|| of(&known.ordered))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if hello
            .alpn()
            .is_some_and(|mut all| all.all(|it| it == CHALLENGE))
        {
            return self.known.read().proofs.get(name?).cloned();
        }
        match name {
            Some(name) => {
                let found = self.find(name);
                if found.is_none() {
                    self.unknown.add(name);
                }
                found
            }
            None => self.known.read().default.clone(),
        }
    }
}

impl Known {
    fn of(files: BTreeMap<PathBuf, Arc<File>>, folders: &Folders) -> Self {
        let mut known = Self::default();
        for folder in [&folders.challenges, &folders.ordered, &folders.own] {
            let its = files
                .iter()
                .filter(|(path, _)| path.parent() == Some(folder));
            for (path, file) in its {
                let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
                match &file.content {
                    Some(Content::Answer(text)) => {
                        known.answers.insert(stem.to_owned(), text.clone());
                    }
                    Some(Content::Certificate(_, key)) if *folder == folders.challenges => {
                        known.proofs.insert(stem.to_owned(), key.clone());
                    }
                    Some(Content::Certificate(names, key)) => {
                        let names = names.iter().cloned();
                        let of = match *folder == folders.own {
                            true => &mut known.own,
                            false => &mut known.ordered,
                        };
                        of.extend(names.map(|name| (name, key.clone())));
                    }
                    None => {}
                }
            }
        }
        let of = |folder: &Path| {
            let its = files
                .iter()
                .filter(|(path, _)| path.parent() == Some(folder));
            let mut its = its.filter_map(|(_, file)| match &file.content {
                Some(Content::Certificate(_, key)) => Some(key.clone()),
                _ => None,
            });
            its.next()
        };
        let named = files.get(&folders.own.join("default.pem"));
        known.default = match named.and_then(|file| file.content.clone()) {
            Some(Content::Certificate(_, key)) => Some(key),
            _ => of(&folders.own).or_else(|| of(&folders.ordered)),
        };
        known.files = files;
        known
    }
}

/// The files of a folder that count, and when they were written.
fn list(folder: &Path, challenges: bool) -> io::Result<Vec<(PathBuf, Written)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let time = |path: &Path| std::fs::metadata(path)?.modified();
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_pem = is_certificate(&path);
        if is_pem || challenges && path.extension().is_none() {
            // One that cannot be looked at cannot be read either, which is logged.
            let written = time(&path).unwrap_or(SystemTime::UNIX_EPOCH);
            let key = time(&path.with_extension("key")).ok();
            files.push((path, (written, key.filter(|_| is_pem))));
        }
    }
    Ok(files)
}

fn is_certificate(path: &Path) -> bool {
    path.extension() == Some("pem".as_ref())
}

fn content(path: &Path, challenge: bool) -> Option<Content> {
    let read = match (is_certificate(path), challenge) {
        (true, false) => certificate(path),
        (true, true) => proof(path),
        (false, _) => answer(path),
    };
    read.inspect_err(|why| {
        tracing::error!("failed to load the certificate `{}`: {why}", path.display());
    })
    .ok()
}

fn certificate(path: &Path) -> Result<Content, String> {
    let (chain, key) = pem(path)?;
    let own = chain.first().ok_or("no certificate in it")?;
    let names = webpki::EndEntityCert::try_from(own)
        .map_err(|error| error.to_string())?
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect::<Arc<[_]>>();
    if names.is_empty() {
        return Err("no DNS name in it".into());
    }
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())?;
    Ok(Content::Certificate(names, Arc::new(key)))
}

/// A certificate with a critical extension that nothing but an authority understands.
fn proof(path: &Path) -> Result<Content, String> {
    let (chain, key) = pem(path)?;
    let key = provider().key_provider.load_private_key(key);
    let key = key.map_err(|error| error.to_string())?;
    let key = Arc::new(CertifiedKey::new(chain, key));
    Ok(Content::Certificate(Arc::default(), key))
}

/// The chain in a file, and its private key from the same file or from the one beside it. An error is one
/// sentence. Blocks.
pub fn pem(path: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(|error| error.to_string())?;
    // Said before the key is looked for, perhaps in the same file: that may be a pipe.
    if chain.is_empty() {
        return Err("no certificate in it".into());
    }
    let mut file = path.with_extension("key");
    if !file.exists() {
        file = path.to_owned();
    }
    let key = PrivateKeyDer::from_pem_file(&file)
        .map_err(|error| format!("the private key in `{}`: {error}", file.display()))?;
    Ok((chain, key))
}

fn answer(path: &Path) -> Result<Content, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    io::Read::read_to_string(&mut io::Read::take(file, LONGEST), &mut text)
        .map_err(|error| error.to_string())?;
    Ok(Content::Answer(text.into()))
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}
