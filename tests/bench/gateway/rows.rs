//! The rows: windows against the mock itself and against each gateway, in turn; medians over the rounds.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::client::{Connection, Stamp};
use super::common::percentile;
use super::common::process::{self, Process};
use super::mock::now;

/// An abandoned request that is still running after this is never aborted.
const NEVER: Duration = Duration::from_secs(2);

/// Who is asked: the mock itself, ours, or a peer.
pub struct Target {
    name: String,
    port: u16,
    pid: Option<u32>,
    path: String,
    model: String,
    key: Option<String>,
    idle: u64,
}

impl Target {
    /// `NAME,PID,PORT,PATH,MODEL,KEY`.
    pub fn peer(text: &str) -> Self {
        let parts: Vec<&str> = text.split(',').collect();
        let [name, pid, port, path, model, key] = parts[..] else {
            panic!("--peer: expected NAME,PID,PORT,PATH,MODEL,KEY, found {text:?}")
        };
        let pid = pid.parse().expect("a process id");
        Self {
            name: name.to_owned(),
            port: port.parse().expect("a port"),
            pid: Some(pid),
            path: path.to_owned(),
            model: model.to_owned(),
            key: (!key.is_empty()).then(|| key.to_owned()),
            idle: process::rss(pid),
        }
    }

    /// A request for what `answer` says, in the mock's words.
    fn request(&self, answer: &str) -> Vec<u8> {
        let streamed =
            if answer.contains('c') { ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" } else { "" };
        let body = format!(
            "{{\"model\":\"{}\",\"messages\":[{{\"role\":\"system\",\"content\":\"You help people on the phone. You \
             answer {answer}.\"}},{{\"role\":\"user\",\"content\":\"I called about my order last week, and nobody has come \
             back to me.\"}}],\"temperature\":0.5{streamed}}}",
            self.model
        );
        let key = self.key.as_ref().map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
        format!(
            "POST {} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\n{key}content-length: {}\r\n\r\n{body}",
            self.path,
            self.port,
            body.len()
        )
        .into_bytes()
    }

    fn cpu(&self) -> Duration {
        self.pid.map_or(Duration::ZERO, process::cpu)
    }
}

/// What one window gave.
#[derive(Default)]
struct Window {
    times: Vec<Duration>,
    count: usize,
    reads: usize,
    took: Duration,
    cpu: Duration,
    overhead: Option<u64>,
}

impl Window {
    fn at(&mut self, fraction: f64) -> f64 {
        millis(percentile(&mut self.times, fraction))
    }

    fn a_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    fn cpu_ms(&self) -> f64 {
        millis(self.cpu) / self.count as f64
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub struct Bench {
    /// The mock first.
    targets: Vec<Target>,
    rounds: usize,
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
        // The daemon's first words come before all of it is up.
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

    /// Opens connections to a target and asks each once: what is measured is the second request or a later one.
    async fn connect(target: &Target, count: usize, answer: &str) -> Vec<RefCell<Connection>> {
        let mut connections = Vec::new();
        for _ in 0..count {
            let mut connection = Connection::open(target.port).await;
            if answer.contains('c') {
                connection.stream(&target.request("d0c3"), |_| {}).await;
            } else {
                connection.plain(&target.request("d0")).await;
            }
            connections.push(RefCell::new(connection));
        }
        connections
    }

    /// `rounds` windows of each target, in turn. `work` runs on each of the connections at once and adds its samples.
    #[expect(clippy::await_holding_refcell_ref, reason = "a connection has one user")]
    async fn windows<F>(&self, count: usize, answer: &str, work: F) -> Vec<Vec<Window>>
    where
        F: AsyncFn(&mut Connection, &[u8], &RefCell<Window>),
    {
        let mut results: Vec<Vec<Window>> = self.targets.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (position, target) in self.targets.iter().enumerate() {
                let request = target.request(answer);
                // Anew for each window: others take their time, and idle connections are closed.
                let connections = Self::connect(target, count, answer).await;
                let window = RefCell::new(Window::default());
                let (cpu, began) = (target.cpu(), Instant::now());
                let work = connections.iter().enumerate().map(|(number, connection)| {
                    let (request, window, work) = (&request, &window, &work);
                    // Not in step with each other.
                    let pause = Duration::from_micros(640) * number as u32;
                    async move {
                        if has_timers(request) {
                            tokio::time::sleep(pause).await;
                        }
                        work(&mut connection.borrow_mut(), request, window).await;
                    }
                });
                // Not tasks: a failure in one ends the bench.
                futures::future::join_all(work).await;
                let mut window = window.into_inner();
                window.took = began.elapsed();
                window.cpu = target.cpu().saturating_sub(cpu);
                results[position].push(window);
            }
        }
        results
    }

    fn print(&self, title: &str, results: &mut [Vec<Window>], line: impl Fn(&mut Window) -> String) {
        println!("{title}");
        let pairs = |windows: &mut Vec<Window>| -> Vec<(f64, f64)> {
            windows.iter_mut().map(|window| (window.at(0.5), window.at(0.99))).collect()
        };
        let direct = pairs(&mut results[0]);
        for (target, windows) in self.targets.iter().zip(results.iter_mut()) {
            let own = pairs(windows);
            let over = |pick: fn(&(f64, f64)) -> f64, join: fn(f64, f64) -> f64| {
                median(own.iter().zip(&direct).map(|(own, direct)| join(pick(own), pick(direct))).collect())
            };
            let (p50, p99) =
                (median(own.iter().map(|own| own.0).collect()), median(own.iter().map(|own| own.1).collect()));
            print!("  {:<11} p50 {p50:>8.3}  p99 {p99:>8.3}", target.name);
            if target.pid.is_some() {
                let (added, tail) = (over(|pair| pair.0, |a, b| a - b), over(|pair| pair.1, |a, b| a - b));
                let (times, worse) = (over(|pair| pair.0, |a, b| a / b), over(|pair| pair.1, |a, b| a / b));
                print!("  added {added:>7.3} / {tail:>7.3}  ({times:.1}x / {worse:.1}x)");
            } else {
                print!("{:42}", "");
            }
            // Of the rest, the round in the middle.
            windows.sort_by(|a, b| a.cpu_ms().total_cmp(&b.cpu_ms()));
            let middle = windows.len() / 2;
            println!("  {}", windows.get_mut(middle).map(&line).unwrap_or_default());
        }
        println!();
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
                // Whoever never aborts is asked twice only.
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

/// Whether the mock waits in an answer to this request: then connections are kept out of step.
fn has_timers(request: &[u8]) -> bool {
    super::mock::find(request, b"answer d50").is_some()
}

async fn aborted(control: &mut Connection) -> (u64, u64) {
    let body = control.get("/aborted").await;
    let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    (value["aborted"].as_u64().unwrap_or(0), value["last"].as_u64().unwrap_or(0))
}
