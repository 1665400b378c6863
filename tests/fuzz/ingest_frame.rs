//! Frames of every dialect: no decoder panics, an error leaves events and decoder as they were, ids and times are sane.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetone::stt::DIALECTS;
use sidetone::types::SttEvent;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let dialect = DIALECTS[usize::from(first) % DIALECTS.len()];
    let mut decoder = dialect.open();
    let mut events = Vec::new();
    for frame in text.lines() {
        let before = events.len();
        match decoder.decode(frame, &mut events) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(events.len(), before, "an error leaves the events as they were");
                assert!(["bad_json", "bad_field"].contains(&error.code), "{}", error.code);
                assert!(!error.message.is_empty());
            }
        }
    }
    decoder.finish(&mut events);
    for event in &events {
        if let SttEvent::Final(turn) = event {
            assert!(turn.words.iter().all(|word| word.start_ms <= word.end_ms), "a word ends before it starts");
        }
    }
});
