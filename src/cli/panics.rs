//! Logs panics: the location, and no value from run time.
//!
//! The message of a panic may contain text of a call (if a text was cut in the middle of a character) or a key (if an
//! error was unwrapped). A message that is fixed text in the source is logged; one that was formatted at run time is
//! not.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// From now on, panics are logged.
pub(crate) fn to_log() {
    std::panic::set_hook(Box::new(tell));
}

fn tell(info: &PanicHookInfo<'_>) {
    let location = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let backtrace = Backtrace::capture();
    let message = said(info.payload());
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(location, thread, %backtrace, "panicked: {message}"),
        _ => tracing::error!(location, thread, "panicked: {message}; RUST_BACKTRACE=1 shows the backtrace"),
    }
}

fn said(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or(
        "(the message is withheld: it may contain text of a \
        call)",
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const INSIDE: &str = "SIDETONE_TEST_PANICS";
    const SECRET: &str = "sk-oai/7h+Jk=LpQw-ErTyUiOpAs";

    /// The hook belongs to the whole process, so the test runs another process, which panics in a task, as a daemon
    /// would.
    #[test]
    fn panic_of_a_task_is_logged_with_its_place_and_without_values() {
        if std::env::var_os(INSIDE).is_some() {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
            to_log();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            runtime.block_on(async {
                let _ = tokio::spawn(async { panic!("this key is not accepted: {SECRET}") }).await;
                let _ = tokio::spawn(async { panic!("the turn has no number") }).await;
            });
            return;
        }
        let name = "cli::panics::tests::panic_of_a_task_is_logged_with_its_place_and_without_values";
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, "1")
            .env_remove("RUST_BACKTRACE")
            .output()
            .expect("run");
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(told.matches("src/cli/panics.rs:").count(), 2, "{told}");
        assert_eq!(told.matches("the message is withheld").count(), 1, "{told}");
        assert!(told.contains("the turn has no number"), "{told}");
        assert!(!crate::base::secret::repeats(&told, SECRET), "{told}");
    }
}
