//! When an authority wants a certificate renewed (RFC 9773). It is asked from time to time, and says early
//! what it is about to revoke.

use std::time::Duration;

use instant_acme::{CertificateIdentifier, Error, RenewalInfo};
use sha2::{Digest, Sha256};

use super::account::{Opened, failure};
use super::leaf::Leaf;
use super::names::{Name, Source};
use crate::log_limit::limited;
use crate::printable::printable;
use crate::store::certificates::{Renewal, set_renewal};
use crate::store::{Store, now};

/// How long an authority may want not to be asked again.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The pause after an answer that cannot be used.
const AGAIN: Duration = Duration::from_secs(3600);
/// The longest address of an explanation, in bytes.
const LONGEST_WHY: usize = 500;

/// The names whose authority is to be asked now.
pub fn due(names: &[Name], directory: &str) -> Vec<Name> {
    let now = now();
    let is_due = |it: &&Name| {
        let Some(leaf) = it.leaf.as_ref().filter(|leaf| leaf.not_after > now) else {
            return false;
        };
        let known = (it.state.renewal.as_ref()).filter(|known| Some(&known.of) == leaf.id.as_ref());
        it.source == Source::Ordered
            && it.due.is_some_and(|at| at > now)
            && it.state.directory.as_deref() == Some(directory)
            && leaf.id.is_some()
            && known.is_none_or(|known| known.ask_at <= now)
    };
    names.iter().filter(is_due).cloned().collect()
}

/// Asks when a name's certificate is to be renewed, and records the answer. Gives the name.
pub async fn ask(opened: Opened, store: Store, name: Name) -> String {
    let id = name.leaf.as_ref().and_then(|leaf| leaf.id.as_deref());
    let (Some(leaf), Some(id)) = (&name.leaf, id.and_then(identifier)) else {
        return name.name;
    };
    let of = id.to_string();
    let answer = opened.account.renewal_info(&id).await;
    let before = name.state.renewal.filter(|before| before.of == of);
    let answer = answer.and_then(|(info, pause)| match moment(&info, leaf) {
        Some(at) => Ok((at, why(&info), pause)),
        None => Err(Error::Str("its suggested window ends before it begins")),
    });
    let (at, why, pause) = match answer {
        Ok((at, why, pause)) => (Some(at), why, pause.clamp(SHORTEST, LONGEST)),
        // It does not say such things, or did not just now: what it said last counts.
        Err(error) => {
            let pause = match &error {
                Error::Unsupported(_) => LONGEST,
                _ => opened
                    .patience
                    .take()
                    .unwrap_or(AGAIN)
                    .clamp(SHORTEST, LONGEST),
            };
            if !matches!(error, Error::Unsupported(_)) {
                let why = failure(error, &opened.patience);
                limited!(
                    warn,
                    "no word on a renewal",
                    name = name.name,
                    "the authority does not say when to renew: {why}"
                );
            }
            let (at, why) = before.clone().map_or((None, None), |it| (it.at, it.why));
            (at, why, pause)
        }
    };
    if let Some(url) = why.as_ref().filter(|_| before.and_then(|it| it.why) != why) {
        tracing::info!(
            name = name.name,
            url,
            "the authority explains when it wants a renewal"
        );
    }
    let renewal = Renewal {
        of,
        at,
        why,
        ask_at: now() + pause.as_millis() as i64,
    };
    let about = name.name.clone();
    let write = store.write(move |db| set_renewal(db, &about, &renewal));
    if let Err(error) = write.await {
        limited!(warn, "renewal not recorded", %error, "failed to record when to renew a certificate");
    }
    name.name
}

/// The certificate that a new order replaces. An authority that did not take such an order gets one without.
pub fn replaced(name: &Name, directory: &str) -> Option<CertificateIdentifier<'static>> {
    let says_when = name
        .state
        .renewal
        .as_ref()
        .is_some_and(|it| it.at.is_some());
    let is_from_here = name.state.directory.as_deref() == Some(directory);
    let id = name.leaf.as_ref()?.id.as_deref()?;
    (says_when && is_from_here && name.state.failures == 0)
        .then(|| identifier(id))
        .flatten()
        .map(CertificateIdentifier::into_owned)
}

fn identifier(id: &str) -> Option<CertificateIdentifier<'_>> {
    let (key, serial) = id.split_once('.')?;
    Some(CertificateIdentifier {
        authority_key_identifier: key.into(),
        serial: serial.into(),
    })
}

/// A moment in the window, in milliseconds since 1970. The same each time that it is asked about a
/// certificate, and as good as random between certificates: their serial numbers are.
fn moment(info: &RenewalInfo, leaf: &Leaf) -> Option<i64> {
    let window = &info.suggested_window;
    let (start, end) = (window.start.unix_timestamp(), window.end.unix_timestamp());
    if end <= start {
        return None;
    }
    let hash = Sha256::digest(leaf.id.as_deref().unwrap_or_default());
    let part = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let after = (i128::from(end - start) * i128::from(part)) >> 32;
    Some((start + after as i64).saturating_mul(1000))
}

fn why(info: &RenewalInfo) -> Option<String> {
    let url = info.explanation_url.as_deref()?;
    let is_address = url.starts_with("https://") || url.starts_with("http://");
    let fits = is_address && url.len() <= LONGEST_WHY;
    fits.then(|| printable(url).replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment_of(start: &str, end: &str, id: &str) -> Option<i64> {
        let text = format!("{{\"suggestedWindow\":{{\"start\":\"{start}\",\"end\":\"{end}\"}}}}");
        let leaf = Leaf {
            names: Vec::new(),
            issuer: String::new(),
            not_before: 0,
            not_after: 0,
            id: Some(id.into()),
        };
        moment(&serde_json::from_str(&text).unwrap(), &leaf)
    }

    #[test]
    fn a_moment_lies_in_the_window_and_stays_the_same() {
        let (start, end) = ("1970-01-02T00:00:00Z", "1970-01-03T00:00:00Z");
        let of = |n: u32| moment_of(start, end, &format!("key.{n}")).unwrap();
        let all: Vec<i64> = (0..100).map(of).collect();
        assert!(all.iter().all(|at| (86_400_000..172_800_000).contains(at)));
        assert!(all.iter().any(|at| *at < 108_000_000) && all.iter().any(|at| *at > 151_000_000));
        assert_eq!(of(1), of(1));
        assert_eq!(moment_of(end, start, "key.1"), None);
    }
}
