use std::path::Path;

use serde_json::json;

use super::super::ask::Answer;
use super::*;
use crate::cli::input::Input;
use crate::transcript;

fn report(insights: &Value) -> Report {
    let text = "Ann: Please send the offer by Friday.\nBob: I will send it.\n";
    let (format, transcript) = transcript::read(text.as_bytes(), None).expect("a transcript");
    let turns = transcript.turns.iter().zip(0..).map(|(turn, number)| {
        let shown = json!({"turn": number, "stream_id": "s", "turn_order": number, "rev": 0, "speaker": turn.speaker,
            "text": turn.text, "start_ms": turn.start_ms + 61_000, "end_ms": turn.end_ms + 61_000});
        serde_json::from_value(shown).expect("a turn")
    });
    let turns = turns.collect();
    let body =
        json!({"call_id": "c", "turns": 2, "insights": insights, "missing": {"topics": "timeout"}, "cost_usd": 0.0123});
    let input = Input::Transcript(format.name(), transcript);
    Report::new(Path::new("/x/a_b.txt"), &input, Answer { body, turns }, Vec::new())
}

#[test]
fn report_page_has_every_part() {
    let insights = json!({
        "summary": {"analysis": "summary", "degraded": true, "provenance": {"endpoint": "local", "model": "local"},
            "value": {"headline": "An offer is *due*.", "points": [
                {"id": "p1", "text": "Ann wants an offer.", "speaker": "Ann"}, {"text": "1. first", "speaker": null}],
                "outcome": null, "evidence": [{"turn": 0, "quote": "send the offer"}]},
            "evidence": [{"turn": 0, "quote": "send the offer"}, {"turn": 9, "quote": "<b>", "unverified": true}]},
        "sentiment": {"value": {"overall": {"label": "neutral", "score": 0.0}, "trend": "stable",
            "speakers": [{"speaker": "Ann", "label": "neutral", "score": -0.25}]}, "evidence": []},
        "action_items": {"value": {"items": [{"id": "a", "text": "Send the offer", "owner": "Bob", "due": "Friday", "state": "open",
            "evidence": [{"turn": 1, "quote": "I will"}]}]}, "evidence": []},
        "stats": {"value": {"turns": {"Ann_LEE": 3, "bob_2": 1}, "longest_turn_ms": 900}, "evidence": []},
        "sentiment_turn": {"turns": {
            "1": {"turn": 1, "value": {"label": "positive"}}, "0": {"turn": 0, "value": {"label": "neutral"}}}},
    });
    let expected = "\
# a\\_b.txt

2 turns · about 1:05 · Ann, Bob · text · 0.0123 USD

## Summary

An offer is \\*due\\*.

**Points**

- Ann wants an offer. (Ann)
- 1\\. first

> “send the offer” (1:01, Ann)  
> “\\<b>” (turn 9, **not in the transcript**)  

*by local, degraded*

## Action items

**Items**

- Send the offer (owner: Bob, due: Friday, state: open)
  - **Evidence**
    - “I will” (1:03, Bob)

## Sentiment

- **Overall:** neutral 0.00
- **Trend:** stable

**Speakers**

- neutral (Ann, score: -0.25)

## Stats

- **Turns:** Ann\\_LEE 3, bob\\_2 1
- **Longest turn ms:** 900

## Sentiment turn

**1:01, Ann** Please send the offer by Friday.

neutral

**1:03, Bob** I will send it.

positive

## Missing

- topics: timeout
";
    assert_eq!(page(&report(&insights)), expected);
}

#[test]
fn report_shows_any_value_and_escapes_text() {
    let deep = (0..20).fold(json!("x"), |inner, _| json!({"more": [inner]}));
    for value in [
        json!(null),
        json!("# no"),
        json!([1, [2], {"a": 1.5}]),
        json!(true),
        deep,
        json!({"markdown": "# Yes\n<script>"}),
    ] {
        let page = page(&report(&json!({"own": {"value": value, "evidence": null}})));
        assert!(page.starts_with("# a") && page.contains("## Own") && !page.contains('<'), "{page}");
    }
    assert_eq!(escaped("- [a](b) `c` & 1. x\n# y"), "\\- \\[a\\](b) \\`c\\` & 1. x # y");
    assert_eq!(escaped("12) x &amp; <b>"), "12\\) x \\&amp; \\<b>");
    assert_eq!(escaped("1.5 and C#"), "1.5 and C#");
}
