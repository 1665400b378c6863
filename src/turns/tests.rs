mod replay;

use std::sync::Arc;

use super::*;
use crate::types::{Final, Revision, StreamId, SttEvent, Turn, TurnKey, Word};

fn stream() -> StreamId {
    StreamId::parse("s_1").expect("id")
}

fn words(spec: &str) -> Vec<Word> {
    // The format is `B:word@start-end`, with `_` for no speaker.
    spec.split_whitespace()
        .map(|item| {
            let (speaker, rest) = item.split_once(':').expect("speaker");
            let (text, times) = rest.split_once('@').expect("times");
            let (start, end) = times.split_once('-').expect("end");
            Word {
                text: text.to_owned(),
                start_ms: start.parse().expect("start"),
                end_ms: end.parse().expect("end"),
                speaker: (speaker != "_").then(|| speaker.to_owned()),
                confidence: Some(0.5),
            }
        })
        .collect()
}

fn vendor(id: u64) -> TurnKey {
    TurnKey::Vendor(id.to_string())
}

fn last(key: TurnKey, formatted: bool, text: &str, spec: &str) -> SttEvent {
    SttEvent::Final(Box::new(Final {
        key,
        formatted,
        text: text.to_owned(),
        speaker: None,
        words: words(spec),
        start_ms: None,
        end_ms: None,
        language: None,
        confidence: None,
    }))
}

fn revise(key: TurnKey, speaker: Option<&str>, text: Option<&str>, spec: &str) -> SttEvent {
    SttEvent::Revise(Box::new(Revision {
        key,
        speaker: speaker.map(str::to_owned),
        text: text.map(str::to_owned),
        words: words(spec),
    }))
}

/// A table, and the journal of its changes.
#[derive(Default)]
struct Table {
    turns: Turns,
    journal: Vec<(Turn, String)>,
}

impl Table {
    fn apply(&mut self, event: &SttEvent) -> Vec<Change> {
        self.apply_as(event, true)
    }

    fn apply_as(&mut self, event: &SttEvent, splits: bool) -> Vec<Change> {
        let mut out = Vec::new();
        let applied = self.turns.apply(&stream(), splits, 1_000, 77, event, &mut out);
        assert!(applied.is_ok() || out.is_empty(), "a refused event changes nothing");
        for change in &out {
            let wire = Turn { words: Vec::new(), ..Turn::clone(&change.turn) };
            self.journal.push((wire, serde_json::to_string(&change.private).expect("json")));
        }
        out
    }

    fn restored(&self) -> Turns {
        let mut turns = Turns::new();
        for (turn, private) in &self.journal {
            turns.restore(turn.clone(), serde_json::from_str(private).expect("json")).expect("no hole");
        }
        turns
    }

    /// `speaker: text` of each turn, including turns whose text was removed.
    fn shown(&self) -> Vec<String> {
        let show = |turn: &Arc<Turn>| format!("{}: {}", turn.speaker.as_deref().unwrap_or("?"), turn.text);
        self.turns.iter().map(show).collect()
    }
}

fn assert_same(live: &Turns, restored: &Turns) {
    assert_eq!(live.iter().collect::<Vec<_>>(), restored.iter().collect::<Vec<_>>());
    assert_eq!(live.revision(), restored.revision());
    for (id, stream) in &live.streams {
        let Some(other) = restored.streams.get(id) else {
            assert!(stream.highest.is_none(), "a stream with turns was lost");
            continue;
        };
        assert_eq!((stream.highest, stream.next_order), (other.highest, other.next_order));
        for (index, vendor) in stream.vendors.iter().enumerate() {
            // State that is not saved yet is saved with the stream's next change.
            if !stream.unsaved.contains(&index) {
                let other = other.by_key.get(&vendor.key).map(|index| &other.vendors[*index]);
                assert!(other == Some(vendor) || (other.is_none() && vendor.parts.is_empty()), "{vendor:?} {other:?}");
            }
        }
    }
}

#[test]
fn double_finals_are_one_turn_and_a_resend_changes_nothing() {
    let mut table = Table::default();
    let raw = last(vendor(0), false, "hi there", "_:hi@0-10 _:there@20-30");
    let formatted = last(vendor(0), true, "Hi there.", "_:Hi@0-10 _:there.@20-30");
    assert_eq!(table.apply(&raw)[0].kind, ChangeKind::New);
    assert_eq!(table.apply(&formatted)[0].kind, ChangeKind::Revised(vec!["text"]));
    for event in [&raw, &formatted, &raw] {
        assert!(table.apply(event).is_empty());
    }
    let turn = table.turns.get(0).expect("turn");
    assert_eq!((turn.rev, turn.text.as_str(), turn.start_ms, turn.end_ms), (1, "Hi there.", 1_000, 1_030));
    assert_eq!(turn.vendor_turn.as_deref(), Some("0"));
    // Other words of the same turn, unformatted: they come too late.
    assert!(table.apply(&last(vendor(0), false, "hi dear", "")).is_empty());
    assert_eq!(table.turns.len(), 1);
    assert_same(&table.turns, &table.restored());
}

#[test]
fn a_duplicate_is_one_whatever_revised_the_turn_since() {
    let mut table = Table::default();
    let event = last(TurnKey::Order(9), true, "Hello", "");
    table.apply_as(&event, false);
    table.apply_as(&revise(TurnKey::Order(9), Some("customer"), None, ""), false);
    table.apply_as(&revise(TurnKey::Order(9), None, Some("Hallo"), ""), false);
    assert!(table.apply_as(&event, false).is_empty());
    assert_eq!(table.shown(), ["customer: Hallo"]);
    assert_eq!(table.apply_as(&last(TurnKey::Order(9), true, "Hey", ""), false).len(), 1);
    assert_eq!(table.shown(), ["customer: Hey"], "the speaker given by a revision stays");
    assert_eq!(table.turns.get(0).expect("turn").turn_order, 9);
    assert_eq!(table.turns.acked(&stream()), Some(9));
    assert_same(&table.turns, &table.restored());
}

#[test]
fn empty_finals_are_no_turn_and_never_blank_a_vendors_turn() {
    let mut table = Table::default();
    assert!(table.apply(&last(vendor(0), true, " ", "")).is_empty());
    assert_eq!(table.turns.acked(&stream()), None);
    table.apply(&last(vendor(1), true, "Bye.", ""));
    assert!(table.apply(&last(vendor(1), true, "", "")).is_empty());
    assert_eq!(table.shown(), ["?: Bye."]);
    // A producer that numbers its own turns may remove the text of one.
    table.apply_as(&last(TurnKey::Order(7), true, "Oops", ""), false);
    table.apply_as(&last(TurnKey::Order(7), true, "", ""), false);
    assert_eq!(table.shown(), ["?: Bye.", "?: "]);
}

#[test]
fn a_mixed_final_is_cut_and_its_formatted_form_is_laid_over_the_cuts() {
    let mut table = Table::default();
    let raw = last(
        vendor(0),
        false,
        "how are you fine thanks",
        "A:how@0-100 A:are@100-200 A:you@200-300 B:fine@400-500 B:thanks@500-600",
    );
    assert_eq!(table.apply(&raw).len(), 2);
    assert_eq!(table.shown(), ["A: how are you", "B: fine thanks"]);
    let formatted = last(
        vendor(0),
        true,
        "How are you? Fine, thanks.",
        "_:How@0-100 _:are@100-200 _:you?@200-300 _:Fine,@400-500 _:thanks.@500-600",
    );
    assert_eq!(table.apply(&formatted).len(), 2);
    assert_eq!(table.shown(), ["A: How are you?", "B: Fine, thanks."], "words without speakers keep the parts'");
    let orders: Vec<_> =
        table.turns.iter().map(|turn| (turn.turn, turn.turn_order, turn.vendor_turn.clone())).collect();
    assert_eq!(orders, [(0, 0, Some("0".into())), (1, 1, Some("0".into()))]);
    assert_same(&table.turns, &table.restored());
}

#[test]
fn the_first_final_with_word_speakers_cuts_and_part_0_keeps_its_ordinal() {
    let mut table = Table::default();
    table.apply(&last(vendor(0), false, "yes no", "_:yes@0-100 _:no@200-300"));
    table.apply(&last(vendor(1), false, "next", "_:next@400-500"));
    let changes = table.apply(&last(vendor(0), true, "Yes. No.", "A:Yes.@0-100 B:No.@200-300"));
    assert_eq!(changes.iter().map(|change| change.turn.turn).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(changes[0].kind, ChangeKind::Revised(vec!["text", "speaker", "times"]));
    assert_eq!(changes[1].kind, ChangeKind::New);
    assert_eq!(table.shown(), ["A: Yes.", "?: next", "B: No."]);
    assert_same(&table.turns, &table.restored());
}

#[test]
fn parts_are_never_added_or_taken_away_and_an_empty_one_leaves() {
    let mut table = Table::default();
    table.apply(&last(vendor(0), false, "one two", "A:one@0-100 B:two@200-300"));
    // Three runs of speakers now, and all words on one side.
    table.apply(&last(vendor(0), true, "Eins, zwei, drei.", "A:Eins,@0-40 B:zwei,@40-60 A:drei.@60-100"));
    assert_eq!(table.shown(), ["A: Eins, zwei, drei.", "B: "]);
    assert_same(&table.turns, &table.restored());
}

#[test]
fn a_speaker_revision_moves_words_between_labels_not_cuts_and_stays() {
    let mut table = Table::default();
    let raw = "A:so@0-100 A:well@100-200 B:right@300-400 B:then@400-500";
    table.apply(&last(vendor(0), false, "so well right then", raw));
    let revised = revise(vendor(0), Some("B"), None, "B:so@0-100 B:well@100-200 A:right@300-400 B:then@400-500");
    let changes = table.apply(&revised);
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0].kind, ChangeKind::Revised(vec!["speaker"]));
    assert_eq!(changes[1].kind, ChangeKind::Revised(vec!["words"]), "of equal times the one that was");
    assert_eq!(table.shown(), ["B: so well", "B: right then"]);
    assert!(table.apply(&revised).is_empty());
    // The formatted final still has the speakers that the vendor assumed first.
    let formatted = "A:So@0-100 A:well,@100-200 B:right@300-400 B:then.@400-500";
    table.apply(&last(vendor(0), true, "So well, right then.", formatted));
    assert_eq!(table.shown(), ["B: So well,", "B: right then."]);
    assert_same(&table.turns, &table.restored());
}

#[test]
fn a_revision_with_other_times_moves_words_over_the_cut() {
    let mut table = Table::default();
    table.apply(&last(
        vendor(0),
        true,
        "One two, three four.",
        "A:One@0-100 A:two,@100-200 B:three@300-400 B:four.@400-500",
    ));
    let revised = "A:One@0-100 B:two,@280-300 B:three@300-400 B:four.@400-500";
    assert_eq!(table.apply(&revise(vendor(0), Some("A"), None, revised)).len(), 2);
    assert_eq!(table.shown(), ["A: One", "B: two, three four."]);
    assert_eq!(table.turns.get(1).expect("turn").start_ms, 1_280);
    assert_same(&table.turns, &table.restored());
}

#[test]
fn a_revision_that_comes_early_waits_and_is_saved_with_the_next_change() {
    let mut table = Table::default();
    let early = revise(vendor(5), Some("B"), Some("Corrected."), "");
    assert!(table.apply(&early).is_empty());
    assert!(table.turns.holding(&stream()));
    assert!(table.apply(&early).is_empty(), "once");
    table.apply(&last(vendor(4), true, "Other.", ""));
    assert!(!table.turns.holding(&stream()));
    // Killed here: the revision is in the record of the other turn.
    let mut after = Table { turns: table.restored(), journal: table.journal };
    after.apply(&last(vendor(5), true, "Wrong.", ""));
    assert_eq!(after.shown(), ["?: Other.", "B: Corrected."]);
    assert_eq!(after.turns.get(1).expect("turn").rev, 1);
    assert_same(&after.turns, &after.restored());
    let refused = Turns::new().apply(&stream(), true, 0, 0, &revise(TurnKey::Next, None, None, ""), &mut Vec::new());
    assert_eq!(refused, Err(TurnError::Unnamed));
}

#[test]
fn early_revisions_are_bounded() {
    let mut turns = Turns::new();
    for id in 0..MAX_EARLY_REVISIONS as u64 {
        turns.apply(&stream(), true, 0, 0, &revise(vendor(id), Some("B"), None, ""), &mut Vec::new()).expect("room");
    }
    let over = turns.apply(&stream(), true, 0, 0, &revise(vendor(999), Some("B"), None, ""), &mut Vec::new());
    assert_eq!(over, Err(TurnError::TooManyEarly));
    turns.apply(&stream(), true, 0, 0, &last(vendor(3), true, "x", ""), &mut Vec::new()).expect("applied");
    turns.apply(&stream(), true, 0, 0, &revise(vendor(999), Some("B"), None, ""), &mut Vec::new()).expect("room again");
}

#[test]
fn merged_speakers_relabel_what_came_before_and_stay_merged() {
    let mut table = Table::default();
    table.apply(&last(vendor(0), false, "one two", "A:one@0-100 C:two@200-300"));
    table.apply(&last(TurnKey::Next, true, "three", "C:three@400-500"));
    let changes = table.apply(&SttEvent::MergeSpeakers { from: "C".into(), to: "B".into() });
    assert_eq!(changes.len(), 2);
    table.apply(&last(vendor(0), true, "One. Two.", "A:One.@0-100 C:Two.@200-300"));
    table.apply(&last(vendor(1), true, "Four.", "C:Four.@600-700"));
    assert_eq!(table.shown(), ["A: One.", "B: Two.", "B: three", "C: Four."]);
    assert_same(&table.turns, &table.restored());
}

#[test]
fn turns_without_times_take_the_arrival_and_keep_it() {
    let mut table = Table::default();
    table.apply(&last(TurnKey::Order(0), true, "Hi", ""));
    let mut out = Vec::new();
    table.turns.apply(&stream(), false, 0, 9_999, &last(TurnKey::Order(0), true, "Hello", ""), &mut out).expect("ok");
    assert_eq!((out[0].turn.start_ms, out[0].turn.end_ms), (77, 77));
    assert_eq!(out[0].kind, ChangeKind::Revised(vec!["text"]));
}

#[test]
fn partials_are_void_once_their_turn_is_final() {
    let mut table = Table::default();
    assert_eq!(table.turns.partial_order(&stream(), &vendor(0)), Some(0));
    table.apply(&last(vendor(0), false, "a b", "A:a@0-1 B:b@5-6"));
    assert_eq!(table.turns.partial_order(&stream(), &vendor(0)), None);
    assert_eq!(table.turns.partial_order(&stream(), &vendor(1)), Some(2));
    assert_eq!(table.turns.partial_order(&stream(), &TurnKey::Next), Some(2));
    table.apply_as(&last(TurnKey::Order(12), true, "x", ""), false);
    assert_eq!(table.turns.partial_order(&stream(), &TurnKey::Order(12)), None);
    assert_eq!(table.turns.partial_order(&stream(), &TurnKey::Order(3)), None);
    assert_eq!(table.turns.partial_order(&stream(), &TurnKey::Order(13)), Some(13));
}

#[test]
fn a_record_that_does_not_follow_is_refused() {
    let mut table = Table::default();
    table.apply(&last(vendor(0), true, "a", ""));
    table.apply(&last(vendor(1), true, "b", ""));
    let (turn, _) = table.journal[1].clone();
    assert_eq!(Turns::new().restore(turn, TurnPrivate::default()), Err(TurnError::Hole { found: 1, len: 0 }));
}
