//! A whole catalogue is read, and every problem is reported with its place.

use std::time::Duration;

use toml::Value;

use super::*;
use crate::base::settings::Problems;
use crate::llm::ThinkTags;

fn read(text: &str) -> (Config, Vec<String>) {
    let table: toml::Table = toml::from_str(text).expect("TOML");
    let mut problems = Problems::default();
    let mut root = Section::new("", Some(Value::Table(table)), &mut problems);
    let config = Config::read(&mut root);
    root.finish();
    (config, problems.into_vec().iter().map(ToString::to_string).collect())
}

#[test]
fn whole_catalogue_is_read() {
    let (config, problems) = read(
        r#"
        [endpoints.a]
        provider = "openai_compatible"
        base_url = "http://127.0.0.1:9/v1/"
        max_concurrency = 4
        structured_output = "json_object"
        think_tags = "strip"
        [models.fast]
        candidates = ["a/some/model:1", "local"]
        total_timeout_ms = 9000
        [routes.summary]
        variants = [{name = "x", model = "fast", weight = 0.9, params = {temperature = 0.1}}, {name = "y", model = "a/other"}]
        [gateway]
        default_route = "summary"
        "#,
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(config.endpoints[0].base_url, "http://127.0.0.1:9/v1");
    assert_eq!(config.endpoints[0].think_tags, ThinkTags::Strip);
    assert_eq!(config.models[0].timeouts.total, Duration::from_secs(9));
    assert_eq!(config.models[0].candidates.len(), 2);
    assert_eq!(config.routes[0].variants[0].params["temperature"], 0.1);
}

#[test]
fn all_problems_are_reported_with_their_places() {
    let (_, problems) = read(
        r#"
        [endpoints.a]
        provider = "openai_compatible"
        [endpoints.b]
        provider = "openay"
        [endpoints.cc]
        provider = "openai"
        think_tags = "hide"
        [endpoints.d]
        provider = "openai"
        api_version = "2026-10-21"
        [models.m]
        candidates = ["c/x", 5, "noslash"]
        balance = "weight"
        weights = [1, 2, 3]
        [models.n]
        candidates = 7
        [routes.r]
        variants = ["x", {name = "x", model = "mm", weight = -1}, {name = "x", model = "m", params = {temperature = "hot"}},
            {name = "y", model = "local", params = {temperature = 9, tool_choice = {type = "function", function = {name = "f"}}}}, {name = "z", model = "local", params = {tool_choice = {type = "function", function = {name = "f"}}}}]
        [gateway]
        default_route = "q"
        catch_all_route = "s"
        speed = 1
        "#,
    );
    let places: Vec<&str> = problems.iter().filter_map(|line| line.split_once(": ").map(|(place, _)| place)).collect();
    assert_eq!(
        places,
        [
            "endpoints.a.base_url",
            "endpoints.b.provider",
            "endpoints.cc.think_tags",
            "endpoints.d.api_version",
            "models.m.candidates[1]",
            "models.m.candidates[0]",
            "models.m.candidates[2]",
            "models.n.candidates",
            "routes.r.variants[0]",
            "routes.r.variants[1].model",
            "routes.r.variants[1].weight",
            "routes.r.variants[2].name",
            "routes.r.variants[2].params",
            "routes.r.variants[3].params",
            "gateway.default_route",
            "gateway.catch_all_route",
            "gateway.speed",
        ],
        "{problems:#?}"
    );
    let line =
        problems.iter().find(|line| line.starts_with("endpoints.cc.think_tags")).map_or("", |line| line.as_str());
    assert!(["auto", "keep", "strip", "hide"].iter().all(|name| line.contains(name)), "{line}");
}

/// A reference to an endpoint that has an error of its own is not a second error; a misspelt reference lists all names.
#[test]
fn unknown_name_lists_all_names_and_the_nearest() {
    let (_, problems) = read(
        r#"
        [endpoints.main]
        provider = "openai_compatible"
        [endpoints.spare]
        provider = "opnai"
        [models.m]
        candidates = ["main/x", "zz/x", "spre/x", "locl"]
        [models.fast]
        candidates = ["spare/x"]
        [routes.live]
        variants = [{model = "fst"}, {name = "b", model = "mian/x"}, {name = "c", model = "spare/x"}]
        [gateway]
        default_route = "life"
        catch_all_rout = "live"
        "#,
    );
    let lines: Vec<&str> = problems.iter().map(String::as_str).collect();
    let there = "there are: main, spare";
    for expected in [
        format!("models.m.candidates[1]: no endpoint \"zz\"; {there}"),
        format!("models.m.candidates[2]: no endpoint \"spre\"; {there}; did you mean \"spare\"?"),
        "models.m.candidates[3]: expected \"endpoint/vendor-model\" or \"local\", found \"locl\"; did you mean \"local\"?"
            .to_owned(),
        "routes.live.variants[0].model: no model \"fst\"; there are: m, fast, local, and any \"endpoint/vendor-model\"; \
         did you mean \"fast\"?"
            .to_owned(),
        format!("routes.live.variants[1].model: no endpoint \"mian\"; {there}; did you mean \"main\"?"),
        "gateway.default_route: no route \"life\"; there are: live; did you mean \"live\"?".to_owned(),
        "gateway.catch_all_rout: unknown key; there are: catch_all_route, default_route; did you mean \
         \"catch_all_route\"?"
            .to_owned(),
    ] {
        assert!(lines.contains(&expected.as_str()), "{expected}\n{lines:#?}");
    }
    assert!(lines.iter().any(|line| line.ends_with("found \"opnai\"; did you mean \"openai\"?")), "{lines:#?}");
    assert_eq!(lines.len(), 9, "{lines:#?}");
}

#[test]
fn models_without_a_price_are_named_once() {
    let (config, problems) = read(
        r#"
        [endpoints.a]
        provider = "openai"
        models = ["listed", "priced"]
        prices = [{model = "priced", input = 1, output = 2}, {model = "later", from = "2999-01-01", input = 1, output = 2}]
        [endpoints.all]
        provider = "openai"
        prices = [{model = "*", input = 1, output = 2}]
        [models.m]
        candidates = ["a/priced", "a/free", "all/x", "local"]
        [routes.r]
        variants = [{model = "a/free"}, {name = "b", model = "a/later"}]
        "#,
    );
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(config.unpriced(0), ["a/free", "a/later", "a/listed"]);
}
