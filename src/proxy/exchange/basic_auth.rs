//! Who has to name themselves before they come in. A password is verified once and then remembered, since
//! its hash is slow on purpose.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use super::download::ResponseBody;
use super::front::too_many;
use super::page::page;
use crate::proxy::route::front::{BasicAuth, RateLimit, User};
use crate::proxy::route::pattern::is_plain;
use crate::proxy::route::rate;
use crate::proxy::route::visit::ClientKey;
use crate::proxy::watch::now_ms;

/// How long a password that was right is remembered, and how many of them.
const REMEMBERED_MS: u64 = 15 * 60 * 1000;
const MOST: usize = 4096;

/// How many wrong passwords a client may send.
const WRONG: RateLimit = RateLimit {
    requests: 10,
    window_ms: 60_000,
    burst: 10,
};
/// Who they are counted for, besides the app: no app has such a name.
const COUNTED_AS: &str = "@basic_auth/";

/// How many passwords may wait to be verified, of all clients and of one, and how long. Requests that bring
/// the same password wait for one answer, as those of a page do.
const QUEUE: usize = 256;
const OF_ONE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(10);

/// bcrypt takes no more of a password, in bytes.
const LONGEST: usize = 72;

/// Passwords are verified by threads of their own, on half of the processors at most.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    Semaphore::new((processors / 2).max(1))
});
static WAITING: LazyLock<Mutex<HashMap<ClientKey, Vec<Verdict>>>> = LazyLock::new(Mutex::default);
static MEMORY: LazyLock<Memory> = LazyLock::new(Memory::default);

/// The answer to a request whose client has not named itself, or not as one of the users. `app`: what wrong
/// passwords are counted for.
pub async fn challenged(
    auth: &BasicAuth,
    app: &str,
    client: ClientKey,
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<ResponseBody>> {
    if auth.except.iter().any(|it| it.matches(path)) && is_plain(path) {
        return None;
    }
    let sent = headers.get(header::AUTHORIZATION);
    let sent = sent.and_then(|value| credentials(value.as_bytes()));
    let Some((name, password)) = sent else {
        return Some(unauthorized(app, "A user name and a password are needed."));
    };
    let user = auth.users.iter().find(|user| user.name == name);
    let key = MEMORY.key(user, &password);
    if MEMORY.knows(&key, now_ms()) {
        return None;
    }
    let counted = format!("{COUNTED_AS}{app}");
    if let Err(wait) = rate::ask(&counted, &client, WRONG, now_ms()) {
        let why = "Too many wrong passwords; try again later.";
        return Some(too_many(wait, why));
    }
    // Where there is no such user another's hash takes as long, so that the time tells nobody who there is.
    let of = user.or(auth.users.first());
    let right = match (of, Waits::new(client, key)) {
        (None, _) => Some(false),
        (Some(_), None) => None,
        (Some(of), Some(waits)) => {
            let verdict = waits.verdict.get_or_try_init(|| verified(of, password));
            match timeout(PATIENCE, verdict).await {
                Ok(Ok(&fits)) => Some(fits && user.is_some()),
                Ok(Err(Unknown)) | Err(_) => None,
            }
        }
    };
    match right {
        Some(true) => {
            MEMORY.learn(key, now_ms());
            None
        }
        Some(false) => {
            let _ = rate::count(&counted, &client, WRONG, now_ms());
            Some(unauthorized(app, "The user name or the password is wrong."))
        }
        None => {
            let why = "Too many passwords have to be verified right now; try again later.";
            Some(page(StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

/// It could not be found out.
struct Unknown;

/// Whether the password fits the user's hash.
async fn verified(of: &User, password: String) -> Result<bool, Unknown> {
    let turn = TURNS.acquire().await.map_err(|_| Unknown)?;
    let hash = of.hash.clone();
    let too_long = password.len() > LONGEST;
    // The turn goes along: a client that leaves does not make room for another while its own is verified.
    let check = move || {
        let _turn = turn;
        bcrypt::verify(password, &hash).unwrap_or(false) && !too_long
    };
    tokio::task::spawn_blocking(check)
        .await
        .map_err(|_| Unknown)
}

/// The user's name and the password (RFC 7617, 2).
fn credentials(value: &[u8]) -> Option<(String, String)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let encoded = scheme.eq_ignore_ascii_case(b"basic ").then_some(rest)?;
    let text = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn unauthorized(app: &str, why: &str) -> Response<ResponseBody> {
    let mut answer = page(StatusCode::UNAUTHORIZED, why);
    let realm = format!("Basic realm=\"{app}\", charset=\"UTF-8\"");
    if let Ok(realm) = HeaderValue::try_from(realm) {
        let headers = answer.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, realm);
    }
    answer
}

/// A password that waits to be verified, and whether it was right.
struct Verdict {
    key: Key,
    right: Arc<OnceCell<bool>>,
}

/// A request that waits for the verdict on its password.
struct Waits {
    client: ClientKey,
    key: Key,
    verdict: Arc<OnceCell<bool>>,
}

impl Waits {
    /// `None`: too many wait.
    fn new(client: ClientKey, key: Key) -> Option<Self> {
        let mut all = WAITING.lock();
        let of_client = all.get(&client).map_or(&[][..], Vec::as_slice);
        let verdict = match of_client.iter().find(|it| it.key == key) {
            Some(known) => known.right.clone(),
            None => {
                let waiting: usize = all.values().map(Vec::len).sum();
                if waiting >= QUEUE || of_client.len() >= OF_ONE {
                    return None;
                }
                let right = Arc::new(OnceCell::new());
                let verdict = Verdict {
                    key,
                    right: right.clone(),
                };
                all.entry(client).or_default().push(verdict);
                right
            }
        };
        Some(Self {
            client,
            key,
            verdict,
        })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut all = WAITING.lock();
        // The list's own, and this one.
        if Arc::strong_count(&self.verdict) > 2 {
            return;
        }
        if let Some(of_client) = all.get_mut(&self.client) {
            of_client.retain(|it| it.key != self.key);
            if of_client.is_empty() {
                all.remove(&self.client);
            }
        }
    }
}

/// What stands for a hash and a password that fits it.
type Key = [u8; 32];

/// The passwords that were right, by a code of which nothing can be learnt. A changed hash is another one.
struct Memory {
    secret: [u8; 32],
    until: Mutex<HashMap<Key, u64>>,
}

impl Default for Memory {
    fn default() -> Self {
        let mut secret = [0; 32];
        // Without it the codes would only be easier to guess for who reads this process's memory.
        let _ = getrandom::fill(&mut secret);
        Self {
            secret,
            until: Mutex::default(),
        }
    }
}

impl Memory {
    fn key(&self, user: Option<&User>, password: &str) -> Key {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes a key of any length");
        if let Some(user) = user {
            mac.update(user.name.as_bytes());
            mac.update(b":");
            mac.update(user.hash.as_bytes());
            mac.update(b":");
        }
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn knows(&self, key: &Key, now: u64) -> bool {
        let until = self.until.lock();
        until.get(key).is_some_and(|&until| now < until)
    }

    fn learn(&self, key: Key, now: u64) {
        let mut all = self.until.lock();
        if all.len() >= MOST {
            all.retain(|_, until| now < *until);
        }
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(key, now + REMEMBERED_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_are_read_as_browsers_send_them() {
        let of = |text: &str| credentials(text.as_bytes());
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(
            of("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            pair("Aladdin", "open sesame")
        );
        assert_eq!(of("bAsIc  YTpiOmM="), pair("a", "b:c"));
        assert_eq!(of("Basic dGVzdDoxMjPCow=="), pair("test", "123\u{a3}"));
        for wrong in [
            "",
            "Basic",
            "Basic ",
            "Bearer YTpi",
            "Basic YWI=",
            "Basic %%%",
            "Basic //8=",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn one_client_waits_with_few_passwords_and_any_number_of_requests() {
        let waits = |client: u8, key: u8| Waits::new([client; 16], [key; 32]);
        let first: Vec<_> = (0..100).map(|_| waits(201, 1).unwrap()).collect();
        let others: Vec<_> = (2..).map_while(|key| waits(201, key)).collect();
        assert_eq!(others.len(), OF_ONE - 1);
        assert!(waits(202, 1).is_some());
        drop(first);
        assert!(waits(201, 99).is_some());
        drop(others);
        assert!(WAITING.lock().keys().all(|client| client[0] < 200));
    }

    #[test]
    fn what_was_right_is_known_for_a_while_and_any_number_fits() {
        let memory = Memory::default();
        let user = |hash: &str| User {
            name: "ann".into(),
            hash: hash.into(),
        };
        let key = memory.key(Some(&user("h1")), "secret");
        assert!(!memory.knows(&key, 0));
        memory.learn(key, 0);
        assert!(memory.knows(&key, REMEMBERED_MS - 1));
        assert!(!memory.knows(&key, REMEMBERED_MS));
        assert!(!memory.knows(&memory.key(Some(&user("h2")), "secret"), 0));
        assert!(!memory.knows(&memory.key(None, "secret"), 0));
        for n in 0..3 * MOST {
            memory.learn(memory.key(None, &n.to_string()), 0);
        }
        assert!(memory.until.lock().len() <= MOST);
    }
}
