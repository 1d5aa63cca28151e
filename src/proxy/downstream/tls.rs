//! Certificates from files, selected by the server name that the client sends (SNI) and read again when
//! the files change.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// The certificates of a folder: `NAME.pem` holds a chain, beginning with the server's own certificate,
/// and `NAME.key` its private key.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By DNS name in lower case; `*.example.com` is kept as in the certificate.
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// The files' modification times when they were last read.
    seen: BTreeMap<PathBuf, SystemTime>,
}

impl Certificates {
    /// Reads the folder, which need not exist yet. Blocks.
    pub fn load(folder: PathBuf) -> Arc<Self> {
        let certificates = Arc::new(Self {
            folder,
            known: RwLock::default(),
        });
        certificates.refresh();
        certificates
    }

    /// Reads the files again if one of them has changed. A file that cannot be used is logged, and its
    /// names are served with the certificate from before. Blocks.
    pub fn refresh(&self) {
        let seen = written(&self.folder);
        if seen == self.known.read().seen {
            return;
        }
        let before = self.known.read().by_name.clone();
        let mut by_name = HashMap::new();
        let mut broken = false;
        for path in seen
            .keys()
            .filter(|p| p.extension() == Some("pem".as_ref()))
        {
            match read(path) {
                Ok((names, key)) => {
                    let key = Arc::new(key);
                    by_name.extend(names.into_iter().map(|name| (name, key.clone())));
                }
                Err(why) => {
                    broken = true;
                    tracing::error!("failed to load the certificate `{}`: {why}", path.display());
                }
            }
        }
        if broken {
            for (name, key) in before {
                by_name.entry(name).or_insert(key);
            }
        }
        tracing::info!("loaded TLS certificates for {} names", by_name.len());
        *self.known.write() = Known { by_name, seen };
    }

    fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let known = self.known.read();
        let name = name.to_ascii_lowercase();
        if let Some(key) = known.by_name.get(&name) {
            return Some(key.clone());
        }
        // A wildcard stands for exactly one label.
        let (_, parent) = name.split_once('.')?;
        known.by_name.get(&format!("*.{parent}")).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()?)
    }
}

/// A TLS server with these certificates that offers HTTP/2.
pub fn acceptor(certificates: Arc<Certificates>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn written(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeMap::new();
    };
    let time = |entry: std::fs::DirEntry| {
        let written = std::fs::metadata(entry.path()).ok()?.modified().ok()?;
        Some((entry.path(), written))
    };
    entries.flatten().filter_map(time).collect()
}

fn read(path: &Path) -> Result<(Vec<String>, CertifiedKey), String> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(|error| error.to_string())?;
    let own = chain.first().ok_or("no certificate in it")?;
    let names = webpki::EndEntityCert::try_from(own)
        .map_err(|error| error.to_string())?
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect::<Vec<_>>();
    if names.is_empty() {
        return Err("no DNS name in it".into());
    }
    let file = path.with_extension("key");
    let key = PrivateKeyDer::from_pem_file(&file)
        .map_err(|error| format!("`{}`: {error}", file.display()))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())?;
    Ok((names, key))
}
