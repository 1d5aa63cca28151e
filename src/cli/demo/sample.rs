//! The sample app of the demo and the tests, ready to be committed.

use crate::cli::Error;

/// The static binary that `build.rs` built from `examples/hello`; empty if it could not.
const BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));

const DOCKERFILE: &str = "\
FROM scratch
COPY hello version behaviour /
EXPOSE 8080
# The worst case for a switch: docker stop ends the app at once, in the middle of its requests.
STOPSIGNAL SIGKILL
ENTRYPOINT [\"/hello\"]
";

/// One file of a commit.
#[derive(Debug, Clone)]
pub struct File {
    pub path: String,
    pub bytes: Vec<u8>,
    /// The mode as git stores it: 0o100644 for a file, 0o100755 for a program, 0o120000 for a symbolic
    /// link.
    pub mode: u32,
}

impl File {
    pub fn new(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.to_owned(),
            bytes: bytes.into(),
            mode: 0o100_644,
        }
    }
}

/// The files of a sample app that reports `version` as its version and behaves as `behaviour` says
/// (`examples/hello/src/main.rs` lists the possible lines; empty: as it should).
pub fn files(version: &str, behaviour: &str) -> Result<Vec<File>, Error> {
    if BINARY.is_empty() {
        return Err(Error::usage(
            "this `cutover` was built without its sample app, which must be linked statically",
        )
        .hint(
            "on Debian or Ubuntu: run `apt-get install libc6-dev`, touch build.rs and build again",
        ));
    }
    Ok(vec![
        File::new("Dockerfile", DOCKERFILE),
        File::new("behaviour", behaviour),
        File {
            mode: 0o100_755,
            ..File::new("hello", BINARY)
        },
        File::new("version", version),
    ])
}
