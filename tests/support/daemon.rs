//! The real binary as a process: started on a free port, killed on drop, restarted on the same port.

pub use super::process::{cpu_of, peak_rss_of, rss_of, run, run_with, user_prefix};

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::http::{self, Reply};
use super::{Json, PATIENCE, eventually};

/// Limits that only the tests of limits reach.
pub const WIDE_LIMITS: &str = "
[limits]
connections = 60000
per_address = 60000
open_calls = 60000
new_calls_per_s = 60000
";

/// For configurations whose endpoints are only for clients: analyses use no model.
pub const LOCAL_ANALYSES: &str = "
[analyses.summary]
route = \"local\"
[analyses.sentiment]
route = \"local\"
[analyses.sentiment_turn]
route = \"local\"
";

/// The binary under test: this build's, or the one that `SIDETONE_TEST_BINARY` names (an older version on which a test
/// must fail).
pub fn binary() -> PathBuf {
    other_binary().unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sidetone")))
}

fn other_binary() -> Option<PathBuf> {
    std::env::var_os("SIDETONE_TEST_BINARY").map(PathBuf::from)
}

/// The daemon, running or not.
pub struct Daemon {
    binary: PathBuf,
    child: Option<Child>,
    /// The folder of the configuration, the journal and stderr.
    pub dir: PathBuf,
    _owned: Option<TempDir>,
    /// The port, which stays the same after restarts.
    pub port: u16,
    prefix: Vec<String>,
    env: Vec<(String, String)>,
    /// Time from the spawn to the first line, at the newest start.
    pub start_took: Duration,
}

/// A port that is reserved for this process until it ends: no other test gets it while nothing listens there, and no
/// outgoing connection uses it by chance (it is below the ephemeral range).
pub fn free_port() -> u16 {
    /// UDP sockets with the same port numbers, which nothing else needs: the process that holds one has reserved the
    /// number.
    static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    loop {
        let port = 12_000 + rand::random::<u16>() % 18_000;
        let Ok(held) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            HELD.lock().expect("lock").push(held);
            return port;
        }
    }
}

impl Daemon {
    /// Starts the daemon with `config` in a temporary folder. If `config` has no `[storage]`, `[storage] dir` is added.
    pub async fn start(config: &str) -> Self {
        let owned = tempfile::tempdir().expect("temporary folder");
        let mut daemon = Self::prepare(config, owned.path());
        daemon._owned = Some(owned);
        daemon.up().await;
        daemon
    }

    /// Starts the daemon with `config` in `dir`.
    pub async fn start_in(config: &str, dir: &Path) -> Self {
        let mut daemon = Self::prepare(config, dir);
        daemon.up().await;
        daemon
    }

    /// Prepares everything without starting the daemon.
    pub fn prepare(config: &str, dir: &Path) -> Self {
        let daemon = Self {
            binary: binary(),
            child: None,
            dir: dir.to_owned(),
            _owned: None,
            port: free_port(),
            prefix: Vec::new(),
            env: Vec::new(),
            start_took: Duration::ZERO,
        };
        daemon.configure(config);
        daemon
    }

    /// Runs the daemon under `prefix` (such as `taskset -c 0`).
    pub fn under(mut self, prefix: &[&str]) -> Self {
        self.prefix = prefix.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Runs the daemon as another user, who becomes the owner of its folder. Needs root and `setpriv`.
    pub fn run_by(mut self, uid: u32) -> Self {
        std::os::unix::fs::chown(&self.dir, Some(uid), Some(uid)).expect("give the folder away");
        // If other users cannot enter the build's folder, a copy of the binary is used.
        let open = |at: &Path| std::fs::metadata(at).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
        if !self.binary.ancestors().all(open) {
            let copy = self.dir.join("sidetone");
            std::fs::copy(&self.binary, &copy).expect("copy the binary");
            self.binary = copy;
        }
        let prefix = user_prefix(uid);
        self.under(&prefix.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs another binary.
    pub fn with_binary(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// The binary that the daemon runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Sets a variable of the daemon's environment.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the configuration in one step: a running daemon must not read half of it.
    pub fn configure(&self, config: &str) {
        let mut text = config.to_owned();
        if !text.contains("[storage]") {
            // An older binary may know the folder only by its old key.
            let section = if other_binary().is_some() && !text.contains("[journal]") { "journal" } else { "storage" };
            text.push_str(&format!("\n[{section}]\ndir = {:?}\n", self.dir.join("journal").display().to_string()));
        }
        let fresh = self.dir.join("sidetone.toml.new");
        std::fs::write(&fresh, text).expect("write configuration");
        std::fs::rename(fresh, self.config_path()).expect("put the configuration in its place");
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("sidetone.toml")
    }

    /// Starts the daemon and waits for its first line.
    pub async fn up(&mut self) {
        let begun = Instant::now();
        let first = self.spawn();
        let line = tokio::time::timeout(PATIENCE, first).await;
        let line = line.ok().and_then(Result::ok).unwrap_or_default();
        self.start_took = begun.elapsed();
        let expected = format!("listening on http://127.0.0.1:{}", self.port);
        assert_eq!(line.trim_end(), expected, "first line of stdout; stderr: {}", self.stderr_tail());
    }

    /// Starts the daemon; the receiver gets its first line.
    pub fn spawn(&mut self) -> tokio::sync::oneshot::Receiver<String> {
        assert!(self.child.is_none(), "it runs already");
        let stderr =
            File::options().create(true).append(true).open(self.dir.join("stderr")).expect("open file for stderr");
        let mut words: Vec<String> = self.prefix.clone();
        words.push(self.binary.display().to_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["serve", "--config"])
            .arg(self.config_path())
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        let mut child = command.spawn().expect("start the binary");
        let stdout = child.stdout.take().expect("stdout is piped");
        self.child = Some(child);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut first = String::new();
            let _ = lines.read_line(&mut first);
            let _ = sender.send(first);
            // Further lines are read and dropped, so that the pipe never fills.
            let _ = std::io::copy(&mut lines, &mut std::io::sink());
        });
        receiver
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGKILL, then a new start on the same port.
    pub async fn restart(&mut self) {
        self.kill9();
        self.up().await;
    }

    /// Sends SIGTERM.
    pub fn sigterm(&self) {
        let pid = Pid::from_raw(self.pid() as i32).expect("pid");
        kill_process(pid, Signal::TERM).expect("send SIGTERM");
    }

    /// Sends SIGINT.
    pub fn sigint(&self) {
        let pid = Pid::from_raw(self.pid() as i32).expect("pid");
        kill_process(pid, Signal::INT).expect("send SIGINT");
    }

    /// Sends SIGHUP.
    pub fn sighup(&self) {
        let pid = Pid::from_raw(self.pid() as i32).expect("pid");
        kill_process(pid, Signal::HUP).expect("send SIGHUP");
    }

    /// Everything that the daemon wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    /// Waits for the end, at most `within`.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let child = std::cell::RefCell::new(self.child.as_mut().expect("it runs"));
        let status = eventually("the daemon ends", within, || {
            let status = child.borrow_mut().try_wait().expect("wait");
            async move { status }
        })
        .await;
        self.child = None;
        status
    }

    /// Returns true if the process runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `ws://127.0.0.1:PORT` and `path`.
    pub fn ws(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Reply {
        http::request(self.port, "GET", path, &[], None).await
    }

    /// `GET path`, which must be 200 and JSON.
    pub async fn get_json(&self, path: &str) -> Json {
        let reply = self.get(path).await;
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.text());
        reply.json()
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Json) -> Reply {
        http::request(self.port, "POST", path, &[("content-type", "application/json")], Some(body.to_string())).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Reply {
        http::request(self.port, "DELETE", path, &[], None).await
    }

    /// All turns of a call, over all pages.
    pub async fn turns(&self, call: &str) -> Vec<Json> {
        let mut turns = Vec::new();
        let mut path = format!("/v1/calls/{call}/turns");
        loop {
            let page = self.get_json(&path).await;
            turns.extend(page["turns"].as_array().expect("turns").iter().cloned());
            match &page["next"] {
                Json::Null => return turns,
                Json::String(next) => path = format!("/v1/calls/{call}/turns?after={next}"),
                next => path = format!("/v1/calls/{call}/turns?after={next}"),
            }
        }
    }

    /// All events of a call, over all pages.
    pub async fn events(&self, call: &str) -> Vec<Json> {
        let mut events: Vec<Json> = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get_json(&format!("/v1/calls/{call}/events?after={after}")).await;
            events.extend(page["events"].as_array().expect("events").iter().cloned());
            match page["next_after"].as_u64() {
                None => return events,
                Some(next) => {
                    assert!(next > after, "next_after must rise");
                    after = next;
                }
            }
        }
    }

    /// Waits until the call is completed, at most `within`.
    pub async fn completed(&self, call: &str, within: Duration) -> Json {
        eventually(&format!("call {call} is completed"), within, || async {
            let reply = self.get(&format!("/v1/calls/{call}")).await;
            (reply.status == 200).then(|| reply.json()).filter(|call| call["state"] == "completed")
        })
        .await
    }

    /// Sum of a metric's samples whose line contains all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").await.text();
        text.lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        rss_of(self.pid())
    }

    /// Resident memory that belongs to no file, in bytes.
    pub fn anonymous_memory(&self) -> u64 {
        super::process::memory_of(self.pid(), "RssAnon:")
    }

    /// CPU time so far (user and system).
    pub fn cpu(&self) -> Duration {
        cpu_of(self.pid())
    }

    /// The end of what the daemon wrote to stderr.
    pub fn stderr_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            println!("--- the daemon's stderr, last lines\n{}\n---", self.stderr_tail());
        }
    }
}
