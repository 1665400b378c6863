use super::*;
use crate::gateway::admission::circuit_breaker::Phase;
use crate::gateway::catalogue::config::{RouteConfig, VariantConfig};

fn split(a: f64, b: f64) -> Vec<bool> {
    let variant = |name: &str, weight| VariantConfig {
        name: name.into(),
        model: "local".into(),
        weight,
        prompt: None,
        params: JsonMap::new(),
    };
    let config = Config {
        routes: vec![RouteConfig { name: "r".into(), variants: vec![variant("a", a), variant("b", b)] }],
        ..Config::default()
    };
    let catalogue = Catalogue::new(config, None);
    (0..10_000).map(|key| &*catalogue.resolve("r", &format!("call-{key}")).expect("resolved").variant == "a").collect()
}

#[test]
fn changed_weights_move_only_the_keys_that_must_move() {
    let before = split(90.0, 10.0);
    let share = before.iter().filter(|a| **a).count();
    assert!((8_880..=9_120).contains(&share), "{share}");
    assert_eq!(before, split(90.0, 10.0), "the same after a restart");
    assert_eq!(before, split(0.9, 0.1), "only the proportion counts");
    let after = split(80.0, 20.0);
    let to_b = before.iter().zip(&after).filter(|(was_a, is_a)| **was_a && !**is_a).count();
    let to_a = before.iter().zip(&after).filter(|(was_a, is_a)| !**was_a && **is_a).count();
    assert!((880..=1_120).contains(&to_b), "{to_b}");
    assert_eq!(to_a, 0);
}

#[test]
fn reload_keeps_what_was_learned_of_unchanged_endpoints() {
    let read = |url: &str, key: &str, more: &str| {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("key"), key).expect("write");
        let text = format!(
            "[endpoints.e]\nprovider = \"openai_compatible\"\nbase_url = \"{url}\"\napi_key = \"file:key\"\n{more}\n\
             [models.m]\ncandidates = [\"e/v\"]"
        );
        let mut problems = crate::base::settings::Problems::in_folder(dir.path());
        let table = toml::Value::Table(text.parse().expect("TOML"));
        let config = Config::read(&mut crate::base::settings::Section::new("", Some(table), &mut problems));
        assert!(problems.is_empty(), "{:?}", problems.into_vec());
        config
    };
    let remote =
        |catalogue: &Catalogue, name: &str| match &catalogue.resolve(name, "k").expect("resolved").candidates[0] {
            Candidate::Remote(remote) => Arc::clone(remote),
            Candidate::Local => panic!("local"),
        };
    let catalogue = Catalogue::new(read("http://127.0.0.1:1/v1", "one", ""), None);
    for name in ["m", "e/passed-through"] {
        let learned = remote(&catalogue, name);
        let now = tokio::time::Instant::now();
        for _ in 0..5 {
            learned.breaker.failed(now, Code::Refused);
        }
        learned.learn_cost(7);
    }
    let uid = catalogue.endpoints()[0].uid;
    for (url, key, more, kept) in [
        ("http://127.0.0.1:1/v1", "one", "max_concurrency = 4\ndiscover = true", true),
        ("http://127.0.0.1:2/v1", "one", "", false),
        ("http://127.0.0.1:1/v1", "two", "", false),
    ] {
        let reloaded = Catalogue::new(read(url, key, more), Some(&catalogue));
        for name in ["m", "e/passed-through"] {
            let after = remote(&reloaded, name);
            assert_eq!(after.breaker.phase() == Phase::Open, kept, "{url} {key} {name}");
            assert_eq!(after.highest_cost(), kept.then_some(7), "{url} {key} {name}");
            assert!(Arc::ptr_eq(&after.endpoint, &reloaded.endpoints()[0]), "its settings are the new ones");
        }
        assert_eq!(reloaded.endpoints()[0].uid == uid, kept, "its connections, too");
    }
}

#[test]
fn catalogue_without_endpoints_has_only_the_embedded_provider() {
    let catalogue = Catalogue::new(Config::default(), None);
    let resolved = catalogue.resolve("local", "k").expect("local");
    assert!(resolved.local());
    assert_eq!((&*resolved.route, &*resolved.model), ("local", "local"));
    assert_eq!(catalogue.analysis_target("summary", None), "local");
    let error = catalogue.resolve("gpt-5", "k").expect_err("no such model");
    assert_eq!((error.code(), error.message()), (Code::ModelNotFound, "no model \"gpt-5\"; there are: local"));
}
