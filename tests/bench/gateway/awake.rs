//! Keeps processors from sleeping. It runs at idle priority, so that any other work runs at once.

use std::hint::black_box;
use std::os::unix::process::parent_id;
use std::process::{Child, Command};

/// Rounds of the loop between two checks of whether the bench still runs.
const TURNS: u32 = 10_000_000;

/// A loop on each processor, until dropped.
pub struct Awake(Vec<Child>);

impl Awake {
    pub fn start(cores: usize) -> Self {
        println!("the processors are kept awake, by loops of idle priority");
        let own = std::env::current_exe().expect("own path");
        let spin = |core: usize| {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0", "taskset", "-c", &core.to_string()]).arg(&own).args(["--role", "awake"]);
            command.spawn().expect("chrt and taskset (util-linux)")
        };
        Self((0..cores).map(spin).collect())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The loop. It ends with the bench, however the bench ends.
pub fn run() {
    let bench = parent_id();
    while parent_id() == bench {
        for turn in 0..TURNS {
            black_box(turn);
        }
    }
}
