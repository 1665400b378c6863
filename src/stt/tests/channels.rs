//! State that a decoder keeps for each number in a vendor's frames is bounded.

use super::*;
use crate::protocol::ErrorCode;

/// Makes the frame with a number.
type Frame = fn(usize) -> String;

/// Frames that differ in the number of a channel, or of an item's part, by dialect.
const NUMBERED: &[(&str, Frame)] = &[
    ("deepgram", |number| {
        format!(
            r#"{{"type":"Results","channel_index":[{number},2],"duration":1.0,"start":0.0,"is_final":true,
                "channel":{{"alternatives":[{{"transcript":"Hello {number}.","words":[]}}]}}}}"#
        )
    }),
    ("speechmatics", |number| {
        format!(
            r#"{{"message":"AddTranscript","channel":"c{number}","metadata":{{"transcript":"Hello {number}."}},
                "results":[{{"type":"word","start_time":0.0,"end_time":0.4,"alternatives":[{{"content":"Hello","confidence":1.0}}]}}]}}"#
        )
    }),
    ("google", |number| {
        format!(
            r#"{{"results":[{{"alternatives":[{{"transcript":"Hello {number}."}}],"isFinal":true,"channelTag":{number},
                "resultEndTime":"1s"}}]}}"#
        )
    }),
    ("openai_realtime", |number| {
        format!(
            r#"{{"type":"response.output_text.done","item_id":"item_1","content_index":{number},"text":"Hello {number}."}}"#
        )
    }),
];

#[test]
fn channels_beyond_the_limit_are_refused_and_the_known_ones_go_on() {
    for (name, frame) in NUMBERED {
        let dialect = DIALECTS.iter().find(|dialect| dialect.name() == *name).expect("a dialect");
        let mut decoder = dialect.decoder();
        let mut out = Vec::new();
        let refused: Vec<DecodeError> =
            (1..=1000).filter_map(|number| decoder.decode(&frame(number), &mut out).err()).collect();
        assert_eq!(refused.len(), 1000 - 64, "{name}");
        assert_eq!(refused[0].code, ErrorCode::BadField, "{name}");
        assert!(refused[0].message.contains("at most 64 different values"), "{name}: {}", refused[0].message);
        out.clear();
        decoder.decode(&frame(3), &mut out).unwrap_or_else(|error| panic!("{name}: {}", error.message));
    }
}
