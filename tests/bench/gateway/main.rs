//! Measures the time that the gateway adds to a request. Each figure is printed beside that of direct calls to the same
//! mock vendor, in the same run, in alternating windows, and beside two lower bounds: a bare pipe between two sockets,
//! the least work of any program in between, and a bare relay on the same HTTP libraries, the least work of a gateway
//! with them. The gateway under test has the first core to itself; mock and generator share the next one (or have one
//! each).
//!
//! `cargo bench --bench gateway [-- ROW…]`, rows: `plain saturated slow stream flood abort memory`. `--rounds N`
//! repeats each pair of windows; the medians are reported. Other gateways can be measured in the same run: `--mock
//! PORT` sets the port at which they reach the vendor, and each `--peer NAME,PID,PORT,PATH,MODEL,KEY` is one of them.
//! `scripts/compare-gateways` does all of it.
//!
//! An idle processor sleeps. A virtual processor is then woken by its host, which takes longer than all other work for
//! a single chunk. `--awake` prevents this by loops of idle priority, so that only the work of the programs is
//! measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

mod awake;
mod bare;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod mock;
mod rows;
mod target;
mod windows;

use self::rows::Bench;
use self::target::Target;

/// Cores of the gateway under test and of the generator.
const CORES: (u8, u8) = (0, 1);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    if let Some(position) = args.iter().position(|arg| arg == "--role") {
        let port = args.get(position + 2).map(String::as_str).unwrap_or("0");
        return match args.get(position + 1).map(String::as_str) {
            Some("awake") => awake::run(),
            Some("pipe") => runtime().block_on(bare::pipe(port.parse().expect("the vendor's port"))),
            Some("relay") => runtime().block_on(bare::relay(port.parse().expect("the vendor's port"))),
            _ => runtime().block_on(mock::run(port)),
        };
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 {
        let pid = std::process::id().to_string();
        let pinned = std::process::Command::new("taskset").args(["-cp", &CORES.1.to_string(), &pid]).output();
        assert!(
            pinned.is_ok_and(|output| output.status.success()),
            "taskset (util-linux) is needed to keep cores apart"
        );
    } else {
        println!("one core only: gateway, mock and generator share it, and the figures say little");
    }
    let _awake = args.iter().any(|arg| arg == "--awake").then(|| awake::Awake::start(cores));
    let value = |name: &str| {
        let position = args.iter().position(|arg| arg == name)?;
        args.get(position + 1).cloned()
    };
    let peers: Vec<Target> =
        args.windows(2).filter(|pair| pair[0] == "--peer").map(|pair| Target::peer(&pair[1])).collect();
    let mut only = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" | "--mock" | "--peer" => drop(words.next()),
            flag if flag.starts_with("--") => {}
            row => only.push(row.to_owned()),
        }
    }
    let rounds = value("--rounds").map_or(5, |text| text.parse().expect("--rounds: a number"));
    let mock = value("--mock").unwrap_or_else(|| "0".to_owned());
    runtime().block_on(async {
        let bench = Bench::start(if cores > 1 { Some(CORES) } else { None }, cores > 2, &mock, peers, rounds).await;
        bench.rows(&only).await;
    });
}
