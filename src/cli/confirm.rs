//! A person's yes to what cannot be undone.

use std::io::{IsTerminal, Write};

use super::Error;

/// Asks on the terminal; an error unless the answer is yes, or if there is nobody to ask.
pub fn confirm(question: &str, without: &str, hint: &str) -> Result<(), Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(without).hint(hint));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(Error::failed("nothing was removed")),
    }
}
