//! Failures of a build that one sentence explains better than the builder's own words.

use crate::engine::advice::{of_status, of_tls};

/// What to do about a failing step, if its cause is recognised. `text` is the builder's message and the
/// last lines of the step.
pub(super) fn advice(step: &str, text: &str) -> Option<&'static str> {
    let all = format!("{step}\n{text}").to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().all(|word| all.contains(word));
    let any = |words: &[&str]| words.iter().any(|word| all.contains(word));
    let unreachable = any(&UNREACHABLE);
    let of_registry = any(&[
        "failed to do request",
        "failed to fetch",
        "load metadata for",
    ]);
    if let Some(advice) = of_tls(&all).filter(|_| of_registry) {
        return Some(advice);
    }
    let of_base = step.contains("load metadata for ") || step.contains("] FROM ");
    let of_frontend = step.starts_with(FRONTEND);
    Some(if is_engines_network(&all) {
        "the fault is in Docker's network on the server, not in the commit: restart Docker \
         (`systemctl restart docker`), then run `cutover deploy APP`"
    } else if of_frontend && unreachable {
        "the Dockerfile's `# syntax=` line makes the builder fetch its parser from a registry that it \
         cannot reach: delete the line; or set `frontends = \"builtin\"` under `[apps.NAME.build]` in deploy.toml, \
         with which Docker's own parser reads every Dockerfile; or put the image on the server with `docker load`"
    } else if let Some(later) = of_status(&all).filter(|_| of_base || of_frontend) {
        later
    } else if of_frontend {
        "the registry does not give out the parser that the Dockerfile's `# syntax=` line names: correct or delete \
         the line; or set `frontends = \"builtin\"` under `[apps.NAME.build]` in deploy.toml, with which Docker's \
         own parser reads every Dockerfile"
    } else if is_newer_flag(&all) {
        "this Docker is too old for the flag: update Docker on the server, remove the flag, or begin the \
         Dockerfile with `# syntax=docker/dockerfile:1`"
    } else if has(&["unknown instruction", "<<"]) {
        "this Docker is too old for here-documents (`<<EOF`): update Docker on the server to 23 or newer, \
         join the lines with `&& \\`, or begin the Dockerfile with `# syntax=docker/dockerfile:1`"
    } else if has(&["target stage", "could not be found"]) {
        "the Dockerfile has no stage of this name: correct `target` under `[apps.NAME.build]` or `[apps.NAME.test]` in \
         deploy.toml, or give a stage this name (`FROM … AS NAME`)"
    } else if has(&["file with no instructions"]) || has(&["cannot be empty", "dockerfile"]) {
        "the Dockerfile has no instructions: write them, the first of them `FROM`"
    } else if has(&["base name", "should not be blank"]) {
        "`FROM` uses an `ARG` that has no value: give it a default before the first `FROM` \
         (`ARG BASE=debian:12`), or a value in `build.args` in deploy.toml"
    } else if any(&[
        "no match for platform",
        "does not match the specified platform",
    ]) {
        "the base image is not made for this platform: use one that is, or set `build.platform` to one that it is \
         made for and that this server can run"
    } else if of_base
        && any(&[
            "401 unauthorized",
            "403 forbidden",
            "denied",
            "authorization",
            "credentials",
        ])
    {
        "the registry does not give the image to this login: run `docker login` as the agent's user, with an account \
         that may pull it, and check the image's name"
    } else if of_base && has(&["not found"]) {
        "the registry has no image of this name with this tag or digest: correct the name, or push the image \
         there (again, if its digest was deleted)"
    } else if has(&["exec format error"]) {
        "the step's program is for another kind of processor than this server's: use a base image for this one, and \
         build what is copied in for it"
    } else if (has(&["copy "]) || has(&["add "])) && has(&["not found"]) && !has(&["exit code"]) {
        "the file is not in the build's context: commit it, write its path from `build.context` (without `../`), or \
         take it out of .dockerignore"
    } else if any(&[
        "unknown instruction",
        "no build stage in current context",
        "dockerfile parse error",
    ]) {
        "correct the Dockerfile's line and push again"
    } else if (has(&["secret"]) && has(&[": not found"]))
        || (has(&["type=secret"]) && any(&["no such file", "can't open", "cannot open"]))
    {
        "give the build the secret under `[apps.NAME.build]` in deploy.toml: \
         `secrets = { ID = { file = \"PATH\" } }`, or `{ env = \"NAME\" }`"
    } else if any(&["unset ssh forward key", "no ssh handler", "no ssh key"])
        || (has(&["type=ssh"]) && any(&["permission denied", "could not open a connection"]))
    {
        "give the build the key under `[apps.NAME.build]` in deploy.toml: \
         `ssh = { default = { file = \"PATH\" } }`, or an SSH agent's socket, `{ env = \"SSH_AUTH_SOCK\" }`; \
         and check that the server asked accepts it"
    } else if has(&["host key verification failed"]) {
        "the image does not know the server's key: `COPY` a known_hosts file to `/etc/ssh/ssh_known_hosts` \
         before the step"
    } else if has(&["/bin/sh", "no such file or directory"])
        && any(&["exec: ", "exec \"", "stat /bin/sh"])
    {
        "the image has no shell at this step: write the command as a list, `RUN [\"program\", \"argument\"]`, \
         or start from an image with a shell"
    } else if any(&[
        "failed to resolve source metadata",
        "load metadata for",
        "from ",
    ]) && unreachable
    {
        "the base image is not on this server, or a newer one is asked for (`--pull`, `build.pull = \"always\"`), and its \
         registry cannot be reached: check the server's DNS and network, do not ask for a newer one, or load the image \
         with `docker load`; if a stage is meant, correct its name"
    } else if has(&["network.host is not allowed"]) {
        "a step wants the server's own network: set `network = \"host\"` under `[apps.NAME.build]` in deploy.toml"
    } else if is_of_full_disk(&all) {
        "the disk of Docker became full: make room (`docker system df` says what takes it, `cutover gc` finds what is \
         left over, `docker.build_cache` bounds what builds keep), or have the step write less"
    } else if any(&["exit code: 137", "exit status 137"]) {
        "the step was killed, as happens when memory runs out: have it take less (fewer jobs at once), raise \
         `docker.build_memory` if it is set, or build on a machine that has more"
    } else if any(&NO_NETWORK) {
        "the step could not reach the network: check the server's DNS and internet access, then run \
         `cutover deploy APP`"
    } else {
        return None;
    })
}

/// Flags of instructions that newer versions of Docker have.
const NEWER_FLAGS: [&str; 8] = [
    "checksum",
    "chmod",
    "exclude",
    "keep-git-dir",
    "link",
    "parents",
    "start-interval",
    "unpack",
];

/// Whether the builder does not know a flag that a newer one does.
fn is_newer_flag(text: &str) -> bool {
    let flag = text.split_once("unknown flag: ").map(|(_, flag)| flag);
    // Newer builders write it with its dashes.
    let flag = flag.map(|flag| flag.trim_start_matches('-'));
    let flag = flag.and_then(|flag| {
        flag.split(|c: char| c != '-' && !c.is_alphanumeric())
            .next()
    });
    flag.is_some_and(|flag| NEWER_FLAGS.contains(&flag))
}

/// How the builder calls the step that asks for the program that is to read the Dockerfile.
const FRONTEND: &str = "resolve image config for ";

/// How the builder, or whoever waits for it, says that it could not reach a registry.
const UNREACHABLE: [&str; 10] = [
    "has not answered",
    "dial tcp",
    "no such host",
    "i/o timeout",
    "connection refused",
    "network is unreachable",
    "server misbehaving",
    "tls handshake timeout",
    "context deadline exceeded",
    "temporary failure in name resolution",
];

/// How programs say that they could not reach anything.
const NO_NETWORK: [&str; 9] = [
    "temporary failure resolving",
    "temporary failure in name resolution",
    "could not resolve host",
    "bad address '",
    "network is unreachable",
    "getaddrinfo eai_again",
    "getaddrinfo enotfound",
    "name or service not known",
    "could not resolve proxy",
];

/// Whether the disk was full.
pub(super) fn is_of_full_disk(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["no space left on device", "disk quota exceeded"]
        .iter()
        .any(|words| lower.contains(words))
}

/// Whether the engine failed to give the step a network at all.
pub(super) fn is_engines_network(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    [
        "network bridge not found",
        "failed to set up container networking",
        "failed to create endpoint",
        "error creating network namespace",
        "failed to add the host",
        "failed to add interface",
        "unable to enable nat rule",
        "iptables failed",
        "could not find an available, non-overlapping",
        "failed to program",
        "network sandbox",
    ]
    .iter()
    .any(|words| lower.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_fault_has_the_one_thing_to_do() {
        for (step, text, expected) in [
            (
                "resolve image config for docker.io/docker/dockerfile:1",
                "failed to do request: Head \"https://registry-1.docker.io/v2/docker/dockerfile/manifests/1\": \
                 dial tcp: lookup registry-1.docker.io: no such host",
                "delete the line; or set `frontends",
            ),
            (
                "resolve image config for docker.io/docker/dockerfile:9",
                "docker.io/docker/dockerfile:9: not found",
                "correct or delete the line; or set `frontends",
            ),
            (
                "[internal] load metadata for docker.io/library/node:22",
                "the registry has not answered for 120 s",
                "the base image is not on this server",
            ),
            (
                "the Dockerfile",
                "dockerfile parse error line 3: Unknown flag: link",
                "remove the flag",
            ),
            (
                "the Dockerfile",
                "dockerfile parse error on line 3: unknown flag: --parents (did you mean …?)",
                "remove the flag",
            ),
            (
                "the Dockerfile",
                "dockerfile parse error on line 3: unknown flag: --lnik (did you mean link?)",
                "correct the Dockerfile's line",
            ),
            (
                "the Dockerfile",
                "target stage \"nope\" could not be found",
                "correct `target`",
            ),
            (
                "the Dockerfile",
                "dockerfile parse error line 4: unknown instruction: ECHO (in RUN <<EOF)",
                "here-documents",
            ),
            (
                "the Dockerfile",
                "dockerfile parse error line 1: unknown instruction: FRM",
                "correct the Dockerfile's line",
            ),
            (
                "RUN --mount=type=secret,id=npmrc,required=true cat /run/secrets/npmrc",
                "secret npmrc: not found",
                "give the build the secret",
            ),
            (
                "RUN --mount=type=ssh git clone git@example.com:x",
                "unset ssh forward key default",
                "give the build the key",
            ),
            (
                "RUN --mount=type=ssh git clone git@example.com:x",
                "git@example.com: Permission denied (publickey).",
                "give the build the key",
            ),
            (
                "RUN --mount=type=ssh git clone git@example.com:x",
                "Host key verification failed.",
                "does not know the server's key",
            ),
            (
                "RUN make",
                "runc run failed: exec: \"/bin/sh\": stat /bin/sh: no such file or directory: unknown",
                "has no shell",
            ),
            (
                "RUN apt-get update",
                "Temporary failure resolving 'deb.debian.org'",
                "the step could not reach the network",
            ),
            (
                "the Dockerfile",
                "failed to load LLB: network.host is not allowed",
                "set `network = ",
            ),
            (
                "RUN make",
                "failed to create endpoint x on network bridge: operation not supported",
                "restart Docker",
            ),
            (
                "[internal] load metadata for docker.io/library/node:22",
                "failed to do request: Head: dial tcp: lookup registry-1.docker.io: no such host",
                "the base image is not on this server",
            ),
            (
                "[internal] load metadata for 172.17.0.1:5000/hello:1",
                "failed to do request: Head: x509: certificate signed by unknown authority",
                "certs.d",
            ),
            (
                "[internal] load metadata for 127.0.0.1:5000/x:1",
                "pulling from host 127.0.0.1:5000 failed with status code [manifests 1]: 401 Unauthorized",
                "`docker login`",
            ),
            (
                "[internal] load metadata for docker.io/library/x:1",
                "pull access denied, repository does not exist or may require authorization: server message: \
                 insufficient_scope: authorization failed",
                "`docker login`",
            ),
            (
                "[internal] load metadata for 127.0.0.1:5000/x@sha256:00",
                "127.0.0.1:5000/x@sha256:00: not found",
                "its digest was deleted",
            ),
            (
                "[internal] load metadata for 127.0.0.1:5000/x:1",
                "pulling from host 127.0.0.1:5000 failed with status code [manifests 1]: 429 Too Many Requests",
                "asks for a pause",
            ),
            (
                "[internal] load metadata for 127.0.0.1:5000/x:1",
                "pulling from host 127.0.0.1:5000 failed with status code [manifests 1]: 500 Internal Server Error",
                "deploy again later",
            ),
            ("RUN make -j", "exit code: 137", "memory runs out"),
            (
                "RUN make",
                "dd: error writing '/x': No space left on device",
                "make room",
            ),
            (
                "the Dockerfile",
                "file with no instructions",
                "no instructions",
            ),
            (
                "the Dockerfile",
                "base name (${BASE}) should not be blank",
                "`build.args`",
            ),
            (
                "[3/3] COPY v /index.html",
                "\"/v\" not found: not found",
                ".dockerignore",
            ),
            (
                "[2/2] COPY a /a",
                "failed to calculate checksum of ref x::y: \"/a\": not found",
                ".dockerignore",
            ),
            (
                "[internal] load metadata for docker.io/library/x:1",
                "no match for platform in manifest: not found",
                "`build.platform`",
            ),
            (
                "RUN make",
                "exec /bin/sh: exec format error",
                "another kind of processor",
            ),
        ] {
            let said = advice(step, text).unwrap_or_else(|| panic!("{step} {text}"));
            assert!(said.contains(expected), "{step} {text}: {said}");
        }
        for text in [
            "exit code: 1",
            "error: cannot find crate `x`",
            "E: Failed to fetch http://deb.example/x 403 Forbidden",
            "curl: (22) The requested URL returned error: 503 Service Unavailable",
        ] {
            assert_eq!(advice("RUN make", text), None);
        }
    }
}
