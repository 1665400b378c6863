//! Measures how long a future was pending.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// Runs `future`; returns its result, and how long it was pending. The time within its own polls is not counted,
/// because that is computation and not waiting. The caller pins the future: an async function that takes a future by
/// value is twice its size.
///
/// # Cancel safety
/// As that of `future`.
pub async fn waiting<F: Future>(mut future: Pin<&mut F>) -> (F::Output, Duration) {
    let mut waited = Duration::ZERO;
    let mut since: Option<Instant> = None;
    let output = poll_fn(|context| {
        if let Some(since) = since.take() {
            waited += since.elapsed();
        }
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            since = Some(Instant::now());
        }
        polled
    })
    .await;
    (output, waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_of_work_is_not_waiting_time() {
        let pause = Duration::from_millis(20);
        let began = Instant::now();
        let working = std::pin::pin!(async {
            std::thread::sleep(pause);
            tokio::time::sleep(pause).await;
            std::thread::sleep(pause);
        });
        let (_, waited) = waiting(working).await;
        assert!(waited >= pause - Duration::from_millis(2), "{waited:?}");
        assert!(waited <= began.elapsed() - 2 * pause, "{waited:?}");
    }
}
