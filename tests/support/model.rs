//! The expected turns of a call, from the AssemblyAI frames of one stream: an implementation of the contract's rules
//! that is independent of the daemon's.

use std::collections::BTreeMap;

use super::Json;

/// The final form of a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Ordinal in the call, which is also the number in its stream.
    pub turn: u64,
    /// The vendor's id.
    pub vendor_turn: String,
    /// Label.
    pub speaker: Option<String>,
    /// Text.
    pub text: String,
    /// Stream time.
    pub start_ms: Option<u64>,
    /// Stream time.
    pub end_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
struct Word {
    text: String,
    start: u64,
    end: u64,
    speaker: Option<String>,
}

#[derive(Debug, Default)]
struct VendorTurn {
    ordinals: Vec<u64>,
    /// Ends of all parts except the last, stream time; empty = not split.
    cuts: Vec<u64>,
    may_cut: bool,
    formatted: bool,
    text: String,
    label: Option<String>,
    words: Vec<Word>,
    /// Revisions of the turn's speakers, in order: they also apply to finals that come later.
    revisions: Vec<Json>,
}

/// Applies the frames; returns the turns in order of their ordinals.
pub fn turns_of<'a>(frames: impl IntoIterator<Item = &'a Json>) -> Vec<Expected> {
    let mut turns: BTreeMap<String, VendorTurn> = BTreeMap::new();
    let mut next = 0;
    for frame in frames {
        match frame["type"].as_str() {
            Some("Turn") if frame["end_of_turn"] == true => apply_final(&mut turns, &mut next, frame),
            Some("SpeakerRevision") => {
                for revision in frame["revisions"].as_array().into_iter().flatten() {
                    if let Some(turn) = turns.get_mut(&revision["turn_order"].to_string()) {
                        apply_revision(turn, revision);
                        turn.revisions.push(revision.clone());
                    }
                }
            }
            _ => {}
        }
    }
    let mut expected: Vec<Expected> = turns.iter().flat_map(|(vendor, turn)| parts(vendor, turn)).collect();
    expected.sort_by_key(|turn| turn.turn);
    expected
}

fn apply_final(turns: &mut BTreeMap<String, VendorTurn>, next: &mut u64, frame: &Json) {
    let text = frame["transcript"].as_str().unwrap_or_default().trim();
    if text.is_empty() {
        return;
    }
    let formatted = frame["turn_is_formatted"] == true;
    let turn = turns
        .entry(frame["turn_order"].to_string())
        .or_insert_with(|| VendorTurn { may_cut: true, ..VendorTurn::default() });
    if turn.formatted && !formatted {
        return;
    }
    let first = turn.ordinals.is_empty();
    turn.formatted = formatted;
    turn.text = text.to_owned();
    turn.label = frame["speaker_label"].as_str().map(str::to_owned);
    turn.words = words_of(frame);
    if first {
        turn.ordinals.push(*next);
        *next += 1;
    }
    if turn.may_cut && turn.words.iter().any(|word| word.speaker.is_some()) {
        turn.may_cut = false;
        for pair in turn.words.windows(2) {
            if pair[0].speaker != pair[1].speaker {
                // Any time between the two words is fine: no word of these tests has its middle there.
                turn.cuts.push(u64::midpoint(pair[0].end, pair[1].start));
                turn.ordinals.push(*next);
                *next += 1;
            }
        }
    }
    for revision in std::mem::take(&mut turn.revisions) {
        apply_revision(turn, &revision);
        turn.revisions.push(revision);
    }
}

fn apply_revision(turn: &mut VendorTurn, revision: &Json) {
    if let Some(label) = revision["speaker_label"].as_str() {
        turn.label = Some(label.to_owned());
    }
    let words = words_of(revision);
    // Text and times stay the same: only the speakers of known words change.
    for word in words {
        if let Some(known) = turn.words.iter_mut().find(|known| known.start == word.start && known.end == word.end) {
            known.speaker = word.speaker;
        }
    }
}

fn words_of(message: &Json) -> Vec<Word> {
    let words = message["words"].as_array().into_iter().flatten();
    words
        .map(|word| Word {
            text: word["text"].as_str().unwrap_or_default().to_owned(),
            start: word["start"].as_u64().unwrap_or_default(),
            end: word["end"].as_u64().unwrap_or_default(),
            speaker: word["speaker"].as_str().map(str::to_owned),
        })
        .collect()
}

fn parts(vendor: &str, turn: &VendorTurn) -> Vec<Expected> {
    let vendor_turn = vendor.to_owned();
    if turn.cuts.is_empty() {
        return vec![Expected {
            turn: turn.ordinals[0],
            vendor_turn,
            speaker: turn.label.clone().or_else(|| majority(turn.words.iter())),
            text: turn.text.clone(),
            start_ms: turn.words.first().map(|word| word.start),
            end_ms: turn.words.last().map(|word| word.end),
        }];
    }
    let part_of = |word: &Word| turn.cuts.iter().filter(|cut| u64::midpoint(word.start, word.end) >= **cut).count();
    let mut parts = Vec::new();
    for (index, ordinal) in turn.ordinals.iter().enumerate() {
        let words: Vec<&Word> = turn.words.iter().filter(|word| part_of(word) == index).collect();
        parts.push(Expected {
            turn: *ordinal,
            vendor_turn: vendor_turn.clone(),
            speaker: majority(words.iter().copied()),
            text: words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "),
            start_ms: words.first().map(|word| word.start),
            end_ms: words.last().map(|word| word.end),
        });
    }
    parts
}

fn majority<'a>(words: impl Iterator<Item = &'a Word>) -> Option<String> {
    let mut times: Vec<(String, u64)> = Vec::new();
    for word in words {
        let Some(speaker) = &word.speaker else { continue };
        let time = word.end - word.start;
        match times.iter_mut().find(|(label, _)| label == speaker) {
            Some((_, sum)) => *sum += time,
            None => times.push((speaker.clone(), time)),
        }
    }
    times.into_iter().max_by_key(|(_, sum)| *sum).map(|(label, _)| label)
}

/// Compares the result of `GET …/turns` with the expected turns. `offset_ms` is the stream's.
pub fn assert_turns(call: &str, found: &[Json], expected: &[Expected], offset_ms: u64) {
    for (position, turn) in found.iter().enumerate() {
        assert_eq!(turn["turn"], position as u64, "{call}: ordinals are dense from 0");
        let Some(want) = expected.get(position) else { continue };
        let said = (
            turn["turn_order"].as_u64(),
            turn["vendor_turn"].as_str().unwrap_or_default(),
            turn["speaker"].as_str().map(str::to_owned),
            turn["text"].as_str().unwrap_or_default(),
        );
        let must = (Some(want.turn), want.vendor_turn.as_str(), want.speaker.clone(), want.text.as_str());
        assert_eq!(said, must, "{call}: turn {position}: {turn}");
        let (Some(start), Some(end)) = (want.start_ms, want.end_ms) else { continue };
        let times = (turn["start_ms"].as_u64(), turn["end_ms"].as_u64());
        assert_eq!(times, (Some(start + offset_ms), Some(end + offset_ms)), "{call}: turn {position}: times");
    }
    assert_eq!(found.len(), expected.len(), "{call}: number of turns");
}

/// The offset of the call's first stream, from its events.
pub fn offset_of(events: &[Json]) -> u64 {
    let started = events.iter().find(|event| event["type"] == "stream.started").expect("stream.started");
    started["offset_ms"].as_u64().expect("offset_ms")
}

/// Checks that `seq` is dense from 1, and that every event names the call.
pub fn assert_dense(call: &str, events: &[Json]) {
    for (position, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], position as u64 + 1, "{call}: seq is dense from 1: {event}");
        assert_eq!(event["call_id"], call);
    }
}
