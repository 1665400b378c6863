//! Processes under test: started, measured, and killed on drop.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A child that listens on a loopback port.
pub struct Process {
    child: Child,
    pub port: u16,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Runs this binary in another role, which prints its port.
    pub fn role(core: Option<u8>, args: &[&str]) -> Self {
        let own = std::env::current_exe().expect("own path").display().to_string();
        let mut words = vec![own.as_str(), "--role"];
        words.extend(args);
        Self::spawn(core, &words, None)
    }

    /// The daemon, with `config` and a journal of its own.
    pub fn daemon(core: Option<u8>, config: &str) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("sidetone.toml");
        let journal = format!("\n[journal]\ndir = {:?}\n", dir.path().join("journal").display().to_string());
        std::fs::write(&file, config.to_owned() + &journal).expect("write configuration");
        let file = file.display().to_string();
        let words = [env!("CARGO_BIN_EXE_sidetone"), "serve", "--config", &file, "--listen", "127.0.0.1:0"];
        Self::spawn(core, &words, Some(dir))
    }

    fn spawn(core: Option<u8>, words: &[&str], dir: Option<tempfile::TempDir>) -> Self {
        let core = core.map(|core| core.to_string());
        let mut all: Vec<&str> = Vec::new();
        if let Some(core) = &core {
            all.extend(["taskset", "-c", core]);
        }
        all.extend(words);
        let mut child = Command::new(all[0])
            .args(&all[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("BENCH_STDERR").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", all[0]));
        let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("its first line");
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{words:?} said {line:?}"));
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, port, _dir: dir }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// See [`cpu`].
    pub fn cpu(&self) -> Duration {
        cpu(self.pid())
    }

    /// See [`rss`].
    pub fn rss(&self) -> u64 {
        rss(self.pid())
    }
}

/// CPU time of a process so far, by the scheduler's clock (ns), over all its live threads.
pub fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    let ns: u64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    if ns > 0 {
        return Duration::from_nanos(ns);
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Resident memory of a process in bytes.
pub fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
