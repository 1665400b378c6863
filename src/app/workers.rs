//! The threads of a daemon: one `current_thread` runtime a core.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Threads for blocking work (the embedded provider, long bodies) a runtime.
const BLOCKING_THREADS: usize = 4;

/// Running runtimes.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    handles: Vec<Handle>,
    over: CancellationToken,
}

impl Workers {
    /// Starts one a core.
    pub(super) fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let over = CancellationToken::new();
        let mut threads = Vec::new();
        let mut handles = Vec::new();
        for number in 0..count {
            let (sender, receiver) = mpsc::sync_channel(1);
            let over = over.clone();
            threads.push(std::thread::Builder::new().name(format!("sidetone-{number}")).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .max_blocking_threads(BLOCKING_THREADS)
                    .build();
                match runtime {
                    Ok(runtime) => {
                        let _ = sender.send(Ok(runtime.handle().clone()));
                        runtime.block_on(over.cancelled());
                        runtime.shutdown_background();
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error));
                    }
                }
            })?);
            handles.push(receiver.recv().map_err(io::Error::other)??);
        }
        Ok(Self { threads, handles, over })
    }

    pub(super) fn handles(&self) -> Vec<Handle> {
        self.handles.clone()
    }

    /// Runs `task` on the first runtime.
    pub(super) fn spawn_first(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(handle) = self.handles.first() {
            handle.spawn(task);
        }
    }

    /// Runs `task` on the last runtime, away from the acceptor where there is more than one.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(handle) = self.handles.last() {
            handle.spawn(task);
        }
    }

    /// Runs `start` within the last runtime, so that it may spawn.
    pub(super) fn within<T>(&self, start: impl FnOnce() -> T) -> T {
        let _guard = self.handles.last().map(Handle::enter);
        start()
    }

    /// Blocks until `done` is over, or `patience` is; whether it was over.
    pub(super) fn wait(&self, done: impl Future<Output = ()> + Send + 'static, patience: Duration) -> bool {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.spawn(async move {
            let _ = sender.send(tokio::time::timeout(patience, done).await.is_ok());
        });
        receiver.recv().unwrap_or(false)
    }

    /// Ends the runtimes; what still runs on them is dropped.
    pub(super) fn stop(self) {
        self.over.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a runtime's thread panicked");
            }
        }
    }
}
