use std::path::Path;

use super::*;
use crate::analysis::Registry;
use crate::base::settings::Problems;

/// A slot of `summary` that is due after every turn.
fn eager() -> Rolling {
    let config: toml::Table = "[summary]\nevery_n_turns = 1\ndebounce_ms = 0\n".parse().expect("toml");
    let mut problems = Problems::default();
    let registry = Registry::read(Some(toml::Value::Table(config)), Path::new("."), &mut problems);
    assert_eq!(problems.into_vec().len(), 0);
    Rolling::new(Arc::clone(registry.get("summary").expect("built in")))
}

#[test]
fn what_fails_at_once_is_not_tried_more_often_than_its_backoff_allows() {
    for temporary in [true, false] {
        let mut slot = eager();
        let (mut tries, mut last, mut gaps) = (0, 0, Vec::new());
        // One turn every 10 ms for a minute: each makes the analysis due.
        for now_ms in (0..60_000).step_by(10) {
            slot.turn(now_ms, 10);
            if slot.fire(now_ms).is_some() {
                slot.started(now_ms);
                slot.failed(now_ms, temporary, 0.0);
                gaps.push(now_ms - last);
                (tries, last) = (tries + 1, now_ms);
                assert!(slot.next_ms().is_none_or(|at| at > now_ms), "nothing to wake for at once");
            }
        }
        assert_eq!(gaps[..6], [0, 500, 1_000, 2_000, 4_000, 4_000], "temporary: {temporary}");
        assert_eq!(tries, 4 + (60_000 - 3_500) / 4_000, "temporary: {temporary}");
    }
}

#[test]
fn a_trigger_is_used_up_by_a_run_that_fails() {
    let mut slot = eager();
    slot.turn(0, 10);
    assert!(slot.fire(0).is_some());
    slot.started(0);
    slot.failed(0, false, 0.0);
    assert_eq!((slot.fire(100_000), slot.next_ms()), (None, None), "nothing new came");
    slot.ask();
    assert_eq!(slot.fire(100_000), Some(Cause::Manual));
    slot.started(100_000);
    slot.succeeded();
    slot.turn(100_001, 10);
    assert!(slot.fire(100_001).is_some(), "a success ends the wait");
}
