//! A certificate authority of the test's own: Debian's pebble, with a DNS server that knows every name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::FromDer;

use crate::server::{Server, free_address};
use crate::support::tool;

pub struct Authority {
    folder: TempDir,
    pebble: PathBuf,
    listen: SocketAddr,
    /// Where agents find its directory.
    pub directory: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    /// Where DNS records are set.
    pub records: SocketAddr,
    /// Where it looks for answers to challenges.
    pub http: SocketAddr,
    pub https: SocketAddr,
    settings: Value,
    env: Vec<(&'static str, &'static str)>,
    server: Option<Child>,
    _names: Child,
}

impl Authority {
    /// One that has not been started. `None`: pebble is not installed.
    pub async fn new() -> Option<Self> {
        let pebble = tool::find("pebble", "pebble")?;
        let names = tool::find("pebble-challtestsrv", "pebble")?;
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let write = |file: &str, text: String| std::fs::write(folder.path().join(file), text);
        write("ca.pem", made.cert.pem()).unwrap();
        write("ca.key", made.signing_key.serialize_pem()).unwrap();
        let (dns, records) = (free_address(), free_address());
        let mut command = Command::new(names);
        command.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        command.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        command.args(["-dns01", &dns.to_string()]);
        command.args(["-management", &records.to_string()]);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let names = tool::serving(&mut command, records).await;
        let listen = free_address();
        Some(Self {
            folder,
            pebble,
            listen,
            directory: listen,
            management: free_address(),
            dns,
            records,
            http: free_address(),
            https: free_address(),
            settings: json!({}),
            env: vec![("PEBBLE_VA_NOSLEEP", "1")],
            server: None,
            _names: names,
        })
    }

    /// A setting of pebble's.
    pub fn set(&mut self, key: &str, value: Value) {
        self.settings[key] = value;
    }

    /// Rejects this share of nonces, in per cent, and takes up to this many seconds to look.
    pub fn set_env(&mut self, env: &[(&'static str, &'static str)]) {
        self.env = env.to_vec();
    }

    /// Starts it, again if it ran: then it has forgotten everything.
    pub async fn start(&mut self) {
        self.stop().await;
        let at = |file: &str| self.folder.path().join(file);
        let mut settings = json!({
            "listenAddress": self.listen.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": at("ca.pem"),
            "privateKey": at("ca.key"),
            "httpPort": self.http.port(),
            "tlsPort": self.https.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        });
        for (key, value) in self.settings.as_object().unwrap() {
            settings[key] = value.clone();
        }
        let settings = json!({ "pebble": settings }).to_string();
        std::fs::write(at("pebble.json"), settings).unwrap();
        let log = std::fs::File::create(at("pebble.log")).unwrap();
        let mut command = Command::new(&self.pebble);
        command.arg("-config").arg(at("pebble.json"));
        command.args(["-strict", "-dnsserver", &self.dns.to_string()]);
        command.envs(self.env.iter().copied());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(tool::serving(&mut command, self.listen).await);
    }

    pub async fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().await.unwrap();
        }
    }

    /// The certificate of its own server, and the key.
    pub fn files(&self) -> (PathBuf, PathBuf) {
        let at = |file: &str| self.folder.path().join(file);
        (at("ca.pem"), at("ca.key"))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pebble.log")).unwrap_or_default()
    }

    /// `[proxy]`'s keys for an agent that orders here.
    fn keys(&self, more: &str) -> String {
        format!(
            "http = \"{}\"\nhttps = \"{}\"\nacme = {{ email = \"ops@acme.test\", \
             directory = \"https://{}/dir\", directory_ca = {:?}{more} }}\n",
            self.http,
            self.https,
            self.directory,
            self.folder.path().join("ca.pem"),
        )
    }

    /// A server that orders here, for these domains. `more`: further keys of `acme`.
    pub async fn server(&self, domains: &[&str], more: &str) -> Server {
        let server = Server::idle(&format!("domains = {domains:?}\n")).await;
        let text = std::fs::read_to_string(&server.stage.config).unwrap();
        let text = text.replace("http = \"127.0.0.1:0\"\n", &self.keys(more));
        std::fs::write(&server.stage.config, text).unwrap();
        server
    }

    /// What clients trust: a new root each time that it starts.
    pub async fn roots(&self) -> RootCertStore {
        let ca = CertificateDer::from_pem_file(self.folder.path().join("ca.pem")).unwrap();
        let mut own = RootCertStore::empty();
        own.add(ca).unwrap();
        let request = "GET /roots/0 HTTP/1.1\r\nHost: pebble\r\nConnection: close\r\n\r\n";
        let root = ask(self.management, "127.0.0.1", own, request)
            .await
            .unwrap();
        let (_, pem) = root.text.split_once("\r\n\r\n").unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        roots
    }

    /// GETs `/` of a name over TLS, trusting this authority alone.
    pub async fn get(&self, name: &str) -> Result<Secure, String> {
        self.get_with(name, self.roots().await).await
    }

    /// The same, trusting what it was while it is away.
    pub async fn get_with(&self, name: &str, roots: RootCertStore) -> Result<Secure, String> {
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        ask(self.https, name, roots, &request).await
    }

    /// The same over and over, until `stop` says so. Gives how many were answered, and what failed.
    pub async fn load(
        &self,
        name: &str,
        stop: &std::sync::atomic::AtomicBool,
    ) -> (u32, Vec<String>) {
        let roots = self.roots().await;
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let (mut answered, mut failed) = (0, Vec::new());
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            match ask(self.https, name, roots.clone(), &request).await {
                Ok(_) => answered += 1,
                Err(why) => failed.push(why),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        (answered, failed)
    }
}

/// What came over TLS.
pub struct Secure {
    pub text: String,
    /// The serial number of the server's certificate.
    pub serial: String,
}

async fn ask(
    address: SocketAddr,
    name: &str,
    roots: RootCertStore,
    request: &str,
) -> Result<Secure, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| e.to_string())?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector
        .connect(name, stream)
        .await
        .map_err(|e| e.to_string())?;
    let own = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let (_, own) = x509_parser::certificate::X509Certificate::from_der(&own).unwrap();
    let serial = own.raw_serial_as_string();
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    match text.starts_with("HTTP/1.1 ") {
        true => Ok(Secure { text, serial }),
        false => Err(format!("no answer: {text:?}")),
    }
}
