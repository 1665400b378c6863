//! Measures speed and memory of the daemon, compared with a floor, a minimal program with the same task: WebSocket in,
//! one HTTP call to an instant LLM, WebSocket out; no context, no journal.
//!
//! The load is open-loop: turns have due times, and latency counts from them, so that no stall hides. The daemon, the
//! floor and the LLM are processes of their own; this binary starts itself again for the latter two.
//!
//! `cargo bench --bench pipeline [-- --long] [-- ROW…]`, rows: `one hundred thousand capacity memory ack digests fanout`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod compaction;
mod load;
mod roles;
mod rows;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(position) = args.iter().position(|arg| arg == "--role") {
        roles::run(&args[position + 1..]);
        return;
    }
    let long = args.iter().any(|arg| arg == "--long");
    let only: Vec<&str> = args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(rows::all(long, &only));
}
