//! `[apps.NAME.proxy] basic_auth`: who comes in, by name and password.

use sha2::{Digest, Sha256};
use toml::de::DeValue;

use super::file::{Node, Section};
use super::values::secret_in;
use super::{Secret, front};
use crate::ids::AppName;
use crate::proxy::front::PathPattern;

#[derive(Debug, Clone)]
pub struct BasicAuth {
    pub users: Vec<BasicUser>,
    /// Paths for which nobody is asked.
    pub except: Vec<PathPattern>,
}

#[derive(Debug, Clone)]
pub struct BasicUser {
    pub name: String,
    password: Password,
}

#[derive(Clone)]
enum Password {
    Hash(String),
    /// The password itself or its hash.
    From(Secret),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hash(_) => f.write_str("Hash"),
            Self::From(secret) => secret.fmt(f),
        }
    }
}

/// What a password that is kept in plain is hashed with: a tenth of a second.
const COST: u32 = 10;
/// A hash that takes longer than some seconds would keep everybody waiting.
const MOST_COST: u32 = 14;
/// bcrypt takes no more of a password, in bytes.
const LONGEST: usize = 72;

impl BasicUser {
    /// Where the password is read from, if not from deploy.toml.
    pub fn secret(&self) -> Option<&Secret> {
        match &self.password {
            Password::Hash(_) => None,
            Password::From(secret) => Some(secret),
        }
    }

    /// Why what can be read is no password or hash. Reads: blocks.
    pub fn problem(&self) -> Option<String> {
        let secret = self.secret()?;
        secret.read_text().ok()?;
        checked(secret).err()
    }

    /// The password's hash, the same each time: a table that is published again must not differ. Reads
    /// and computes: blocks.
    pub fn hash(&self, app: &AppName) -> Result<String, String> {
        let secret = match &self.password {
            Password::Hash(hash) => return Ok(hash.clone()),
            Password::From(secret) => secret,
        };
        let text = checked(secret)?;
        if text.starts_with("$2") {
            return Ok(text);
        }
        // A salt need not be secret, only differ from that of others.
        let salt = Sha256::digest(format!("cutover/{app}/{}", self.name));
        let salt = salt.first_chunk().copied().unwrap_or_default();
        let parts = bcrypt::hash_with_salt(text, COST, salt).map_err(|error| error.to_string())?;
        Ok(parts.format_for_version(bcrypt::Version::TwoB))
    }
}

/// The password or its hash, which is one that can be verified.
fn checked(secret: &Secret) -> Result<String, String> {
    let text = secret.read_text().map_err(|error| error.to_string())?;
    if text.starts_with("$2") {
        return match is_hash(&text) {
            true => Ok(text),
            false => Err(format!("the secret is not {HASH}")),
        };
    }
    if text.len() > LONGEST || text.contains('\0') {
        return Err(format!(
            "the password must have at most {LONGEST} bytes, none of them zero"
        ));
    }
    Ok(text)
}

const HASH: &str = "a hash by bcrypt with a cost of 4 to 14, as `htpasswd -nbB NAME PASSWORD` prints \
                    after the name";

fn is_hash(text: &str) -> bool {
    let parts = text.parse::<bcrypt::HashParts>();
    parts.is_ok_and(|parts| (4..=MOST_COST).contains(&parts.get_cost()))
}

pub(super) fn basic_auth(section: &mut Section<'_>) -> Option<BasicAuth> {
    let users = section.read("basic_auth", users);
    let has_users = section.has("basic_auth");
    let except = section.read("basic_auth_except", front::path_patterns);
    if except.is_some() && !has_users {
        section.report(format!(
            "`{}` needs `basic_auth`: expected who comes in elsewhere",
            section.key("basic_auth_except")
        ));
    }
    Some(BasicAuth {
        users: users?,
        except: except.unwrap_or_default(),
    })
}

fn users(node: Node<'_>) -> Option<Vec<BasicUser>> {
    const EXPECTED: &str = "an array such as [{ user = \"ann\", password_hash = \"$2y$10$…\" }]";
    let at = node.start;
    let file = node.file;
    let key = node.path.clone();
    let nodes = node.array(EXPECTED)?;
    if nodes.is_empty() {
        let text =
            format!("`{key}` is empty: expected at least one user; without this key all come in");
        file.report(at, text);
        return None;
    }
    let mut users: Vec<BasicUser> = Vec::new();
    for node in nodes {
        let start = node.start;
        let Some(user) = user(node) else { continue };
        if users.iter().any(|other| other.name == user.name) {
            let text = format!("`{key}` names `{}` twice", user.name.escape_debug());
            file.report(start, text);
        }
        users.push(user);
    }
    Some(users)
}

fn user(node: Node<'_>) -> Option<BasicUser> {
    let mut section = node.section();
    let name = section.required("user", "the name", |node| {
        const EXPECTED: &str = "a name without `:` and control characters";
        let text = node.str(EXPECTED)?;
        let bad = text.is_empty() || text.contains(|c: char| c == ':' || c.is_control());
        match bad || text.len() > 255 {
            true => node.wrong(EXPECTED),
            false => Some(text.to_owned()),
        }
    });
    let hash = section.read("password_hash", |node| match node.value.get_ref() {
        DeValue::String(text) if is_hash(text) => Some(Password::Hash(text.to_string())),
        DeValue::Table(_) => node.wrong_unshown(format!(
            "{HASH}; to read the password or its hash, write `file = \"PATH\"` or `env = \"NAME\"` in \
             place of `password_hash`"
        )),
        _ => node.wrong_unshown(HASH),
    });
    let mut from = |kind| {
        let secret = section.read(kind, |node| secret_in(kind, node))?;
        Some(Password::From(secret))
    };
    let [env, file] = ["env", "file"].map(&mut from);
    let given = ["password_hash", "env", "file"];
    let given = given.iter().filter(|key| section.has(key)).count();
    if given != 1 && !section.is_misshapen() {
        section.report(format!(
            "`{}` needs one of `password_hash`, `env` and `file`: expected the hash, or where the password or \
             its hash is read from; the password itself does not belong in this file",
            section.path()
        ));
    }
    section.done();
    Some(BasicUser {
        name: name?,
        password: hash.or(env).or(file)?,
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, load, warnings};

    fn read(proxy: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(folder.path().join("bob"), "open sesame\n").unwrap();
        let hash = bcrypt::hash_with_salt("eve", 4, [7; 16])
            .unwrap()
            .to_string();
        std::fs::write(folder.path().join("eve"), hash).unwrap();
        std::fs::write(folder.path().join("bad"), "$2b$31$short").unwrap();
        let text = format!("[apps.a]\nrepo = '/srv/a.git'\nport = 1\n[apps.a.proxy]\n{proxy}\n");
        std::fs::write(&path, text).unwrap();
        let config = load(&path).map_err(|problems| problems.to_string())?;
        // Before the folder is gone.
        let app = config.apps.values().next().unwrap();
        for user in app.proxy.basic_auth.iter().flat_map(|auth| &auth.users) {
            match (user.name.as_str(), user.hash(&app.name)) {
                ("bad", hash) => {
                    assert!(hash.is_err());
                    assert_eq!(user.problem(), hash.err());
                }
                (password, Ok(hash)) => {
                    let password = if password == "bob" {
                        "open sesame"
                    } else {
                        password
                    };
                    assert!(bcrypt::verify(password, &hash).unwrap(), "{password}");
                    assert_eq!(
                        user.hash(&app.name).as_ref(),
                        Ok(&hash),
                        "each time the same"
                    );
                }
                (_, Err(error)) => panic!("{error}"),
            }
        }
        Ok(config)
    }

    #[test]
    fn a_password_is_read_from_elsewhere_or_given_by_its_hash() {
        let hash = bcrypt::hash_with_salt("ann", 4, [1; 16])
            .unwrap()
            .to_string();
        let config = read(&format!(
            "basic_auth = [{{ user = 'ann', password_hash = '{hash}' }}, {{ user = 'bob', file = 'bob' }}, \
             {{ user = 'eve', file = 'eve' }}, {{ user = 'bad', file = 'bad' }}]\n\
             basic_auth_except = ['/up', '/hooks/*']"
        ));
        let config = config.unwrap();
        let app = config.apps.values().next().unwrap();
        let auth = app.proxy.basic_auth.as_ref().unwrap();
        assert_eq!((auth.users.len(), auth.except.len()), (4, 2));
        assert!(!format!("{auth:?}").contains(&hash));
        let warned = warnings(&config);
        assert!(
            warned
                .iter()
                .any(|it| it.contains("basic_auth`: passwords are sent")),
            "{warned:?}"
        );
    }

    #[test]
    fn each_mistake_is_named_and_no_password_shown() {
        for (text, wrong) in [
            ("basic_auth = []", "at least one user"),
            (
                "basic_auth = [{ user = 'a' }]",
                "`apps.a.proxy.basic_auth[0]` needs one of",
            ),
            (
                "basic_auth = [{ user = 'a', password_hash = 'hunter2' }]",
                "a hash by bcrypt",
            ),
            (
                "basic_auth = [{ user = 'a', password_hash = { file = 'a' } }]",
                "`file = \"PATH\"`",
            ),
            (
                "basic_auth = [{ user = 'a', password = 'hunter2' }]",
                "unknown key `password`",
            ),
            (
                "basic_auth = [{ user = 'a', env = 'A', file = 'a' }]",
                "needs one of",
            ),
            ("basic_auth = [{ user = 'a:b', env = 'A' }]", "without `:`"),
            (
                "basic_auth = [{ user = 'a', env = 'A' }, { user = 'a', env = 'B' }]",
                "twice",
            ),
            ("basic_auth_except = ['/up']", "needs `basic_auth`"),
            (
                "basic_auth = [{ user = 'a', env = 'A' }]\nbasic_auth_except = ['up']",
                "`*` stands for",
            ),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
