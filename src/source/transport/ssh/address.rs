//! A repository's ssh address, read as git reads it.

use percent_encoding::percent_decode_str;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub user: Option<String>,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: Option<u16>,
    /// On the server.
    pub path: String,
}

/// `ssh://user@host:port/path` or `user@host:path`. deploy.toml's checks have left nothing in it that
/// `ssh` could take for an option.
pub fn parse(text: &str) -> Option<Address> {
    let scheme = text.get(..6).filter(|s| s.eq_ignore_ascii_case("ssh://"));
    let (server, path, is_url) = match scheme {
        Some(_) => {
            let (server, path) = text[6..].split_at(text[6..].find('/')?);
            (server, path, true)
        }
        None => {
            let bracket = text
                .find('[')
                .and_then(|at| Some(at + text[at..].find("]:")? + 1));
            let colon = bracket.or_else(|| text.find(':'))?;
            (&text[..colon], &text[colon + 1..], false)
        }
    };
    let (user, server) = match server.rsplit_once('@') {
        Some((user, server)) => (Some(user.to_owned()), server),
        None => (None, server),
    };
    let (host, port) = host(server, is_url)?;
    let path = match is_url {
        true => percent_decode_str(path).decode_utf8().ok()?.into_owned(),
        false => path.to_owned(),
    };
    // A home folder: the server's shell expands it only at the beginning.
    let path = match path.strip_prefix('/') {
        Some(home) if home.starts_with('~') => home.to_owned(),
        _ => path,
    };
    let is_good = !host.is_empty() && !host.starts_with('-') && !path.is_empty();
    is_good.then_some(Address {
        user,
        host,
        port,
        path,
    })
}

fn host(server: &str, is_url: bool) -> Option<(String, Option<u16>)> {
    let (host, port) = match server
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((inside, after)) => match (after.strip_prefix(':'), inside.split_once(':')) {
            (Some(port), _) => (inside, Some(port)),
            // `[host:port]:path` of an address without a scheme.
            (None, Some((host, port))) if !is_url && !port.contains(':') => (host, Some(port)),
            (None, _) => (inside, None),
        },
        None if is_url => match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        },
        None => (server, None),
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => Some(port.parse().ok()?),
        None => None,
    };
    Some((host.to_owned(), port))
}

/// The command that the server runs, quoted for its shell as git quotes it.
pub fn command(path: &str) -> String {
    format!("git-upload-pack {}", quoted(path))
}

/// The command that says where its files of Git LFS are.
pub fn lfs_command(path: &str) -> String {
    let path = path.trim_start_matches('/');
    format!("git-lfs-authenticate {} download", quoted(path))
}

fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''").replace('!', r"'\!'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_git_reads_them() {
        for (text, user, host, port, path) in [
            (
                "ssh://git@host.example/a/b.git",
                "git",
                "host.example",
                0,
                "/a/b.git",
            ),
            ("SSH://git@host:2222/a.git", "git", "host", 2222, "/a.git"),
            ("ssh://git@host:/a.git", "git", "host", 0, "/a.git"),
            ("ssh://git@[::1]:2222/a.git", "git", "::1", 2222, "/a.git"),
            ("ssh://git@[fe80::1]/a.git", "git", "fe80::1", 0, "/a.git"),
            ("ssh://git@host/~ann/a.git", "git", "host", 0, "~ann/a.git"),
            ("ssh://git@host/a%20b?c.git", "git", "host", 0, "/a b?c.git"),
            (
                "git@github.com:acme/hello.git",
                "git",
                "github.com",
                0,
                "acme/hello.git",
            ),
            (
                "git@host:/srv/a%20b.git",
                "git",
                "host",
                0,
                "/srv/a%20b.git",
            ),
            ("git@host:~ann/a.git", "git", "host", 0, "~ann/a.git"),
            ("git@[::1]:a/b.git", "git", "::1", 0, "a/b.git"),
            ("git@[host:2222]:a/b.git", "git", "host", 2222, "a/b.git"),
        ] {
            let expected = Address {
                user: Some(user.into()),
                host: host.into(),
                port: Some(port).filter(|port| *port != 0),
                path: path.into(),
            };
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in [
            "ssh://git@host",
            "ssh://git@host:99999/a",
            "git@host",
            "ssh://-oX/a",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_servers_shell_sees_one_argument() {
        assert_eq!(command("/a b"), "git-upload-pack '/a b'");
        let quoted = command("it's;$(id)`id`!\n");
        assert_eq!(quoted, "git-upload-pack 'it'\\''s;$(id)`id`'\\!'\n'");
    }
}
