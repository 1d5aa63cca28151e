//! How a verb fails: what happened, why, and what to do next.

use std::fmt;
use std::process::ExitCode;

/// A failed verb. Printed as lines with `Error:`, `Caused by:` and `Hint:`; its kind determines the
/// exit code.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    denied: bool,
}

/// Why a verb failed, as scripts see it in the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The deployment, or another requested operation, failed: 1.
    Failed = 1,
    /// Usage or configuration: 2.
    Usage = 2,
    /// The agent cannot be reached: 3.
    Unreachable = 3,
}

impl Error {
    /// What was requested was tried and failed: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The command line, the configuration or this machine is not as it must be: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The agent cannot be reached: exit code 3.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            denied: false,
        }
    }

    /// The operating system refused access: to be run by another user.
    pub fn denied(self) -> Self {
        Self {
            denied: true,
            ..self
        }
    }

    pub fn is_denied(&self) -> bool {
        self.denied
    }

    /// Adds `cause` and its own causes in turn, each as a `Caused by:` line.
    pub fn because(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many libraries repeat the text of their source in their own.
            if !self.causes.last().is_some_and(|last| last.ends_with(&text)) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Adds what to do next; an empty text adds nothing.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Prints the error to stderr and returns the exit code.
    pub fn report(&self) -> ExitCode {
        super::print::error(self);
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\nCaused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nHint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_do_next() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Error::usage("`deploy.toml` cannot be read")
            .because(&cause)
            .hint("make one with `cutover init`");
        assert_eq!(
            error.to_string(),
            "Error: `deploy.toml` cannot be read\n\
             Caused by: no such file\n\
             Hint: make one with `cutover init`"
        );
        assert_eq!(error.kind() as u8, 2);
        let bare = Error::failed("no").hint("");
        assert_eq!(bare.to_string(), "Error: no", "no empty hint");
    }
}
