//! The mistakes in a deploy.toml, all of them at once, in the format that compilers use.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake: where it is, what is there, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, both from 1, the column in characters. `None`: the file as a whole.
    pub at: Option<(usize, usize)>,
    /// One sentence, on one line.
    pub text: String,
}

/// Every mistake in one file, displayed one per line as `file:line:column: text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    pub file: PathBuf,
    /// At least one, in file order.
    pub list: Vec<Problem>,
}

impl Problems {
    pub(super) fn whole_file(file: &Path, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            file: file.to_owned(),
            list: vec![Problem { at: None, text }],
        }
    }

    /// Sorts by position and removes duplicates; a value that is wrong in two ways keeps both
    /// lines.
    pub(super) fn sorted(file: &Path, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.at);
        list.dedup();
        Self {
            file: file.to_owned(),
            list,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Problem { at, text }) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some((line, column)) = at {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {text}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
