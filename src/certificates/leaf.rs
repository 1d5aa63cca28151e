//! What a certificate says of itself.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::printable::printable;
use crate::proxy::pem;

/// What matters of a server's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// In lower case.
    pub names: Vec<String>,
    /// The issuer's organization and name, as far as it has them.
    pub issuer: String,
    /// In milliseconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    /// By which its authority knows it (RFC 9773, 4.1); `None` if it does not name its issuer's key.
    pub id: Option<String>,
}

impl Leaf {
    /// Whether it is for this name: one that it has, or one label below a wildcard.
    pub fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let fits = |own: &String| {
            own == name
                || own
                    .strip_prefix("*.")
                    .is_some_and(|own| Some(own) == parent)
        };
        self.names.iter().any(fits)
    }
}

/// Reads the certificate in a file, and whether its private key is the one beside it. An error is one
/// sentence. Blocks.
pub fn read(path: &Path) -> Result<Leaf, String> {
    let (chain, key) = pem(path)?;
    check(chain, key)
}

/// The same of a chain and a key in PEM.
pub fn parse(chain: &str, key: &str) -> Result<Leaf, String> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| error.to_string())?;
    check(chain, key)
}

fn check(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Leaf, String> {
    let leaf = leaf(chain.first().ok_or("no certificate in it")?)?;
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(leaf),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("its private key belongs to another certificate".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let alternative = parsed.subject_alternative_name();
    let alternative = alternative.map_err(|error| error.to_string())?;
    let names = alternative.iter().flat_map(|it| &it.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let issuer = parsed.issuer();
    let parts = issuer.iter_organization().chain(issuer.iter_common_name());
    let parts: Vec<&str> = parts.filter_map(|part| part.as_str().ok()).collect();
    let validity = parsed.validity();
    Ok(Leaf {
        names: names.collect(),
        issuer: printable(&parts.join(" ")).replace('\n', " "),
        not_before: validity.not_before.timestamp() * 1000,
        not_after: validity.not_after.timestamp() * 1000,
        id: id(&parsed),
    })
}

fn id(certificate: &X509Certificate<'_>) -> Option<String> {
    let extensions = certificate.iter_extensions();
    let mut keys = extensions.filter_map(|it| match it.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref(),
        _ => None,
    });
    let key = BASE64_URL_SAFE_NO_PAD.encode(keys.next()?.0);
    let serial = BASE64_URL_SAFE_NO_PAD.encode(certificate.raw_serial());
    Some(format!("{key}.{serial}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_tells_its_names_and_whether_the_key_is_its_own() {
        let names = vec!["a.test".to_owned(), "*.b.test".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let leaf = parse(&chain, &key).unwrap();
        assert_eq!(leaf.names, ["a.test", "*.b.test"]);
        assert!(leaf.not_before < leaf.not_after);
        for (name, fits) in [
            ("a.test", true),
            ("x.b.test", true),
            ("b.test", false),
            ("x.y.b.test", false),
            ("x.a.test", false),
        ] {
            assert_eq!(leaf.is_for(name), fits, "{name}");
        }
        let other = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        let wrong = parse(&chain, &other.signing_key.serialize_pem()).unwrap_err();
        assert!(wrong.contains("another certificate"), "{wrong}");
    }
}
