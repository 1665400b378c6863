//! Recordings made harder: everything sent twice, out of order, double finals with different words, and speaker
//! revisions that move a boundary inside a split turn. The reference model computes the expected result of each.

use std::sync::Arc;
use std::time::Duration;

use crate::support::daemon::Daemon;
use crate::support::model::{assert_dense, assert_turns, offset_of, turns_of};
use crate::support::producer::{Fleet, Producer};
use crate::support::recording::{self, Recording, turn_frame};
use crate::support::{Chance, Json, json, shared};

fn sources() -> Vec<Recording> {
    recording::some(&["abcd", "hvb", "dialogsum", "meld", "earnings21-4386541", "qmsum-IS1006a"])
}

/// Feeds each recording as a separate call and compares the result.
async fn feed_and_check(hardened: Vec<Recording>) {
    let daemon = Daemon::start("[ingest]\nlinger_ms = 50\n").await;
    let fleet = Arc::new(Fleet::default());
    let mut feeding = tokio::task::JoinSet::new();
    for recording in &hardened {
        let producer = Producer::assemblyai(daemon.port, &recording.name, recording.texts(), &fleet);
        feeding.spawn(producer.run(Duration::from_secs(120)));
    }
    while let Some(outcome) = feeding.join_next().await {
        let outcome = outcome.expect("join");
        assert!(outcome.completed.is_some(), "errors: {:?}", outcome.errors);
    }
    for recording in &hardened {
        let events = daemon.events(&recording.name).await;
        assert_dense(&recording.name, &events);
        let expected = turns_of(recording.frames.iter().map(|(_, frame)| frame));
        assert_turns(&recording.name, &daemon.turns(&recording.name).await, &expected, offset_of(&events));
    }
}

fn is_final(frame: &Json) -> bool {
    frame["type"] == "Turn" && frame["end_of_turn"] == true
}

/// Position of the vendor's last message: new frames are inserted before it.
fn before_the_end(recording: &mut Recording) -> Vec<(u64, Json)> {
    let at = recording.frames.iter().position(|(_, frame)| frame["type"] == "Termination");
    recording.frames.split_off(at.unwrap_or(recording.frames.len()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_resent() {
    let _machine = shared().await;
    let mut hardened = sources();
    for recording in &mut hardened {
        let end = before_the_end(recording);
        let once = recording.frames.clone();
        recording.frames = once.iter().flat_map(|frame| [frame.clone(), frame.clone()]).collect();
        recording.frames.extend(once.iter().filter(|(_, frame)| frame["type"] == "Turn").cloned());
        recording.frames.extend(end);
    }
    feed_and_check(hardened).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_order() {
    let _machine = shared().await;
    let seed = crate::support::seed("out_of_order");
    let mut hardened = sources();
    for (index, recording) in hardened.iter_mut().enumerate() {
        let end = before_the_end(recording);
        let mut chance = Chance(seed + index as u64);
        for block in recording.frames[1..].chunks_mut(9) {
            chance.shuffle(block);
        }
        recording.frames.extend(end);
    }
    feed_and_check(hardened).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn double_finals_whose_words_differ() {
    let _machine = shared().await;
    let mut hardened = sources();
    for recording in &mut hardened {
        let mut frames = Vec::new();
        for (at, frame) in std::mem::take(&mut recording.frames) {
            if !is_final(&frame) || frame["transcript"] == "" {
                frames.push((at, frame));
                continue;
            }
            let mut raw = frame.clone();
            let words: Vec<Json> = frame["words"].as_array().expect("words").clone();
            let kept: Vec<Json> =
                words.iter().enumerate().filter(|(index, _)| index % 4 != 2).map(|(_, word)| word.clone()).collect();
            raw["turn_is_formatted"] = json!(false);
            raw["words"] = json!(kept);
            raw["transcript"] = json!(text_of(&kept));
            let mut formatted = frame.clone();
            formatted["turn_is_formatted"] = json!(true);
            // Unformatted, formatted, an empty final, and the unformatted one again, which must change nothing.
            frames.push((at, raw.clone()));
            frames.push((at, formatted));
            frames.push((at, turn_frame(frame["turn_order"].as_u64().expect("order"), true, true, &[], "A")));
            frames.push((at, raw));
        }
        recording.frames = frames;
    }
    feed_and_check(hardened).await;
}

fn text_of(words: &[Json]) -> String {
    words.iter().filter_map(|word| word["text"].as_str()).collect::<Vec<_>>().join(" ")
}

/// Joins neighbouring finals of different speakers into one vendor turn whose words name their speakers.
fn mix(recording: &mut Recording) -> Vec<Json> {
    let finals: Vec<Json> = {
        let mut newest: Vec<Json> = Vec::new();
        for (_, frame) in recording.frames.iter().filter(|(_, frame)| is_final(frame) && frame["transcript"] != "") {
            newest.retain(|known| known["turn_order"] != frame["turn_order"]);
            newest.push(frame.clone());
        }
        newest
    };
    let end = before_the_end(recording);
    recording.frames.truncate(1);
    let mut mixed = Vec::new();
    for (order, pair) in finals.chunks(2).enumerate() {
        let mut words = Vec::new();
        for (side, part) in pair.iter().enumerate() {
            let label = if side == 0 { "A" } else { "B" };
            for word in part["words"].as_array().expect("words") {
                let mut word = word.clone();
                word["speaker"] = json!(label);
                words.push(word);
            }
        }
        // Word times must increase across the boundary, whatever the recording contains.
        let mut clock = 0;
        for word in &mut words {
            let start = word["start"].as_u64().unwrap_or(0).max(clock);
            clock = word["end"].as_u64().unwrap_or(0).max(start + 40);
            word["start"] = json!(start);
            word["end"] = json!(clock);
            clock += 20;
        }
        let frame = turn_frame(order as u64, true, true, &words, "A");
        recording.frames.push((order as u64 * 1000, frame.clone()));
        mixed.push(frame);
    }
    recording.frames.extend(end);
    mixed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_moves_a_boundary_inside_a_cut_turn() {
    let _machine = shared().await;
    let mut hardened = sources();
    for recording in &mut hardened {
        let mixed = mix(recording);
        let end = before_the_end(recording);
        let mut revisions = Vec::new();
        for (index, frame) in mixed.iter().enumerate() {
            let mut words = frame["words"].as_array().expect("words").clone();
            let seam = words.iter().position(|word| word["speaker"] == "B").unwrap_or(words.len());
            match index % 3 {
                // The boundary moves by two words: the parts keep their words, and each part's speaker is the one with
                // the most words.
                0 => words.iter_mut().skip(seam).take(2).for_each(|word| word["speaker"] = json!("A")),
                // The second part's speaker was somebody else.
                1 => words.iter_mut().skip(seam).for_each(|word| word["speaker"] = json!("C")),
                // All words were from one speaker.
                _ => words.iter_mut().for_each(|word| word["speaker"] = json!("B")),
            }
            revisions.push(json!({"turn_order":frame["turn_order"],"speaker_label":words[0]["speaker"],"words":words}));
        }
        // A formatted final after the split, whose words differ, is distributed over the parts.
        for frame in mixed.iter().step_by(4) {
            let mut late = frame.clone();
            let mut words = late["words"].as_array().expect("words").clone();
            if words.len() > 3 {
                words.remove(words.len() / 3);
            }
            words[0]["text"] = json!("Changed");
            late["transcript"] = json!(text_of(&words));
            late["words"] = json!(words);
            recording.frames.push((1, late));
        }
        recording.frames.push((1, json!({"type":"SpeakerRevision","revisions":revisions})));
        recording.frames.extend(end);
    }
    feed_and_check(hardened).await;
}
