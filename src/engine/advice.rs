//! Failures of a container that one sentence explains better than the engine's own words.

use super::EngineError;

const FILE_CAPABILITIES: &str = "the program has file capabilities that the container does not get: \
    remove them in the Dockerfile with `setcap -r`, or list them in `capabilities` under `[apps.NAME.run]`";

const NO_SHELL: &str = "the image has no shell, which commands that are not lists need: write \
    `[\"program\", \"argument\"]`, or give the image a shell";
const NOT_THERE: &str = "the program that is to run is not in the image, or its interpreter is not";

/// What to do about a container that the engine could not create or start.
pub(super) fn of_start(cause: &str) -> Option<&'static str> {
    let cause = cause.to_ascii_lowercase();
    let has = |words: &str| cause.contains(words);
    Some(if has("no command specified") {
        "the image does not say what to run: add `CMD` or `ENTRYPOINT` to the Dockerfile"
    } else if (has("\"/bin/sh\"") || has("exec /bin/sh ")) && has("no such file or directory") {
        NO_SHELL
    } else if has("exec") && has("operation not permitted") {
        FILE_CAPABILITIES
    } else if has("exec format error") {
        "the program was built for another kind of processor than this server's, or begins with no `#!`"
    } else if has("exec") && has("permission denied") {
        "the program is not executable: run `chmod +x` on it in the Dockerfile"
    } else if has("exec") && (has("no such file or directory") || has("not found in $path")) {
        NOT_THERE
    } else {
        return None;
    })
}

const LATER: &str = "the registry is not working or cannot be reached: deploy again later";

/// What to do about a registry that did not tell what an image is, by what Docker passes on of it.
pub fn of_registry(error: &EngineError) -> &'static str {
    of_refusal(error).unwrap_or(
        "check the name and the tag, and that the agent's user has a login to the registry (`docker login`) if it \
         needs one",
    )
}

/// The same, if it is not that the registry lacks the image or a login.
pub fn of_refusal(error: &EngineError) -> Option<&'static str> {
    let cause = match error {
        EngineError::Refused { cause, .. } => cause.to_ascii_lowercase(),
        _ => return Some(LATER),
    };
    let away = [
        "connection refused",
        "no such host",
        "timeout",
        "deadline exceeded",
    ];
    let is_away = away.iter().any(|words| cause.contains(words));
    of_tls(&cause)
        .or_else(|| of_status(&cause))
        .or(is_away.then_some(LATER))
}

/// What to do about a registry that answers, but not now.
pub fn of_status(cause: &str) -> Option<&'static str> {
    let cause = cause.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|words| cause.contains(words));
    if has(&["http 429", "toomanyrequests", "too many requests"]) {
        Some(
            "the registry asks for a pause: deploy again later; with a login (`docker login`) it may allow more",
        )
    } else if has(&[
        "http 50",
        "500 internal server error",
        "502 bad gateway",
        "503 service unavailable",
        "504 gateway time",
    ]) {
        Some(LATER)
    } else {
        None
    }
}

/// What to do about a registry to which the engine could not connect securely.
pub fn of_tls(cause: &str) -> Option<&'static str> {
    let cause = cause.to_ascii_lowercase();
    let has = |words: &str| cause.contains(words);
    Some(
        if has("signed by unknown authority") || has("unknown certificate authority") {
            "Docker does not trust who signed the registry's certificate: put that authority's certificate (for a \
         self-signed one, itself) into `/etc/docker/certs.d/HOST:PORT/ca.crt` on Docker's machine, HOST:PORT as in \
         the image's name, and restart Docker if it still refuses"
        } else if has("server gave http response to https client") {
            "the registry speaks HTTP without TLS: give it a certificate, or add it to `insecure-registries` in \
         /etc/docker/daemon.json on Docker's machine (`systemctl reload docker`)"
        } else if has("certificate has expired") {
            "renew the registry's certificate, or correct the clock of Docker's machine"
        } else if has("x509:") {
            "the registry's certificate is not for the name that the image has: use a name that it is for, or have it \
         issued for this one"
        } else {
            return None;
        },
    )
}

/// What to do about a program that could not be run for a person, by what came in place of its output.
pub fn of_command(head: &[String]) -> Option<&'static str> {
    let first = head.first()?.to_ascii_lowercase();
    let is_ours =
        first.starts_with("oci runtime exec failed") || first.starts_with("[fatal tini (");
    match of_start(&first).filter(|_| is_ours)? {
        NO_SHELL => Some("the image has no shell: name a program that it has, after `--`"),
        NOT_THERE => Some("the program is not in the image, or its interpreter is not"),
        other => Some(other),
    }
}

/// What to do about a program that failed, by its last lines.
pub fn of_output(tail: &[String]) -> Option<&'static str> {
    let lines = || tail.iter().map(|line| line.to_ascii_lowercase());
    let any = |words: &[&str]| lines().any(|line| words.iter().all(|word| line.contains(word)));
    // With an init process, the container starts, and it is the init that cannot run the program.
    if let Some(line) = lines().find(|line| line.starts_with("[fatal tini (")) {
        return of_start(&line);
    }
    Some(
        if any(&["sudo", "no new privileges"]) || any(&["sudo", "setuid root"]) {
            "no program in a container can gain privileges, so `sudo` fails: switch the user with `USER` in \
         the Dockerfile, or do as root what needs root before the server starts"
        } else if any(&["ping", "not permitted"]) || any(&["ping", "permission denied"]) {
            "containers get no raw sockets, so `ping` fails: check a TCP connection instead, or set \
         `capabilities = [\"NET_RAW\"]` under `[apps.NAME.run]`"
        } else if any(&["chroot", "not permitted"]) {
            "containers may not `chroot`: set `capabilities = [\"SYS_CHROOT\"]` under `[apps.NAME.run]`"
        } else if any(&["exec", "operation not permitted"]) {
            FILE_CAPABILITIES
        } else {
            return None;
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_does_not_work_is_not_a_wrong_name() {
        for (cause, expected) in [
            (
                "error parsing HTTP 429 response body: no error details found",
                "a pause",
            ),
            (
                "toomanyrequests: You have reached your pull rate limit",
                "a pause",
            ),
            ("error parsing HTTP 503 response body: {}", "is not working"),
            (
                "received unexpected HTTP status: 500 Internal Server Error",
                "is not working",
            ),
            (
                "Get \"http://127.0.0.1:42900/v2/\": dial tcp: connection refused",
                "is not working",
            ),
            (
                "Get \"http://127.0.0.1:42900/v2/\": unauthorized",
                "`docker login`",
            ),
            ("manifest unknown: manifest unknown", "check the name"),
            (
                "Get \"https://172.17.0.1:5000/v2/\": x509: certificate signed by unknown authority",
                "certs.d",
            ),
            (
                "Get \"https://reg.example/v2/\": x509: certificate has expired or is not yet valid",
                "renew",
            ),
            (
                "Get \"https://reg.example/v2/\": x509: certificate is valid for a.example, not reg.example",
                "not for the name",
            ),
            (
                "Get \"https://reg.example/v2/\": http: server gave HTTP response to HTTPS client",
                "insecure-registries",
            ),
        ] {
            let (what, cause) = ("ask".to_owned(), cause.to_owned());
            let error = EngineError::Refused { what, cause };
            let said = of_registry(&error);
            assert!(said.contains(expected), "{error}: {said}");
        }
        let stopped = EngineError::Stopped("it did not answer".into());
        assert!(of_registry(&stopped).contains("is not working"));
    }

    #[test]
    fn each_known_fault_has_the_one_thing_to_do() {
        let runc = "failed to create shim task: OCI runtime create failed: runc create failed: unable to \
                    start container process: exec: ";
        for (cause, expected) in [
            ("No command specified", "add `CMD`"),
            (
                &*format!("{runc}\"/bin/sh\": stat /bin/sh: no such file or directory: unknown"),
                "has no shell",
            ),
            (
                &*format!("{runc}\"/nope\": stat /nope: no such file or directory: unknown"),
                "is not in the image",
            ),
            (
                &*format!("{runc}\"nope\": executable file not found in $PATH: unknown"),
                "is not in the image",
            ),
            (
                &*format!("{runc}\"/x\": permission denied: unknown"),
                "chmod +x",
            ),
            (
                &*format!("{runc}\"/x\": operation not permitted: unknown"),
                "setcap -r",
            ),
            ("exec /x: exec format error", "another kind of processor"),
        ] {
            let said = of_start(cause).unwrap_or_else(|| panic!("{cause}"));
            assert!(said.contains(expected), "{cause}: {said}");
        }
        assert_eq!(of_start("no space left on device"), None);
        for (line, expected) in [
            (
                "ping: socktype: SOCK_RAW\nping: socket: Operation not permitted",
                "`ping` fails",
            ),
            ("ping: permission denied (are you root?)", "`ping` fails"),
            (
                "chroot: cannot change root directory to '/x': Operation not permitted",
                "`chroot`",
            ),
            (
                "sudo: The \"no new privileges\" flag is set",
                "`sudo` fails",
            ),
            (
                "sudo: effective uid is not 0, is sudo installed setuid root?",
                "`sudo` fails",
            ),
            ("exec /usr/bin/server: operation not permitted", "setcap -r"),
            (
                "[FATAL tini (6)] exec /bin/sh failed: No such file or directory",
                "has no shell",
            ),
            (
                "[FATAL tini (6)] exec /nope failed: No such file or directory",
                "is not in the image",
            ),
            (
                "[FATAL tini (6)] exec /x failed: Permission denied",
                "chmod +x",
            ),
        ] {
            let tail: Vec<_> = line.lines().map(str::to_owned).collect();
            let said = of_output(&tail).unwrap_or_else(|| panic!("{line}"));
            assert!(said.contains(expected), "{line}: {said}");
        }
        assert_eq!(
            of_output(&["open /x: operation not permitted".to_owned()]),
            None
        );
    }
}
