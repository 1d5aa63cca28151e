//! The answers to an authority's challenges: placed where it looks for them, and taken away again.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use instant_acme::{ChallengeType, KeyAuthorization};
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use super::Failure;
use super::files::{self, Files};
use crate::config::DnsCommand;
use crate::printable::printable;
use crate::proxy::control::Client;

/// How long the program that sets a DNS record may take.
const COMMAND: Duration = Duration::from_secs(120);

/// The answers of one order.
pub struct Answers<'a> {
    pub files: &'a Files,
    pub proxy: &'a Client,
    pub dns: Option<&'a DnsCommand>,
    placed: Vec<Placed>,
}

enum Placed {
    File(PathBuf),
    Record(DnsCommand, String, String),
}

/// What a name is to be proved by: a wildcard through DNS, any other name in turn by a file and by a
/// certificate, because port 80 or 443 may be closed.
pub fn kind(name: &str, failures: u32) -> ChallengeType {
    match (name.starts_with("*."), failures % 2) {
        (true, _) => ChallengeType::Dns01,
        (false, 0) => ChallengeType::Http01,
        (false, _) => ChallengeType::TlsAlpn01,
    }
}

impl<'a> Answers<'a> {
    pub fn new(files: &'a Files, proxy: &'a Client, dns: Option<&'a DnsCommand>) -> Self {
        Self {
            files,
            proxy,
            dns,
            placed: Vec::new(),
        }
    }

    /// Returns when the authority will find the answer. `name` is without an asterisk.
    pub async fn place(
        &mut self,
        kind: &ChallengeType,
        name: &str,
        token: &str,
        answer: &KeyAuthorization,
    ) -> Result<(), Failure> {
        match kind {
            ChallengeType::Dns01 => return self.set_record(name, answer).await,
            ChallengeType::TlsAlpn01 => {
                let proof = proof(name, answer.digest().as_ref());
                let proof = proof.map_err(|error| Failure::Refused(error.to_string()))?;
                self.write(self.files.proof(name), proof).await?;
            }
            _ => {
                let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
                if token.is_empty() || !token.bytes().all(valid) {
                    let why = "the authority's token is not in base64url";
                    return Err(Failure::Refused(why.into()));
                }
                let text = answer.as_str().to_owned();
                self.write(self.files.answer(token), text).await?;
            }
        }
        // A proxy that does not know the command looks by itself every few seconds.
        if self.proxy.reload_certificates().await.is_err() {
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        Ok(())
    }

    async fn write(&mut self, path: PathBuf, content: String) -> Result<(), Failure> {
        self.placed.push(Placed::File(path.clone()));
        let write = move || {
            let written = files::write(&path, content.as_bytes());
            written.map_err(|error| format!("failed to write `{}`: {error}", path.display()))
        };
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.unwrap_or_else(|error| Err(error.to_string()));
        written.map_err(Failure::Away)
    }

    async fn set_record(&mut self, name: &str, answer: &KeyAuthorization) -> Result<(), Failure> {
        let Some(dns) = self.dns else {
            let why = "a wildcard is certified through DNS, but `proxy.acme.dns` is not set";
            return Err(Failure::Refused(why.into()));
        };
        let (record, value) = (format!("_acme-challenge.{name}"), answer.dns_value());
        let placed = Placed::Record(dns.clone(), record.clone(), value.clone());
        self.placed.push(placed);
        run(&dns.add, &record, &value)
            .await
            .map_err(Failure::Refused)?;
        tokio::time::sleep(dns.wait).await;
        Ok(())
    }

    pub async fn take_away(self) {
        for placed in self.placed {
            match placed {
                Placed::File(path) => {
                    let _ = tokio::fs::remove_file(path).await;
                }
                Placed::Record(dns, record, value) => {
                    if let Err(why) = run(&dns.remove, &record, &value).await {
                        tracing::warn!("the record `{record}` is left in DNS: {why}");
                    }
                }
            }
        }
    }
}

/// Runs the owner's program. An error is one sentence.
async fn run(argv: &[String], record: &str, value: &str) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err("no program is named".into());
    };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).args([record, value]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let ended = match tokio::time::timeout(COMMAND, command.output()).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => return Err(format!("`{program}` cannot be run: {error}")),
        Err(_) => {
            let limit = COMMAND.as_secs();
            return Err(format!("`{program}` was still running after {limit} s"));
        }
    };
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let last = printable(said.trim())
        .lines()
        .next_back()
        .map(str::to_owned);
    let last: String = last.unwrap_or_default().chars().take(300).collect();
    Err(format!("`{program}` failed ({}): {last}", ended.status))
}

/// The certificate that answers a TLS-ALPN-01 challenge (RFC 8737), with its key.
fn proof(name: &str, digest: &[u8]) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_fails_is_quoted_by_its_last_line() {
        let argv = |text: &str| ["sh", "-c", text].map(str::to_owned).to_vec();
        let ok = run(&argv("test \"$0 $1\" = 'r v'"), "r", "v").await;
        assert_eq!(ok, Ok(()));
        let failed = run(&argv("echo one >&2; echo no zone >&2; exit 3"), "r", "v").await;
        let failed = failed.unwrap_err();
        assert!(
            failed.contains("no zone") && !failed.contains("one "),
            "{failed}"
        );
        let missing = run(&["/nowhere/dns".to_owned()], "r", "v")
            .await
            .unwrap_err();
        assert!(missing.contains("cannot be run"), "{missing}");
    }
}
