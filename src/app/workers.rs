//! The threads of a daemon: one `current_thread` runtime per core.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Number of threads per runtime for blocking work (the embedded provider, long bodies).
const BLOCKING_THREADS: usize = 4;

/// The running runtimes.
pub(super) struct Workers {
    threads: Vec<JoinHandle<()>>,
    handles: Vec<Handle>,
    over: CancellationToken,
}

impl Workers {
    /// Starts one runtime per core.
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

    /// Runs `task` on the last runtime, which is not the acceptor's if there are several.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(handle) = self.handles.last() {
            handle.spawn(task);
        }
    }

    /// Calls `start` within the last runtime, so that it may spawn tasks.
    pub(super) fn within<T>(&self, start: impl FnOnce() -> T) -> T {
        let _guard = self.handles.last().map(Handle::enter);
        start()
    }

    /// Blocks until `done` ends, or until `patience` is over; returns true if `done` ended.
    pub(super) fn wait(&self, done: impl Future<Output = ()> + Send + 'static, patience: Duration) -> bool {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.spawn(async move {
            let _ = sender.send(tokio::time::timeout(patience, done).await.is_ok());
        });
        receiver.recv().unwrap_or(false)
    }

    /// Stops the runtimes; tasks that still run on them are dropped.
    pub(super) fn stop(self) {
        self.over.cancel();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a runtime's thread panicked");
            }
        }
    }
}
