//! Measures windows of each target, in turn, and summarises them.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use super::client::Connection;
use super::common::percentile;
use super::rows::Bench;
use super::target::Target;

/// The results of one window.
#[derive(Default)]
pub(super) struct Window {
    pub(super) times: Vec<Duration>,
    pub(super) count: usize,
    pub(super) reads: usize,
    pub(super) took: Duration,
    pub(super) cpu: Duration,
    pub(super) overhead: Option<u64>,
}

impl Window {
    pub(super) fn at(&mut self, fraction: f64) -> f64 {
        millis(percentile(&mut self.times, fraction))
    }

    pub(super) fn a_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    pub(super) fn cpu_ms(&self) -> f64 {
        millis(self.cpu) / self.count as f64
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Bench {
    /// Opens connections to a target and sends one request on each: only later requests are measured.
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

    /// Runs `rounds` windows of each target, in turn. `work` runs on all connections at once and adds its samples.
    #[expect(clippy::await_holding_refcell_ref, reason = "a connection has one user")]
    pub(super) async fn windows<F>(&self, count: usize, answer: &str, work: F) -> Vec<Vec<Window>>
    where
        F: AsyncFn(&mut Connection, &[u8], &RefCell<Window>),
    {
        let mut results: Vec<Vec<Window>> = self.targets.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (position, target) in self.targets.iter().enumerate() {
                let request = target.request(answer);
                // New connections for each window: windows of other targets take time, and idle connections are closed.
                let connections = Self::connect(target, count, answer).await;
                let window = RefCell::new(Window::default());
                let (cpu, began) = (target.cpu(), Instant::now());
                let work = connections.iter().enumerate().map(|(number, connection)| {
                    let (request, window, work) = (&request, &window, &work);
                    // Keeps the connections out of step with each other.
                    let pause = Duration::from_micros(640) * number as u32;
                    async move {
                        if has_timers(request) {
                            tokio::time::sleep(pause).await;
                        }
                        work(&mut connection.borrow_mut(), request, window).await;
                    }
                });
                // No tasks, so that a failure in one ends the bench.
                futures::future::join_all(work).await;
                let mut window = window.into_inner();
                window.took = began.elapsed();
                window.cpu = target.cpu().saturating_sub(cpu);
                results[position].push(window);
            }
        }
        results
    }

    pub(super) fn print(&self, title: &str, results: &mut [Vec<Window>], line: impl Fn(&mut Window) -> String) {
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
            // For the other figures, the round with the median CPU time is used.
            windows.sort_by(|a, b| a.cpu_ms().total_cmp(&b.cpu_ms()));
            let middle = windows.len() / 2;
            println!("  {}", windows.get_mut(middle).map(&line).unwrap_or_default());
        }
        println!();
    }
}

/// Returns true if the mock waits during an answer to this request: connections are then kept out of step.
fn has_timers(request: &[u8]) -> bool {
    super::mock::find(request, b"answer d50").is_some()
}
