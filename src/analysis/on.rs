//! The setting `on`: events that make an analysis due, besides its turns and its interval.
//!
//! Knows no call and no rule: names of rules are checked with the whole configuration.

use crate::base::settings::Section;

/// Events in a call that make an analysis due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct On {
    /// Set if silence that the vendor detects, and alerts of `silence` rules, make it due.
    pub silence: bool,
    /// Set if the beginning of speech that the vendor detects makes it due.
    pub speech_started: bool,
    /// Rules whose alerts make it due.
    pub alerts: Vec<String>,
}

impl On {
    /// Prefix of a rule's name.
    const ALERT: &'static str = "alert:";

    /// Reads the key. An invalid value is reported as a problem.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let mut on = Self::default();
        for (index, text) in section.strings_in_place("on")?.into_iter().enumerate() {
            match text.as_deref() {
                None => {}
                Some("silence") => on.silence = true,
                Some("speech_started") => on.speech_started = true,
                Some(text) => match text.strip_prefix(Self::ALERT).filter(|rule| !rule.is_empty()) {
                    Some(rule) => on.alerts.push(rule.to_owned()),
                    None => section.problem(
                        &format!("on[{index}]"),
                        format!("expected \"silence\", \"speech_started\" or \"alert:RULE\", found {text:?}"),
                    ),
                },
            }
        }
        Some(on)
    }

    /// Returns true if no event makes it due.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if the vendor's voice detection makes it due.
    pub fn voice(&self) -> bool {
        self.silence || self.speech_started
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::folder::Folder;
    use crate::analysis::settings::{PartialSettings, Settings};

    use super::*;

    fn given(source: &str) -> PartialSettings {
        Settings::of_folder("x", &Folder::new([("analysis.toml", source)])).expect("settings")
    }

    #[test]
    fn events_that_make_it_due_are_read_and_say_when() {
        let on = given("on = [\"silence\", \"alert:churn\"]");
        let settings = Settings::merged("x", &given("every_n_turns = 4"), &on);
        let expected = On { silence: true, alerts: vec!["churn".to_owned()], ..On::default() };
        assert_eq!(settings.on, expected);
        assert_eq!(settings.triggers.every_n_turns, None, "what is absent is off");
        assert_eq!(Settings::merged("x", &on, &given("debounce_ms = 5")).on, expected);
        assert!(Settings::merged("x", &on, &given("on = []")).on.is_empty());
        let speech = Settings::merged("x", &on, &given("on = [\"speech_started\"]")).on;
        assert_eq!(speech, On { speech_started: true, ..On::default() });
    }

    #[test]
    fn unknown_event_in_on_is_a_problem() {
        let faults = Settings::of_folder("x", &Folder::new([("analysis.toml", "on = [\"alert:\", \"speech\"]")]));
        let faults: Vec<String> = faults.expect_err("faults").iter().map(ToString::to_string).collect();
        let expected = "expected \"silence\", \"speech_started\" or \"alert:RULE\", found \"alert:\"";
        assert!(faults[0].contains(expected), "{faults:?}");
        assert_eq!(faults.len(), 2);
    }
}
