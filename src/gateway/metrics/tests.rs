use super::*;

fn labels(model: &str) -> AttemptLabels {
    let [endpoint, model, route, variant] = ["e", model, "r", "a"].map(Arc::from);
    AttemptLabels { endpoint, model, route, variant }
}

fn ok() -> AttemptDone {
    AttemptDone {
        id: 1,
        outcome: Outcome::Ok,
        code: None,
        status: Some(200),
        input: Some(3),
        cached: None,
        cache_write: None,
        output: None,
        reasoning: None,
        cost_pico: None,
        first_token_us: None,
        total_us: 1,
        shares: Vec::new(),
    }
}

#[test]
fn cached_meters_are_bounded_and_keep_their_counts_when_dropped() {
    let metrics = Metrics::default();
    let kept = labels("kept");
    let under_way = metrics.begun(kept.clone());
    for number in 0..3 * MAX_METERS {
        metrics.done(&metrics.begun(labels(&format!("passes-through-{number}"))), &ok());
        let known = metrics.meters.lock().expect("no panic").len();
        assert!(known <= MAX_METERS, "{known} after {number}");
    }
    let again = metrics.begun(kept.clone());
    assert!(!Arc::ptr_eq(&under_way, &again), "it was forgotten, and is looked up anew");
    assert!(Arc::ptr_eq(&again, &metrics.begun(kept.clone())), "and remembered again");
    assert_eq!(metrics.inflight.get_or_create(&kept).get(), 3);
    for meters in [&under_way, &again, &again] {
        metrics.done(meters, &ok());
    }
    assert_eq!(metrics.inflight.get_or_create(&kept).get(), 0);
    let AttemptLabels { endpoint, model, route, variant } = kept;
    let tokens = TokenLabels { endpoint, model, route, variant, kind: "input" };
    assert_eq!(metrics.tokens.get_or_create(&tokens).get(), 9);
}
