//! The vendors' voice detection: it makes analyses due, and `silence` rules use it.
//!
//! Knows no vendor and writes no record: this state is lost when the call leaves memory.

use super::Call;
use crate::types::StreamId;

impl Call {
    /// Handles the beginning of speech.
    pub(super) fn speech_detected(&mut self) {
        self.spoke();
        let now = self.now.ms;
        for slot in &mut self.schedule.rolling {
            let on = &slot.analysis.settings.on;
            if on.voice() {
                slot.trigger.on_speech(now, on.speech_started);
            }
        }
    }

    /// Handles silence on a stream; `span` is its start and end in stream time, if the vendor sent them.
    pub(super) fn silence_detected(&mut self, root: &StreamId, span: Option<(u64, u64)>) {
        if let Some(span) = span {
            self.silent(root, span);
        }
        let now = self.now.ms;
        for slot in self.schedule.rolling.iter_mut().filter(|slot| slot.analysis.settings.on.silence) {
            slot.trigger.on_silence(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::call::tests::bench::Bench;
    use crate::types::SttEvent;

    #[test]
    fn detected_voice_makes_analyses_due_where_something_is_new() {
        let analyses = "[summary]\non = [\"silence\"]\n[sentiment]\non = [\"speech_started\"]\n";
        let mut bench = Bench::new("", analyses, "");
        let records = bench.log.len();
        bench.event_on("s_1", SttEvent::SpeechStarted);
        bench.event_on("s_1", SttEvent::Silence { span: None });
        assert_eq!((bench.queued("summary"), bench.queued("sentiment")), (None, None));
        assert_eq!(bench.log.len(), records, "nothing is written, and no stream begins");
        bench.say(0, "A", "Hello.");
        assert_eq!((bench.queued("summary").as_deref(), bench.queued("sentiment")), (Some("silence"), None));
        bench.event_on("s_1", SttEvent::SpeechStarted);
        assert_eq!(bench.queued("sentiment").as_deref(), Some("speech_started"));
    }
}
