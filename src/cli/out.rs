//! The commands' standard output: a write that fails (as on a full disk) is an error like any other, but a reader that
//! has closed the pipe (as `head` does) is not. Knows no command.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

/// Writes a line to standard output, like `println!`, with colours only where they are wanted.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// Writes a line; see [`say!`].
///
/// # Errors
/// The line cannot be written, for another reason than that nobody reads it.
pub(crate) fn line(text: fmt::Arguments<'_>) -> Result<()> {
    written(writeln!(anstream::stdout().lock(), "{text}"))
}

/// Writes text that consists of complete lines.
///
/// # Errors
/// As [`line`].
pub(crate) fn lines(text: &str) -> Result<()> {
    written(anstream::stdout().lock().write_all(text.as_bytes()))
}

/// Checks the result of a write to standard output; a closed pipe counts as success.
///
/// # Errors
/// As [`line`].
pub(crate) fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_output_is_no_error_and_a_full_disk_is() {
        assert!(written(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let full = written(Err(io::ErrorKind::StorageFull.into())).expect_err("full");
        assert!(format!("{full:#}").starts_with("cannot write to standard output: "), "{full:#}");
    }
}
