//! The binary: everything is in the library.

use std::process::ExitCode;

/// A daemon of many small, short-lived texts: a seventh of its time went to the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sidetone::cli::main()
}
