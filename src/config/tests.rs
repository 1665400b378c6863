//! Checks across sections: the routes of analyses, and that no secret is shown.

use std::path::Path;

use super::*;
use crate::base::secret::repeats;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    Config::parse(text, Path::new(".")).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Names of the built-in analyses that are `wanted`, sorted.
fn built_in(wanted: impl Fn(&Analysis) -> bool) -> Vec<String> {
    let registry = Analyses::builtin();
    let is_wanted = |name: &&String| registry.get(name).is_some_and(|analysis| wanted(analysis));
    registry.names().iter().filter(is_wanted).cloned().collect()
}

const ENDPOINTS: &str = "[endpoints.a]\nprovider = \"openai\"\n[endpoints.b]\nprovider = \"anthropic\"\n\
                         [models.one]\ncandidates = [\"a/x\", \"b/y\"]\n[models.two]\ncandidates = [\"b/y\"]\n";

#[test]
fn a_gateway_alone_needs_no_route() {
    let config = parse(ENDPOINTS).expect("a gateway alone");
    let warning = config.warnings().join("\n");
    assert!(warning.starts_with("analyses sentiment, summary: no route"), "{warning}");
    let routed = parse(&format!(
        "{ENDPOINTS}[gateway]\ndefault_route = \"r\"\n[routes.r]\nvariants = [{{name = \"v\", model = \"one\"}}]\n"
    ));
    assert_eq!(routed.expect("a route for all").warnings(), [""; 0]);
    assert_eq!(parse("").expect("the defaults").warnings(), [""; 0]);
}

#[test]
fn an_analysis_that_somebody_asked_for_needs_a_model() {
    let source = "[[source]]\nurl = \"ws://127.0.0.1:1\"\nanalyses = [\"summary\"]\n";
    for wanted in ["[analyses.summary]\nevery_n_turns = 2\n", "[ingest]\nanalyses = [\"summary\"]\n", source] {
        let problems = parse(&format!("{ENDPOINTS}{wanted}")).expect_err(wanted);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("analyses.summary.route: missing"), "{problems:?}");
    }
    assert!(parse(&format!("{ENDPOINTS}[analyses.summary]\nroute = \"local\"\n")).is_ok());
    for endpoints in ["", ENDPOINTS] {
        let problems =
            parse(&format!("{endpoints}[analyses.summary]\nroute = \"nowhere\"\n")).expect_err("no such route");
        assert!(problems[0].starts_with("analyses.summary.route: no route or model \"nowhere\""), "{problems:?}");
    }
}

#[test]
fn window_smaller_than_the_rest_of_the_prompt_is_refused_by_name() {
    let read = |tokens: u64| {
        let analysis = format!("[analyses.summary]\nroute = \"local\"\nmax_context_tokens = {tokens}\n");
        // Of a single turn, it limits only the turns before it.
        parse(&format!("{analysis}[analyses.sentiment_turn]\nroute = \"local\"\nmax_context_tokens = 100\n"))
    };
    let problems = read(100).expect_err("too small");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("analyses.summary.max_context_tokens: 100 tokens are less than the "),
        "{problems:?}"
    );
    let least = problems[0].rsplit_once("set it to ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    let least: u64 = least.expect("the message says what is enough");
    assert!(least < 2_000 && read(least - 1).is_err() && read(least).is_ok(), "{least}");
}

#[test]
fn bundle_over_two_routes_is_an_error_that_names_both() {
    let routes = "[routes.r]\nvariants = [{name = \"v\", model = \"one\"}]\n[routes.s]\nvariants = [{name = \"v\", model = \"two\"}]\n\
                  [gateway]\ndefault_route = \"r\"\n";
    let read = |analyses: &str| parse(&format!("{ENDPOINTS}{routes}{analyses}"));
    for (analyses, expected) in [
        (
            "[analyses.summary]\nbundle = \"x\"\n[analyses.topics]\nbundle = \"x\"\nroute = \"s\"\n",
            "analyses.topics.bundle: \"x\" has analyses of two routes: summary asks \"r\", and topics asks \"s\"",
        ),
        (
            "[analyses.action_items]\nbundle = \"r\"\nroute = \"s\"\n",
            "analyses.action_items.bundle: \"r\" has analyses of two routes: sentiment asks \"r\", and action_items asks \"s\"",
        ),
        (
            "[analyses.sentiment_turn]\nbundle = \"x\"\n",
            "analyses.sentiment_turn.bundle: an analysis of scope \"turn\"",
        ),
        ("[analyses.stats]\nbundle = \"x\"\n", "analyses.stats.bundle: the analysis is computed"),
        (
            "[analyses.sentiment_turn]\nevery_n_turns = 3\n",
            "analyses.sentiment_turn.every_n_turns: an analysis of scope \"turn\"",
        ),
        (
            "[analyses.sentiment_turn]\ngate = false\n",
            "analyses.sentiment_turn.gate: an analysis of scope \"turn\" runs for each",
        ),
        (
            "[analyses.summary]\ncontext_turns = 3\n",
            "analyses.summary.context_turns: only an analysis of scope \"turn\"",
        ),
        (
            "[analyses.summary]\nlocal = \"mood\"\n",
            "analyses.summary.local: the values of this method are not valid under",
        ),
        ("[analyses.summary]\nbundle = 1\n", "analyses.summary.bundle: expected a string"),
    ] {
        let problems = read(analyses).expect_err(analyses);
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{problems:?}");
    }
    for right in [
        "[analyses.summary]\nbundle = \"x\"\n[analyses.topics]\nbundle = \"x\"\n",
        "[analyses.summary]\nbundle = \"\"\n[analyses.topics]\nbundle = \"\"\nroute = \"s\"\n",
        "[analyses.topics]\nroute = \"s\"\n",
        "[analyses.sentiment_turn]\nbundle = \"\"\n",
    ] {
        assert!(read(right).is_ok(), "{right}");
    }
}

#[test]
fn an_analysis_without_a_way_to_be_answered_is_an_error() {
    let answered = built_in(|analysis| analysis.settings.local.is_some()).join(", ");
    assert!(answered.contains("summary"), "{answered}");
    let local = "[models.l]\ncandidates = [\"local\"]\n[routes.r]\nvariants = [{name = \"v\", model = \"l\"}]\n";
    for (text, target) in [
        ("[analyses.topics]\nevery_n_turns = 2\n", "local"),
        ("[ingest]\nanalyses = [\"topics\"]\n", "local"),
        ("[rules.pause]\nkind = \"silence\"\nover_ms = 900\nruns = [\"topics\"]\n", "local"),
        ("[analyses.topics]\nroute = \"l\"\n", "l"),
        ("[analyses.topics]\nroute = \"r\"\n", "r"),
    ] {
        let problems = parse(&format!("{local}{text}")).expect_err(text);
        let expected = format!(
            "analyses.topics.route: topics needs a model, but only the embedded provider (local) answers {target:?}, and \
             it can answer only {answered}; configure [endpoints.NAME] and [models.NAME], and name the model or its route \
             here"
        );
        assert_eq!(problems, [expected]);
    }
    let answered = "[analyses.topics]\nroute = \"one\"\n[analyses.action_items]\nroute = \"local\"\n";
    assert!(parse(&format!("{ENDPOINTS}{answered}")).is_ok());
    assert!(parse("[analyses.action_items]\n[analyses.questions]\n").is_ok(), "the embedded provider answers them");
}

#[test]
fn dangling_references_are_reported_with_a_suggestion() {
    let folder = tempfile::tempdir().expect("folder");
    let mine = folder.path().join("mine");
    std::fs::create_dir(&mine).expect("folder");
    for version in ["v1", "v2"] {
        std::fs::write(mine.join(format!("{version}.j2")), "{{ transcript }}").expect("prompt");
    }
    std::fs::write(mine.join("schema.json"), r#"{"type":"object"}"#).expect("schema");
    let told = |text: &str| {
        let config = format!("[analyses.mine]\ndir = {:?}\n{text}", mine.display().to_string());
        match Config::parse(&config, folder.path()) {
            Ok(config) => config.warnings(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    };
    let one = "[endpoints.a]\nprovider = \"openai\"\nmodels = [\"x\"]\n[models.one]\ncandidates = [\"a/x-large\"]\n";
    let unasked = |name: &String| format!("routes.r.variants[0].prompt: analysis {name}: no prompt version \"v2\"");
    let unasked: Vec<String> = built_in(|analysis| !analysis.is_computed()).iter().map(unasked).collect();
    let routed = |variant: &str| format!("{one}[gateway]\ndefault_route = \"r\"\n[routes.r]\nvariants = [{variant}]\n");
    for (text, expected) in [
        // Analyses that run by default: errors.
        (
            routed("{model = \"one\"}, {name = \"b\", model = \"one\", prompt = \"v2\"}"),
            vec![
                "routes.r.variants[1].prompt: analysis sentiment: no prompt version \"v2\"; there are: v1; did you mean \"v1\"?",
                "routes.r.variants[1].prompt: analysis summary: no prompt version \"v2\"; there are: v1; did you mean \"v1\"?",
            ],
        ),
        // Analyses that run only if a call names them: warnings.
        (
            routed("{model = \"one\", prompt = \"v2\"}") + "[ingest]\nanalyses = [\"mine\"]\n",
            unasked.iter().map(String::as_str).collect(),
        ),
        (
            format!("{one}[routes.mine]\nvariants = [{{model = \"one\", prompt = \"v22\"}}]\n"),
            vec!["routes.mine.variants[0].prompt: analysis mine: no prompt version \"v22\"; there are: v1, v2; did you mean \"v2\"?"],
        ),
        (
            format!("{one}[routes.unasked]\nvariants = [{{model = \"one\", prompt = \"v9\"}}]\n"),
            vec!["routes.unasked.variants[0].prompt: no analysis asks this route, and none has a prompt version \"v9\""],
        ),
        (format!("prompt = \"v3\"\n{one}"), vec!["analyses.mine.prompt: no prompt version \"v3\"; there are: v1, v2; did you mean \"v1\"?"]),
        (
            format!("route = \"a/..\"\n{one}"),
            vec!["analyses.mine.route: expected a vendor's model id of A-Z a-z 0-9 . _ : @ / + - after the endpoint, \
                found \"..\""],
        ),
        (format!("route = \"one\"\n{one}[analyses.summary]\nprompt = \"v7\"\n"), vec!["analyses.summary.prompt: no prompt version \"v7\"; there are: v1"]),
        (
            one.replace("[models", "prices = [{model = \"x-lrage\", input = 1, output = 1}, {model = \"other\", input = 1, output = 1}]\n[models"),
            vec!["endpoints.a.prices: no model \"x-lrage\" is configured; did you mean \"x-large\"?"],
        ),
    ] {
        let told = told(&text);
        assert_eq!(told.len(), expected.len(), "{text}\n{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{expected}\n{told}");
        }
    }
}

/// Every kind of place that can contain a secret, by name.
const PLACES: &str = "[storage]\ndir = \"journal\"\n[server]\nkey = \"file:server\"\n[stt]\napi_key = \"file:stt\"\n\
    [endpoints.a]\nprovider = \"openai\"\napi_key = \"file:openai\"\n\
    headers = { x-one = \"file:header\", x-two = \"plain/9h+Jk=LpQw-ErTyUiOpAs\" }\n\
    [models.m]\ncandidates = [\"a/x\"]\n\
    [[sink]]\nkind = \"webhook\"\nurl = \"https://u:urlpw%2F8h%2BJk@h.example/hook?key=query/7h+Jk=LpQw\"\n\
    secret = \"file:sink\"\nheaders = { authorization = \"file:sent\" }\n\
    [[source]]\nurl = \"wss://h.example/?key=query/7h+Jk=LpQw\"\nheaders = { authorization = \"file:dialled\" }\n";

#[test]
fn printed_configuration_shows_no_secret() {
    let folder = tempfile::tempdir().expect("folder");
    let mut secrets =
        vec!["plain/9h+Jk=LpQw-ErTyUiOpAs".to_owned(), "query/7h+Jk=LpQw".to_owned(), "urlpw/8h+Jk".to_owned()];
    for name in ["server", "stt", "openai", "header", "sink", "sent", "dialled"] {
        let secret = format!("{name}/7h+Jk=LpQw-ErTyUiOpAs");
        std::fs::write(folder.path().join(name), &secret).expect("write");
        secrets.push(secret);
    }
    // Relative names are relative to the folder of the configuration.
    let config = Config::parse(PLACES, folder.path()).expect("a configuration");
    assert_eq!(config.storage.dir(), folder.path().join("journal"));
    let mut shown = format!("{config:?} {config:#?} {:?} {:?}", config.gateway.inventory(), config.warnings());
    // A message about a value in the wrong place, or of the wrong kind, does not show the secret either.
    for wrong in [
        "[server]\nkey = \"server/7h+Jk=LpQw-ErTyUiOpAs\"",
        "[stt]\napi_key = [\"stt/7h+Jk=LpQw-ErTyUiOpAs\"]\nupstream = \"https://u:urlpw%2F8h%2BJk@x\"",
        "[endpoints.a]\nprovider = \"openai\"\napi_key = \"openai/7h+Jk=LpQw-ErTyUiOpAs\"\n\
         base_url = \"https://u:urlpw%2F8h%2BJk@x/v1\"\nheaders = \"header/7h+Jk=LpQw-ErTyUiOpAs\"",
        "[[sink]]\nkind = \"webhook\"\nurl = \"ws://x/?key=query/7h+Jk=LpQw\"\nheaders = { a = [\"sent/7h+Jk=LpQw\"] }",
        "[[source]]\nurl = \"http://x/?key=query/7h+Jk=LpQw\"\nheaders = { a = \"dialled/7h+Jk=LpQw\\n\" }",
        "[telemetry]\notlp_endpoint = \"http://u:urlpw%2F8h%2BJk@x/\"",
    ] {
        shown += &format!("{:?}", Config::parse(wrong, folder.path()).map(|_| ()).expect_err(wrong));
    }
    assert!(shown.contains("file:openai") && shown.contains("expected"), "{shown}");
    let told: Vec<&String> = secrets.iter().filter(|secret| repeats(&shown, secret)).collect();
    assert!(told.is_empty(), "{told:?} in {shown}");
}

#[test]
fn model_without_a_price_under_a_spending_limit_is_a_warning() {
    let priced = "prices = [{model = \"*\", input = 1, output = 2}]\n";
    let routed = "[gateway]\ndefault_route = \"r\"\n[routes.r]\nvariants = [{model = \"m\"}]\n";
    let warnings = |limits: &str, prices: &str| {
        let text = format!(
            "{limits}[endpoints.a]\nprovider = \"openai\"\n{prices}[models.m]\ncandidates = [\"a/x\", \"local\"]\n{routed}"
        );
        parse(&text).expect("a configuration").warnings()
    };
    for (limits, named) in [
        ("[limits]\nusd_per_call = 1\n", "limits.usd_per_call: no price is known for a/x"),
        ("[limits]\nusd_per_day = 1\n", "limits.usd_per_day: no price is known for a/x"),
        ("[limits]\nusd_per_day = 1\nusd_per_call = 1\n", "limits.usd_per_call and limits.usd_per_day: no price"),
    ] {
        let told = warnings(limits, "");
        assert!(told.len() == 1 && told[0].starts_with(named), "{told:?}");
        assert_eq!(warnings(limits, priced), [""; 0]);
    }
    assert_eq!(warnings("", ""), [""; 0]);
}

#[test]
fn paths_in_messages_are_absolute() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("sidetone.toml");
    for (text, path) in [
        ("[server]\nkey = \"file:none\"\n", "none"),
        ("[analyses.x]\ndir = \"nowhere/x\"\n", "nowhere/x"),
        ("[endpoints", "sidetone.toml"),
    ] {
        std::fs::write(&file, text).expect("write");
        let problems = Config::load(Some(&file)).map(|_| ()).expect_err("refused");
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let path = folder.path().join(path).display().to_string();
        assert!(told.iter().any(|line| line.contains(&path)), "{path}: {told:?}");
    }
    // A relative path on the command line becomes absolute too.
    let missing = Config::load(Some(Path::new("no/such.toml"))).map(|_| ()).expect_err("refused");
    assert!(missing[0].path.starts_with('/') && missing[0].path.ends_with("no/such.toml"), "{missing:?}");
}

#[test]
fn name_of_an_invalid_section_can_be_referenced() {
    let problems = parse(
        "[ingest]\nanalyses = [\"mine\", \"sumary\"]\n[analyses.mine]\ndir = \"/nowhere\"\n\
         [[sink]]\nkind = \"webhook\"\nurl = \"https://h/\"\nanalyses = [\"mine\", \"mien\"]\n[enpoints.a]\n",
    )
    .expect_err("refused");
    let mut there = built_in(|_| true);
    there.push("mine".to_owned());
    there.sort_unstable();
    let there = format!("there are: {}", there.join(", "));
    for expected in [
        format!("ingest.analyses: no analysis \"sumary\"; {there}; did you mean \"summary\"?"),
        format!("sink[0].analyses: no analysis \"mien\"; {there}; did you mean \"mine\"?"),
    ] {
        assert!(problems.contains(&expected), "{expected}\n{problems:#?}");
    }
    assert!(
        problems.iter().any(|line| line.starts_with("enpoints: ") && line.ends_with("did you mean \"endpoints\"?"))
    );
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

#[test]
fn storage_dir_is_read_from_an_invalid_configuration() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("sidetone.toml");
    std::fs::write(&file, "[journal]\ndir = \"data\"\n[stt]\napi_key = \"env:ONLY_THE_DAEMON_HAS_THIS\"\n")
        .expect("write");
    assert_eq!(Config::storage(Some(&file)).expect("found").dir(), folder.path().join("data"));
    std::fs::write(&file, "[journal]\ndir = 5\n").expect("write");
    assert!(Config::storage(Some(&file)).is_err());
    std::fs::write(&file, "[storage]\ndir = \"data\"\n").expect("write");
    assert_eq!(Config::storage(Some(&file)).expect("found").dir(), folder.path().join("data"));
}

#[test]
fn server_listens_where_the_configuration_says() {
    let config = parse("[server]\nlisten = \"127.0.0.1:7711\"\n").expect("a configuration");
    assert_eq!(config.server.listen, "127.0.0.1:7711".parse().ok());
    for wrong in ["\"7711\"", "\"localhost\"", "7711", "\"\""] {
        let problems = parse(&format!("[server]\nlisten = {wrong}\n")).expect_err(wrong);
        assert!(problems[0].starts_with("server.listen: expected"), "{problems:?}");
    }
}

#[test]
fn rules_and_analyses_reference_existing_names() {
    let mood = "[rules.mood]\nkind = \"insight\"\nanalysis = \"sentiment\"\nbelow = 0\n";
    let churn = "[rules.churn]\nkind = \"keyword\"\nany = [\"cancel\"]\n";
    for (text, expected) in [
        (format!("{churn}runs = [\"sumary\"]"), "rules.churn.runs[0]: no analysis \"sumary\"; there are: "),
        (format!("{churn}runs = [\"sentiment_turn\"]"), "rules.churn.runs[0]: sentiment_turn is a per-turn analysis"),
        (mood.replace("sentiment", "moood") + "at = \"/x\"", "rules.mood.analysis: no analysis \"moood\"; there are: "),
        (format!("{mood}at = \"/overal/score\""), "rules.mood.at: sentiment has no member \"overal\"; there are: "),
        (format!("{mood}at = \"/overall/points\""), "rules.mood.at: sentiment has no member \"points\"; there are: "),
        (
            format!("{churn}[analyses.summary]\non = [\"alert:chrun\"]"),
            "analyses.summary.on: no rule \"chrun\"; there are: churn; did you mean \"churn\"?",
        ),
        (
            format!("{churn}[analyses.summary]\non = [\"speech\"]"),
            "analyses.summary.on[0]: expected \"silence\", \"speech_started\" or \"alert:RULE\", found \"speech\"",
        ),
        (
            format!("{churn}[analyses.sentiment_turn]\non = [\"alert:churn\"]"),
            "analyses.sentiment_turn.on: an analysis of scope \"turn\" runs for each turn, and has no triggers",
        ),
    ] {
        let problems = parse(&text).expect_err(&text);
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
        assert!(problems[0].starts_with(expected), "{expected}\n{}", problems[0]);
    }
    let well = format!(
        "{churn}runs = [\"summary\"]\n{mood}at = \"/overall/score\"\n[rules.long_silence]\nkind = \"silence\"\nover_ms = 9000\n\
         [analyses.summary]\non = [\"silence\", \"speech_started\", \"alert:mood\"]\n"
    );
    assert_eq!(parse(&well).expect("rules").rules.names(), ["churn", "mood", "long_silence"]);
    // An error in a rule is not also reported for an analysis that names the rule.
    let broken = "[rules.a]\nkind = \"silence\"\n[analyses.summary]\non = [\"silence\", \"alert:a\"]\n";
    assert_eq!(parse(broken).expect_err("a rule"), ["rules.a.over_ms: is required"]);
}

#[test]
fn example_rules_are_valid() {
    let config = parse(include_str!("../../config/rules.toml")).expect("the example");
    assert_eq!(config.rules.names(), ["disclosure", "churn", "long_silence", "bad_mood"]);
    assert_eq!(config.rules.iter().count(), 4);
}
