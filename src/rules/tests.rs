//! The configuration of rules: what is accepted, and the errors about the rest.

use super::*;
use crate::base::settings::Problems;
use crate::types::{StreamId, TurnNo};

/// A turn of `speaker`.
pub(in crate::rules) fn turn(number: TurnNo, speaker: &str, text: &str) -> Turn {
    Turn {
        turn: number,
        stream_id: StreamId::parse("s_1").expect("id"),
        turn_order: number,
        vendor_turn: None,
        rev: 0,
        speaker: Some(speaker.to_owned()),
        text: text.to_owned(),
        start_ms: 0,
        end_ms: 0,
        language: None,
        confidence: None,
        words: Vec::new(),
    }
}

fn read(text: &str) -> (Rules, Vec<String>) {
    let mut problems = Problems::default();
    let table: toml::Table = text.parse().expect("toml");
    let rules = Rules::read(Some(toml::Value::Table(table)), &mut problems);
    (rules, problems.into_vec().iter().map(ToString::to_string).collect())
}

#[test]
fn each_kind_is_read_with_its_keys() {
    let (rules, problems) = read(
        r#"
        [churn]
        kind = "keyword"
        any = ["cancel", "/refund(ed)?/"]
        speaker = "customer"
        severity = "critical"
        message = "The customer may leave."
        runs = ["churn_report"]
        [disclosure]
        kind = "absence"
        any = ["this call is recorded"]
        within_ms = 30000
        [greeting]
        kind = "absence"
        any = ["hello"]
        within_ms = 5000
        of = "stream"
        [offer]
        kind = "absence"
        any = ["discount"]
        within_ms = 60000
        after = "churn"
        [long_silence]
        kind = "silence"
        over_ms = 20000
        severity = "info"
        [crosstalk]
        kind = "overlap"
        over_ms = 1500
        [mood]
        kind = "insight"
        analysis = "sentiment"
        at = "/overall/score"
        below = -0.5
        for_ms = 20000
        "#,
    );
    assert_eq!(problems, [""; 0]);
    let churn = rules.get("churn").expect("a rule");
    assert_eq!((churn.severity, churn.message.as_str()), (Severity::Critical, "The customer may leave."));
    assert_eq!(churn.runs, ["churn_report"]);
    let said = churn.condition.said().expect("words");
    let roles = Roles::of(&serde_json::from_str(r#"{"roles":{"B":"Customer"}}"#).expect("json"), None);
    assert!(said.is_by(&turn(0, "B", ""), &roles) && !said.is_by(&turn(0, "A", ""), &roles));
    let since = |name: &str| match &rules.get(name).expect("a rule").condition {
        Condition::Absence(absence) => (absence.within_ms, &absence.since),
        other => panic!("{other:?}"),
    };
    assert_eq!(since("disclosure"), (30_000, &Since::Call));
    assert_eq!(since("greeting"), (5_000, &Since::Stream));
    assert_eq!(since("offer"), (60_000, &Since::Alert("churn".to_owned())));
    let silence = rules.get("long_silence").expect("a rule");
    assert!(matches!(silence.condition, Condition::Silence(20_000)));
    assert_eq!(
        (silence.severity, silence.message.as_str()),
        (Severity::Info, "long silence"),
        "its name, if nothing is said"
    );
    assert!(matches!(rules.get("crosstalk").expect("a rule").condition, Condition::Overlap(1_500)));
    let Condition::Insight(reading) = &rules.get("mood").expect("a rule").condition else { panic!("no insight") };
    assert_eq!((reading.for_ms, &reading.test), (20_000, &Test::Below(-0.5)));
    assert_eq!(rules.get("disclosure").expect("a rule").severity, Severity::Warning);
    let names: Vec<&str> = rules.iter().map(|(_, rule)| &*rule.name).collect();
    assert_eq!(names, rules.names());
}

#[test]
fn every_fault_has_its_key() {
    for (text, expected) in [
        ("a = 5", &["rules.a: expected a table, found 5", "rules.a.kind: is required"][..]),
        ("[a]\nany = [\"x\"]", &["rules.a.kind: is required"]),
        (
            "[a]\nkind = \"keywrd\"\nany = [\"x\"]",
            &[
                "rules.a.kind: expected one of keyword, absence, silence, overlap, insight, found \"keywrd\"; did you mean \"keyword\"?",
            ],
        ),
        ("[a]\nkind = \"keyword\"", &["rules.a.any: is required"]),
        (
            "[a]\nkind = \"keyword\"\nany = []",
            &["rules.a.any: expected at least one: words, or a pattern between slashes"],
        ),
        (
            "[a]\nkind = \"keyword\"\nany = [\"…\", 5, \"/[/\"]",
            &[
                "rules.a.any[1]: expected a string, found 5",
                "rules.a.any[0]: expected words, or a pattern between slashes, found \"…\"",
                "rules.a.any[2]: the pattern \"[\" cannot be used: ",
            ],
        ),
        (
            "[a]\nkind = \"keyword\"\nany = [\"x\"]\nover_ms = 5",
            &["rules.a.over_ms: unknown key; there are: any, kind, message, runs, severity, speaker"],
        ),
        ("[a]\nkind = \"absence\"\nany = [\"x\"]", &["rules.a.within_ms: is required"]),
        (
            "[a]\nkind = \"absence\"\nany = [\"x\"]\nwithin_ms = 5\nafter = \"bb\"\n[b]\nkind = \"silence\"\nover_ms = 500",
            &["rules.a.after: no rule \"bb\"; there are: a, b"],
        ),
        (
            "[a]\nkind = \"absence\"\nany = [\"x\"]\nwithin_ms = 5\nafter = \"b\"\nof = \"call\"\n[b]\nkind = \"silence\"\nover_ms = 500",
            &["rules.a.of: has no meaning with after"],
        ),
        (
            "[a]\nkind = \"absence\"\nany = [\"x\"]\nwithin_ms = 5\nafter = \"b\"\n\
             [b]\nkind = \"absence\"\nany = [\"x\"]\nwithin_ms = 5\nafter = \"a\"",
            &["rules.a.after: waits for itself: a, b", "rules.b.after: waits for itself: b, a"],
        ),
        ("[a]\nkind = \"silence\"", &["rules.a.over_ms: is required"]),
        (
            "[a]\nkind = \"silence\"\nover_ms = 1",
            &["rules.a.over_ms: expected an integer from 100 to 86400000, found 1"],
        ),
        (
            "[a]\nkind = \"insight\"",
            &[
                "rules.a.analysis: is required",
                "rules.a.at: is required",
                "rules.a.at: expected one of below, above and equals beside it, found 0",
            ],
        ),
        (
            "[a]\nkind = \"insight\"\nanalysis = \"s\"\nat = \"overall\"\nbelow = 1\nabove = 2",
            &[
                "rules.a.at: expected a JSON pointer such as \"/overall/score\", found \"overall\"",
                "rules.a.at: expected one of below, above and equals beside it, found 2",
            ],
        ),
        (
            "[a]\nkind = \"insight\"\nanalysis = \"s\"\nat = \"/x\"\nequals = [1]",
            &["rules.a.equals: expected a string, a number, true or false, found [1]"],
        ),
        (
            "[a]\nkind = \"silence\"\nover_ms = 500\nseverity = \"high\"",
            &["rules.a.severity: expected one of info, warning, critical, found \"high\""],
        ),
        ("[\"a b\"]\nkind = \"silence\"\nover_ms = 500", &["rules.a b: "]),
    ] {
        let (_, problems) = read(text);
        assert_eq!(problems.len(), expected.len(), "{text}\n{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{expected}\n{problem}");
        }
    }
    let mut problems = Problems::default();
    Rules::read(Some(toml::Value::Integer(5)), &mut problems);
    assert_eq!(problems.into_vec()[0].to_string(), "rules: expected tables [rules.NAME], found 5");
}

#[test]
fn bounds_of_the_configuration_have_names() {
    use std::fmt::Write as _;
    let (mut many, mut patterns, mut states) = (String::new(), String::new(), String::new());
    for number in 0..=RULES.most {
        writeln!(many, "[r{number}]\nkind = \"silence\"\nover_ms = 500").expect("text");
    }
    writeln!(patterns, "[a]\nkind = \"keyword\"\nany = [{}]", "\"/x/\", ".repeat(65)).expect("text");
    writeln!(states, "[a]\nkind = \"keyword\"\nany = [{}]", "'/\\w{15}/', ".repeat(5)).expect("text");
    let words = format!("[a]\nkind = \"keyword\"\nany = [{}]", "\"x\", ".repeat(201));
    let long = format!("[a]\nkind = \"keyword\"\nany = [\"{}\"]", "x".repeat(1_025));
    let message = format!("[a]\nkind = \"silence\"\nover_ms = 500\nmessage = \"{}\"", "x".repeat(1_025));
    for (text, expected) in [
        (many, "rules: 101 of them: over the limit rules (100)"),
        (patterns, "rules.a.any[64]: over the limit rule_patterns (64)"),
        (states, "rules.a.any[4]: over the limit rule_pattern_states (50000)"),
        (words, "rules.a.any: 201 of them: over the limit rule_phrases (200)"),
        (
            "[a]\nkind = \"keyword\"\nany = ['/(a{900}){900}/']".to_owned(),
            "rules.a.any[0]: the pattern \"(a{900}){900}\" cannot be used: over the limit rule_pattern_bytes (1048576)",
        ),
        (long, "rules.a.any[0]: over the limit rule_phrase_bytes (1024)"),
        (message, "rules.a.message: has 1025 bytes: over the limit rule_message_bytes (1024)"),
    ] {
        let (_, problems) = read(&text);
        assert_eq!(problems, [expected]);
    }
}
