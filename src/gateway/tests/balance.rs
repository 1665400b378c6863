//! Which candidate is asked first.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::gateway::catalogue::endpoint::EndpointModel;
use crate::gateway::catalogue::resolved::Candidate;
use crate::gateway::schedule::candidates::arrange;

/// A model `m` over `e0/v`, `local`, `e1/v`, `e2/v`.
fn model(extra: &str) -> Arc<Resolved> {
    let prices =
        ["prices = [{model = \"*\", input = 5, output = 20}]", "", "prices = [{model = \"*\", input = 1, output = 4}]"];
    let mut text = String::new();
    for (index, prices) in prices.iter().enumerate() {
        text.push_str(&format!(
            "[endpoints.e{index}]\nprovider = \"openai_compatible\"\nbase_url = \"http://127.0.0.1:9\"\n{prices}\n"
        ));
    }
    let text = format!("{text}[models.m]\ncandidates = [\"e0/v\", \"local\", \"e1/v\", \"e2/v\"]\n{extra}");
    gateway(&text).0.resolve("m", "k").expect("resolved")
}

fn arranged(resolved: &Resolved) -> Vec<String> {
    let names = arrange(resolved, &ChatRequest::default());
    names.iter().map(|candidate| candidate.to_string().replace("/v", "")).collect()
}

fn remote(resolved: &Resolved, name: &str) -> Arc<EndpointModel> {
    let found = resolved.candidates.iter().find_map(|candidate| match candidate {
        Candidate::Remote(remote) if *remote.endpoint.name == *name => Some(Arc::clone(remote)),
        _ => None,
    });
    found.expect("candidate")
}

#[test]
fn candidates_without_a_balance_keep_their_order() {
    for extra in ["", "balance = \"order\""] {
        assert_eq!(arranged(&model(extra)), ["e0", "local", "e1", "e2"]);
    }
}

#[test]
fn cost_balance_asks_the_cheapest_first_and_the_unknown_last() {
    assert_eq!(arranged(&model("balance = \"cost\"")), ["e2", "e0", "e1", "local"]);
}

#[test]
fn weight_balance_shares_the_requests_by_weight() {
    let resolved = model("balance = \"weight\"\nweights = [3, 1, 0]");
    let mut first = 0;
    for _ in 0..2_000 {
        let order = arranged(&resolved);
        assert_eq!(order[2..], ["e2", "local"], "without a weight it is there for failures only");
        first += usize::from(order[0] == "e0");
    }
    // 1,500 expected; ten standard deviations.
    assert!((1_300..1_700).contains(&first), "{first}");
}

#[test]
fn latency_balance_asks_the_fastest_and_spreads_its_load() {
    let resolved = model("balance = \"latency\"");
    let now = Instant::now();
    for (name, ms) in [("e0", 900), ("e1", 90), ("e2", 400)] {
        remote(&resolved, name).latency.answered(true, Duration::from_millis(ms), now);
    }
    let mut firsts = [0; 3];
    for _ in 0..300 {
        let order = arranged(&resolved);
        assert_eq!(order[3], "local");
        let first = ["e0", "e1", "e2"].iter().position(|name| *name == order[0]).expect("first");
        firsts[first] += 1;
        assert_eq!(order.iter().filter(|name| **name == order[1]).count(), 1);
    }
    // The fastest wins whenever it is one of the two that are compared; the slowest never wins.
    assert_eq!(firsts[0], 0);
    assert!(firsts[1] > firsts[2] && firsts[2] > 0, "{firsts:?}");
    // Twenty requests in progress make the fast one slow.
    for _ in 0..20 {
        remote(&resolved, "e1").latency.begin();
    }
    assert!((0..50).all(|_| arranged(&resolved)[0] != "e1"));
}

#[test]
fn weights_that_do_not_match_the_candidates_are_refused() {
    let problems = |extra: &str| {
        let table: toml::Table = toml::from_str(&format!(
            "[endpoints.e]\nprovider = \"openai\"\n[models.m]\ncandidates = [\"e/a\", \"e/b\", \"local\"]\n{extra}"
        ))
        .expect("TOML");
        let mut problems = Problems::default();
        let mut root = Section::new("", Some(toml::Value::Table(table)), &mut problems);
        Config::read(&mut root);
        root.finish();
        problems.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let weights =
        "models.m.weights: expected 2 numbers, one per candidate (without local), at least one above 0; found ";
    assert_eq!(problems("balance = \"weight\"\nweights = [1, 2.5]"), "");
    assert_eq!(problems("balance = \"weight\""), format!("{weights}0"));
    assert_eq!(problems("balance = \"weight\"\nweights = [1, 2, 3]"), format!("{weights}3"));
    assert_eq!(problems("balance = \"weight\"\nweights = [0, 0]"), format!("{weights}2"));
    assert_eq!(problems("weights = [1, 2]"), "models.m.weights: has a meaning only with balance = \"weight\"");
    assert_eq!(
        problems("balance = \"luck\""),
        "models.m.balance: expected one of order, weight, latency, cost, found \"luck\""
    );
    assert_eq!(
        problems("hedge_quantile = 95"),
        "models.m.hedge_quantile: expected a number from 0.5 to 0.999, found 95"
    );
}
