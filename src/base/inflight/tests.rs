//! How many bytes holders may have, and which one is evicted.

use super::*;

fn account(limit: usize) -> Account {
    Account::new("limits.inflight_bytes", limit, Metrics::default())
}

#[test]
fn lease_counts_until_it_is_dropped() {
    let account = account(100);
    let holder = account.holder();
    let mut lease = holder.take(30).expect("room");
    lease.grow(20).expect("room");
    lease.shrink(5);
    assert_eq!((lease.bytes(), holder.held(), account.used()), (45, 45, 45));
    lease.set(10);
    let other = holder.charge(7);
    assert_eq!((holder.held(), account.used()), (17, 17));
    // A lease still counts after its holder is dropped.
    drop(holder);
    drop(lease);
    assert_eq!(account.used(), 7);
    drop(other);
    assert_eq!(account.used(), 0);
}

#[test]
fn take_over_the_share_is_refused_and_evicts_nobody() {
    let account = account(100);
    let (greedy, other) = (account.holder(), account.holder());
    let _other = other.take(50).expect("its share");
    let error = greedy.take(51).expect_err("over its share");
    assert_eq!(error, Exceeded::PerHolder { wanted: 51, name: "limits.inflight_bytes", limit: 100 });
    assert!(error.to_string().contains("limits.inflight_bytes"));
    assert_eq!((account.used(), greedy.is_evicted(), other.is_evicted()), (50, false, false));
}

#[test]
fn take_over_the_total_is_refused_and_evicts_the_largest() {
    let account = account(100);
    let holders: Vec<Holder> = (0..4).map(|_| account.holder()).collect();
    let leases: Vec<Lease> =
        holders.iter().zip([20, 40, 30, 10]).map(|(holder, bytes)| holder.take(bytes).expect("room")).collect();
    let evicted = || holders.iter().map(Holder::is_evicted).collect::<Vec<_>>();
    let newcomer = account.holder();
    let error = newcomer.take(5).expect_err("nothing is left");
    assert!(matches!(error, Exceeded::Total { .. }) && error.to_string().contains("limits.inflight_bytes"), "{error}");
    assert_eq!(evicted(), [false, true, false, false], "the largest, which is enough");
    // The evicted holder's bytes count as free already, so no second holder is evicted.
    assert!(newcomer.take(35).is_err());
    assert_eq!(evicted(), [false, true, false, false]);
    drop(leases);
    assert!(newcomer.take(35).is_ok(), "there is room once they are released");
}

#[test]
fn take_of_more_than_anybody_has_evicts_nobody() {
    let account = account(100);
    let (small, large) = (account.holder(), account.holder());
    let _leases = [small.take(40).expect("room"), large.take(40).expect("room")];
    let greedy = account.holder();
    assert!(greedy.take(45).is_err());
    assert!(!small.is_evicted() && !large.is_evicted());
}

#[test]
fn charge_over_the_total_evicts_the_largest_even_itself() {
    let account = account(100);
    let (small, large) = (account.holder(), account.holder());
    let _lease = small.take(45).expect("room");
    let mut growing = large.charge(50);
    growing.set(50);
    assert!(!small.is_evicted() && !large.is_evicted());
    let more = account.holder().charge(10);
    assert_eq!((small.is_evicted(), large.is_evicted(), account.used()), (false, true, 105));
    drop((more, growing));
    let mut alone = small.charge(0);
    alone.set(6);
    assert!(small.is_evicted(), "over its own share");
}

#[tokio::test]
async fn eviction_wakes_the_holder() {
    let account = account(100);
    let holder = account.holder();
    let _lease = holder.take(50).expect("room");
    let waiting = tokio::spawn({
        let holder = holder.clone();
        async move { holder.evicted().await }
    });
    tokio::task::yield_now().await;
    let other = account.holder();
    let _rest = other.take(40).expect("room");
    assert!(account.holder().take(11).is_err());
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("woken").expect("no panic");
}
