//! Why `ssh` ended before the fetch did.

use std::process::ExitStatus;

use crate::source::resolve::line;

/// What an ended `ssh` means.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It, or git on the server, says why.
    Broken(String),
    /// The server does not accept the key, or wants one; with what `ssh` says of the key.
    Denied(Option<String>),
    /// The server's key is not the expected one.
    Unknown,
}

/// `ssh`'s own exit code; any other is that of the command on the server.
const OWN: i32 = 255;

pub fn why(status: ExitStatus, said: &str) -> Ended {
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let last = lines.last().copied();
    let shown = |text: &str| line(text.strip_prefix("fatal: ").unwrap_or(text));
    if status.code() == Some(OWN) {
        if lines.contains(&"Host key verification failed.") {
            return Ended::Unknown;
        }
        if last.is_some_and(|last| last.contains(": Permission denied (")) {
            let of_key = |l: &&&str| l.starts_with("Load key ") || l.contains("Identity file ");
            let of_key = lines.iter().find(of_key);
            return Ended::Denied(of_key.map(|text| line(text)));
        }
        return Ended::Broken(match last {
            Some(last) => shown(last),
            None => "`ssh` ended without a word".into(),
        });
    }
    let of_git = |l: &&&str| l.starts_with("fatal: ") || l.contains("ERROR: ");
    Ended::Broken(match lines.iter().find(of_git).copied().or(last) {
        Some(text) => shown(text),
        None => match status.code() {
            Some(127) => "its shell does not find `git-upload-pack`: install git there".into(),
            _ => format!("`git-upload-pack` ended early there ({status})"),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn what_ssh_says_is_understood() {
        let broken = |text: &str| Ended::Broken(text.into());
        for (code, said, expected) in [
            (
                255,
                "No ED25519 host key is known for [127.0.0.1]:22 and you have requested strict checking.\r\n\
                 Host key verification failed.\r\n",
                Ended::Unknown,
            ),
            (
                255,
                "git@example.com: Permission denied (publickey).\r\n",
                Ended::Denied(None),
            ),
            (
                255,
                "Load key \"/k\": error in libcrypto\r\ngit@h: Permission denied (publickey).\r\n",
                Ended::Denied(Some("Load key \"/k\": error in libcrypto".into())),
            ),
            (
                255,
                "ssh: connect to host 127.0.0.1 port 1: Connection refused\r\n",
                broken("ssh: connect to host 127.0.0.1 port 1: Connection refused"),
            ),
            (255, "", broken("`ssh` ended without a word")),
            (
                128,
                "fatal: '/nowhere.git' does not appear to be a git repository\n",
                broken("'/nowhere.git' does not appear to be a git repository"),
            ),
            (
                1,
                "remote: \nremote: ====\nremote: ERROR: The project was not found.\nremote: \nremote: ====\n",
                broken("remote: ERROR: The project was not found."),
            ),
            (
                1,
                "ERROR: Repository not found.\n",
                broken("ERROR: Repository not found."),
            ),
            (
                127,
                "",
                broken("its shell does not find `git-upload-pack`: install git there"),
            ),
            // What a server says is only shown.
            (
                1,
                "Host key verification failed.\n",
                broken("Host key verification failed."),
            ),
        ] {
            let status = ExitStatus::from_raw(code << 8);
            assert_eq!(why(status, said), expected, "{code} {said}");
        }
    }
}
