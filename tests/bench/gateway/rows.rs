//! The rows of the table: windows against the mock itself and against each gateway, in turn; medians over the rounds.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::client::{Connection, Stamp};
use super::common::percentile;
use super::common::process::{self, Process};
use super::mock::now;
use super::target::Target;
use super::windows::{Window, millis};

/// If an abandoned request still runs after this time, the target is assumed never to abort requests.
const NEVER: Duration = Duration::from_secs(2);

pub struct Bench {
    /// All targets; the mock is the first.
    pub(super) targets: Vec<Target>,
    pub(super) rounds: usize,
    _processes: Vec<Process>,
}

fn config(port: u16) -> String {
    format!(
        "[endpoints.mock]\nprovider = \"openai\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\n\
         prices = [{{ model = \"*\", input = 0.40, cached = 0.10, output = 1.60 }}]\n\
         [models.mocked]\ncandidates = [\"mock/m\"]\n"
    )
}

impl Bench {
    pub async fn start(cores: Option<(u8, u8)>, third: bool, port: &str, peers: Vec<Target>, rounds: usize) -> Self {
        let mock = Process::role(cores.map(|(_, own)| if third { own + 1 } else { own }), &["mock", port]);
        let [pipe, relay] = ["pipe", "relay"]
            .map(|role| Process::role(cores.map(|(gateway, _)| gateway), &[role, &mock.port.to_string()]));
        let daemon = Process::daemon(cores.map(|(gateway, _)| gateway), &config(mock.port));
        let target = |name: &str, port: u16, pid: Option<u32>| Target {
            name: name.to_owned(),
            port,
            pid,
            path: "/v1/chat/completions".to_owned(),
            model: "mocked".to_owned(),
            key: None,
            idle: pid.map_or(0, process::rss),
        };
        // The daemon prints its first lines before all of it runs.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut targets = vec![
            target("direct", mock.port, None),
            target("bare pipe", pipe.port, Some(pipe.pid())),
            target("bare relay", relay.port, Some(relay.pid())),
            target("sidetone", daemon.port, Some(daemon.pid())),
        ];
        targets.extend(peers);
        Self { targets, rounds, _processes: vec![mock, pipe, relay, daemon] }
    }

    pub async fn rows(&self, only: &[String]) {
        let wanted = |name: &str| only.is_empty() || only.iter().any(|row| row == name);
        println!(
            "direct = the mock vendor itself, bare pipe = two sockets, bare relay = the same HTTP libraries and nothing else; medians of {} rounds, windows in turn; times in ms\n",
            self.rounds
        );
        if wanted("plain") {
            self.plain().await;
        }
        if wanted("saturated") {
            self.saturated(16).await;
            self.saturated(64).await;
        }
        if wanted("slow") {
            self.slow().await;
        }
        if wanted("stream") {
            self.first(1, 8).await;
            self.first(16, 3).await;
            self.chunks(1).await;
            self.chunks(16).await;
        }
        if wanted("flood") {
            self.flood().await;
        }
        if wanted("abort") {
            self.abort().await;
        }
        if wanted("memory") {
            self.memory().await;
        }
    }

    async fn plain(&self) {
        let mut results = self
            .windows(1, "d0", async |connection: &mut Connection, request: &[u8], window: &RefCell<Window>| {
                let end = Instant::now() + Duration::from_millis(600);
                let mut times = Vec::with_capacity(32 * 1024);
                let mut overheads = Vec::new();
                while Instant::now() < end {
                    let began = Instant::now();
                    connection.plain(request).await;
                    times.push(began.elapsed());
                    if times.len() % 64 == 0 {
                        let told = connection.last_header("sidetone-overhead-us").and_then(|text| text.parse().ok());
                        overheads.extend(told.map(Duration::from_micros));
                    }
                }
                let mut window = window.borrow_mut();
                window.count = times.len();
                window.times = times;
                let told = percentile(&mut overheads, 0.5).as_micros() as u64;
                window.overhead = Some(told).filter(|told| *told > 0);
            })
            .await;
        let title = "plain: one connection, a vendor that answers at once (aim: added 0.10 / 0.30)";
        self.print(title, &mut results, |window| {
            let told = window.overhead.map_or_else(String::new, |told| format!(", says of itself {told} us"));
            if window.cpu.is_zero() { String::new() } else { format!("CPU {:.3} a request{told}", window.cpu_ms()) }
        });
    }

    async fn saturated(&self, connections: usize) {
        let mut results = self
            .windows(
                connections,
                "d0",
                async |connection: &mut Connection, request: &[u8], window: &RefCell<Window>| {
                    let end = Instant::now() + Duration::from_millis(600);
                    let mut times = Vec::with_capacity(4096);
                    while Instant::now() < end {
                        let began = Instant::now();
                        connection.plain(request).await;
                        times.push(began.elapsed());
                    }
                    let mut window = window.borrow_mut();
                    window.count += times.len();
                    window.times.extend(times);
                },
            )
            .await;
        let title = format!(
            "saturated: {connections} connections, instant vendor (aim: CPU 0.08, over 10,000 requests/s a core)"
        );
        self.print(&title, &mut results, |window| {
            let core = if window.cpu.is_zero() {
                String::new()
            } else {
                format!(", CPU {:.3} a request = {:.0} requests/s a core", window.cpu_ms(), 1e3 / window.cpu_ms())
            };
            format!("{:.0} requests/s{core}", window.a_second())
        });
    }

    async fn slow(&self) {
        let mut results = self
            .windows(16, "d50", async |connection: &mut Connection, request: &[u8], window: &RefCell<Window>| {
                for _ in 0..18 {
                    let began = now();
                    let stamp = connection.plain(request).await;
                    let mut window = window.borrow_mut();
                    window.count += 1;
                    window.times.push(stamp.without_vendor(began));
                }
            })
            .await;
        let title = "slow: 16 connections, a vendor that takes 50 ms, its own time taken off";
        self.print(title, &mut results, |window| {
            if window.cpu.is_zero() { String::new() } else { format!("CPU {:.3} a request", window.cpu_ms()) }
        });
    }

    async fn first(&self, connections: usize, streams: usize) {
        let work = async move |connection: &mut Connection, request: &[u8], window: &RefCell<Window>| {
            for _ in 0..streams {
                let began = now();
                let first = Cell::new(None);
                connection
                    .stream(request, |stamp: Stamp| {
                        first.set(first.get().or(Some(stamp)));
                    })
                    .await;
                let mut window = window.borrow_mut();
                window.count += 1;
                window.times.extend(first.get().map(|stamp| stamp.without_vendor(began)));
            }
        };
        let mut results = self.windows(connections, "d50c5i10", work).await;
        let title = format!(
            "first chunk: {connections} connections, second and later streams, the vendor's 50 ms taken off (aim: added 0.25)"
        );
        self.print(&title, &mut results, |window| format!("n {}", window.count));
    }

    async fn chunks(&self, connections: usize) {
        let work = async |connection: &mut Connection, request: &[u8], window: &RefCell<Window>| {
            for _ in 0..2 {
                connection
                    .stream(request, |stamp| {
                        let mut window = window.borrow_mut();
                        window.times.push(stamp.one_way());
                        window.count += 1;
                    })
                    .await;
            }
        };
        let mut results = self.windows(connections, "d50c50i10", work).await;
        let worst: Vec<f64> = results
            .iter_mut()
            .map(|windows| windows.iter_mut().map(|window| window.at(1.0)).fold(0.0, f64::max))
            .collect();
        let title = format!(
            "chunks: {connections} connections, 50 chunks 10 ms apart, one way, second and later streams (aim: 0.15 / 0.5, \
             none over 5)"
        );
        self.print(&title, &mut results, |window| {
            let cpu =
                if window.cpu.is_zero() { String::new() } else { format!(", CPU {:.4} a chunk", window.cpu_ms()) };
            format!("max of the window {:.2}{cpu}", window.at(1.0))
        });
        let worst: Vec<String> =
            self.targets.iter().zip(&worst).map(|(target, worst)| format!("{} {worst:.2}", target.name)).collect();
        println!("  the slowest chunk of all windows: {}\n", worst.join(", "));
    }

    async fn flood(&self) {
        let work = async |connection: &mut Connection, request: &[u8], window: &RefCell<Window>| {
            let end = Instant::now() + Duration::from_millis(500);
            while Instant::now() < end {
                let count = Cell::new(0);
                let reads = connection.stream(request, |_| count.set(count.get() + 1)).await;
                let mut window = window.borrow_mut();
                window.count += count.get();
                window.reads += reads;
            }
        };
        let results = self.windows(8, "d0c1000", work).await;
        println!("flood: 8 streams as fast as they go, one event a write (aim: 100,000 chunks/s a core)");
        for (target, mut windows) in self.targets.iter().zip(results) {
            windows.sort_by(|a, b| a.a_second().total_cmp(&b.a_second()));
            let window = &windows[windows.len() / 2];
            print!("  {:<11} {:>9.0} chunks/s", target.name, window.a_second());
            if !window.cpu.is_zero() {
                let busy = 100.0 * window.cpu.as_secs_f64() / window.took.as_secs_f64();
                print!(", {:>9.0} a core ({busy:.0} % of one busy)", 1e3 / window.cpu_ms());
            }
            println!(", {:.1} a read", window.count as f64 / window.reads as f64);
        }
        println!();
    }

    async fn abort(&self) {
        println!("abort: from the client's hanging up in mid-stream to the vendor seeing it (aim: 20)");
        let mut control = Connection::open(self.targets[0].port).await;
        for target in &self.targets {
            let request = target.request("d50c2000i10");
            let (mut times, mut never) = (Vec::new(), 0);
            for _ in 0..4 * self.rounds {
                let before = aborted(&mut control).await.0;
                let when = Connection::open(target.port).await.abandon(&request, 3).await;
                let waited = Instant::now();
                loop {
                    let (count, last) = aborted(&mut control).await;
                    if count > before {
                        times.push(Duration::from_nanos(last.saturating_sub(when)));
                        break;
                    }
                    if waited.elapsed() > NEVER {
                        never += 1;
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // A target that never aborts is asked only twice.
                if never > 1 {
                    break;
                }
            }
            let never = if never > 0 { format!("  {never} not within {} s", NEVER.as_secs()) } else { String::new() };
            let (p50, max) = (percentile(&mut times, 0.5), percentile(&mut times, 1.0));
            if times.is_empty() {
                println!("  {:<11}{never}", target.name);
            } else {
                println!("  {:<11} p50 {:>8.3}  max {:>8.3}{never}", target.name, millis(p50), millis(max));
            }
        }
        println!();
    }

    async fn memory(&self) {
        let plain = async |connection: &mut Connection, request: &[u8], _: &RefCell<Window>| {
            for _ in 0..50 {
                connection.plain(request).await;
            }
        };
        let streamed = async |connection: &mut Connection, request: &[u8], _: &RefCell<Window>| {
            connection.stream(request, |_| {}).await;
        };
        self.windows(64, "d0", plain).await;
        self.windows(64, "d50c50i10", streamed).await;
        println!("memory: RSS at start, and after everything above and 64 connections at once (aim: 20 / 30 MB)");
        for target in self.targets.iter() {
            let Some(pid) = target.pid else { continue };
            let mb = |bytes: u64| bytes as f64 / 1e6;
            println!("  {:<11} {:>7.1} -> {:>7.1} MB", target.name, mb(target.idle), mb(process::rss(pid)));
        }
    }
}

async fn aborted(control: &mut Connection) -> (u64, u64) {
    let body = control.get("/aborted").await;
    let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    (value["aborted"].as_u64().unwrap_or(0), value["last"].as_u64().unwrap_or(0))
}
