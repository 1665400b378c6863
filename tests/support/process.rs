//! Commands of the binary, run to their end, and what a process uses.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::daemon::binary;

/// The command that runs another one as this user, without groups.
pub fn user_prefix(uid: u32) -> Vec<String> {
    ["setpriv".to_owned(), format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()].to_vec()
}

/// Resident memory of a process in bytes.
pub fn rss_of(pid: u32) -> u64 {
    memory_of(pid, "VmRSS:")
}

/// Peak resident memory of a process so far, in bytes.
pub fn peak_rss_of(pid: u32) -> u64 {
    memory_of(pid, "VmHWM:")
}

/// A figure of `/proc/PID/status`, in bytes.
pub fn memory_of(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPU time of a process, user and system, in steps of the kernel's clock tick (10 ms).
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field, in brackets, may contain spaces: count after it.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Runs a subcommand to its end.
pub async fn run(args: &[&str]) -> std::process::Output {
    run_with(args, &[]).await
}

/// The same with variables in its environment.
pub async fn run_with(args: &[&str], env: &[(&str, &str)]) -> std::process::Output {
    let env: Vec<(String, String)> = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let args: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        Command::new(binary()).args(&args).envs(env).stdin(Stdio::null()).output().expect("run the binary")
    })
    .await
    .expect("join")
}
