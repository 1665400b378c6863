use super::*;

const NEED: TokenEstimate = TokenEstimate { input: 60, output: 40 };

fn limiter(limits: Limits) -> Arc<Limiter> {
    Arc::new(Limiter::new(limits))
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn slots(concurrency: usize) -> Limits {
    Limits { concurrency: Some(concurrency), max_wait: Duration::from_secs(60), ..Limits::default() }
}

/// Requests a permit; returns the name with the result.
fn come(
    limiter: &Arc<Limiter>,
    name: &'static str,
) -> tokio::task::JoinHandle<(&'static str, Result<Option<Permit>, Refusal>)> {
    let limiter = Arc::clone(limiter);
    tokio::spawn(async move {
        let key = || QueueKey::Client(Some(Arc::from(name)));
        (name, limiter.enter(&Arc::default(), key, || NEED, far()).await)
    })
}

async fn waiting(limiter: &Limiter, count: usize) {
    while limiter.waiting.load(Ordering::Relaxed) != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn burst_of_one_call_delays_no_other_call() {
    let limiter = limiter(slots(1));
    let vendor_limits = Arc::default();
    let mut held = limiter.try_enter(&vendor_limits, || NEED).expect("free");
    assert!(held.is_some());
    assert_eq!(
        limiter.try_enter(&vendor_limits, || NEED).expect_err("taken"),
        Refusal { cause: Cause::Concurrency, wait: None }
    );
    let mut come_in = Vec::new();
    for (count, name) in ["a", "a", "a", "a", "b", "c", "b"].into_iter().enumerate() {
        come_in.push(come(&limiter, name));
        waiting(&limiter, count + 1).await;
    }
    let mut order = String::new();
    for left in (0..7).rev() {
        drop(held.take());
        waiting(&limiter, left).await;
        let served = come_in.iter().position(tokio::task::JoinHandle::is_finished);
        let served = match served {
            Some(served) => served,
            None => {
                tokio::task::yield_now().await;
                come_in.iter().position(tokio::task::JoinHandle::is_finished).expect("one is let in")
            }
        };
        let (name, permit) = come_in.remove(served).await.expect("task");
        order.push_str(name);
        held = permit.expect("let in");
    }
    assert_eq!(order, "abcabaa");
    drop(held);
    assert_eq!(limiter.state().usage.slots, 0);
}

#[tokio::test]
async fn full_queue_refuses_the_newest_of_the_longest_call() {
    let limiter = limiter(Limits { max_waiting: 3, ..slots(1) });
    let held = limiter.try_enter(&Arc::default(), || NEED).expect("free");
    let mut of_a = Vec::new();
    for count in 1..=3 {
        of_a.push(come(&limiter, "a"));
        waiting(&limiter, count).await;
    }
    let refused = Refusal { cause: Cause::Waiting, wait: None };
    assert_eq!(come(&limiter, "a").await.expect("task").1.expect_err("its own burst"), refused);
    let of_b = come(&limiter, "b");
    assert_eq!(of_a.remove(2).await.expect("task").1.expect_err("the newest of a"), refused);
    // A waiting request that is dropped has no effect on the others.
    for waiter in of_a {
        waiter.abort();
        let _ = waiter.await;
    }
    waiting(&limiter, 1).await;
    drop(held);
    assert!(of_b.await.expect("task").1.is_ok());
    let state = limiter.state();
    assert_eq!((state.usage.slots, state.queue.sizes()), (0, (0, 0)));
}

#[tokio::test]
async fn request_waits_no_longer_than_max_wait() {
    let limiter = limiter(Limits { max_wait: Duration::from_millis(20), ..slots(1) });
    let _held = limiter.try_enter(&Arc::default(), || NEED).expect("free");
    let refused = come(&limiter, "a").await.expect("task").1.expect_err("full");
    assert_eq!(refused, Refusal { cause: Cause::Concurrency, wait: None });
    waiting(&limiter, 0).await;
}

#[tokio::test]
async fn rate_that_cannot_free_in_time_is_refused_at_once() {
    let limiter = limiter(Limits { requests: Some(2), tokens: Some(350), ..Limits::default() });
    let vendor_limits = Arc::default();
    let enter =
        async || limiter.enter(&vendor_limits, || QueueKey::Client(None), || NEED, far()).await.map(Option::unwrap);
    let mut first = enter().await.expect("room");
    let unsent = enter().await.expect("room");
    let refusal = enter().await.expect_err("two a minute");
    assert_eq!(refusal.cause, Cause::Requests);
    assert!(refusal.wait.is_some_and(|wait| wait > Duration::from_secs(58)));
    drop(unsent);
    first.sent();
    first.settle(TokenEstimate { input: 100, output: 200 });
    drop(first);
    assert_eq!(enter().await.expect_err("300 of 350 are used").cause, Cause::Tokens);
}

#[tokio::test]
async fn model_that_waits_for_its_vendor_delays_no_other_model() {
    let limiter = limiter(slots(1));
    let held = limiter.try_enter(&Arc::default(), || NEED).expect("free");
    let slow = Arc::new(VendorLimits::default());
    slow.cool(Duration::from_secs(30), Instant::now());
    let waits = {
        let (limiter, slow) = (Arc::clone(&limiter), Arc::clone(&slow));
        tokio::spawn(async move { limiter.enter(&slow, || QueueKey::Client(None), || NEED, far()).await.is_ok() })
    };
    waiting(&limiter, 1).await;
    let other = come(&limiter, "b");
    waiting(&limiter, 2).await;
    drop(held);
    assert!(other.await.expect("task").1.is_ok());
    assert!(!waits.is_finished());
    waits.abort();
}
