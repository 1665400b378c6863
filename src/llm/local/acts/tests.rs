use std::sync::Arc;

use super::*;
use crate::types::StreamId;

fn turns(call: &[(&str, &str)]) -> Vec<Arc<Turn>> {
    let turn = |(at, (speaker, text)): (usize, &(&str, &str))| {
        Arc::new(Turn {
            turn: at as u64,
            stream_id: StreamId::parse("s_1").expect("id"),
            turn_order: at as u64,
            vendor_turn: None,
            rev: 0,
            speaker: (!speaker.is_empty()).then(|| (*speaker).to_owned()),
            text: (*text).to_owned(),
            start_ms: 0,
            end_ms: 0,
            language: None,
            confidence: None,
            words: Vec::new(),
        })
    };
    call.iter().enumerate().map(turn).collect()
}

fn actions_of(call: &[(&str, &str)]) -> Vec<Action> {
    let turns = turns(call);
    actions(&turns.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

fn questions_of(call: &[(&str, &str)]) -> Vec<Asked> {
    let turns = turns(call);
    questions(&turns.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

#[test]
fn promises_belong_to_their_speakers_and_requests_to_the_others() {
    let found = actions_of(&[
        ("agent", "Um, I will send you the form with the number four four one by Friday."),
        ("customer", "Thanks. Could you also email me the contract from March?"),
        ("agent", "Sure. And you need to sign the form before the 4th of April."),
    ]);
    let shown: Vec<(u64, &str, Option<&str>, Option<&str>)> = found
        .iter()
        .map(|action| (action.turn, action.text.as_str(), action.owner.as_deref(), action.due.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            (0, "I will send you the form with the number four four one by Friday.", Some("agent"), Some("by Friday")),
            (1, "Could you also email me the contract from March?", Some("agent"), None),
            (
                2,
                "You need to sign the form before the 4th of April.",
                Some("customer"),
                Some("before the 4th of April")
            ),
        ]
    );
    assert!(found.iter().all(|action| !action.done));
}

#[test]
fn request_that_is_taken_on_is_one_item_and_one_that_was_carried_out_is_done() {
    let found = actions_of(&[
        ("customer", "Can you cancel my gym subscription, please?"),
        ("agent", "I'll cancel the gym subscription tomorrow."),
        ("agent", "Okay, I have cancelled your gym subscription already."),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].owner.as_deref(), found[0].due.as_deref(), found[0].done),
        (Some("agent"), Some("tomorrow"), true)
    );
}

#[test]
fn courtesy_and_what_is_done_at_once_are_no_items() {
    let found = actions_of(&[
        ("agent", "I'll be happy to help you with your card today."),
        ("agent", "Could you tell me the account number, please?"),
        ("agent", "Please hold the line for a moment."),
        ("agent", "Let me check the system."),
        ("customer", "I will not pay the second bill."),
        ("customer", "I'll wait for the engineer here."),
        ("agent", "Can you hear me now?"),
        ("customer", "Will I get a letter about the refund?"),
    ]);
    assert_eq!(found, []);
}

#[test]
fn owner_of_a_request_is_unknown_among_several() {
    let found = actions_of(&[("A", "Please order the new projector."), ("B", "Fine."), ("C", "Good.")]);
    assert_eq!((found.len(), found[0].owner.clone()), (1, None));
    assert_eq!(actions_of(&[("", "I will order the new projector.")])[0].owner, None);
}

#[test]
fn questions_have_their_answers_from_the_others() {
    let found = questions_of(&[
        ("customer", "Hi. How much is the fee for a new card?"),
        ("agent", "Yes. It is 12 euros and 50 cents."),
        ("customer", "And when will the card arrive?"),
        ("agent", "I'm not sure about that."),
        ("agent", "May I have your name, please? Which address do you live at?"),
        ("customer", "Four four one Mill Lane."),
        ("customer", "Is there a branch in Lyon"),
    ]);
    let shown: Vec<(u64, &str, Option<&str>, Option<&str>)> = found
        .iter()
        .map(|asked| (asked.turn, asked.text.as_str(), asked.by.as_deref(), asked.answer.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            (0, "How much is the fee for a new card?", Some("customer"), Some("Yes. It is 12 euros and 50 cents.")),
            (2, "When will the card arrive?", Some("customer"), None),
            (4, "Which address do you live at?", Some("agent"), Some("Four four one Mill Lane.")),
            (6, "Is there a branch in Lyon", Some("customer"), None),
        ]
    );
}

#[test]
fn courtesies_tags_and_requests_are_no_questions() {
    let found = questions_of(&[
        ("agent", "Good morning, how are you? How can I help you today?"),
        ("customer", "Right? Okay?"),
        ("customer", "Could you send me the contract by Friday?"),
        ("agent", "Is there anything else I can do for you?"),
    ]);
    assert_eq!(found, []);
}

#[test]
fn questions_of_other_languages_are_known_by_their_marks() {
    let found = questions_of(&[("A", "¿Cuánto cuesta la tarjeta nueva?"), ("B", "Doce euros.")]);
    assert_eq!((found.len(), found[0].answer.as_deref()), (1, Some("Doce euros.")));
}

#[test]
fn numbers_dates_and_names_are_the_speakers_own() {
    let call = [
        ("agent", "Um, I'll transfer the forty two, uh, forty two euros to Ms. Okafor-Lindqvist on May 3rd."),
        ("customer", "Can you send the code B B six oh seven to Tom Tom Street?"),
        ("customer", "Is the number oh eight oh oh, four four one?"),
        ("agent", "Yes, oh eight oh oh, four four one."),
    ];
    let said: String = call.iter().map(|(_, text)| text.replace("Um, ", "").replace("uh, ", "")).collect();
    let actions = actions_of(&call);
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert_eq!(actions[0].due.as_deref(), Some("on May 3rd"));
    for text in actions.iter().map(|action| &action.text) {
        assert!(said.contains(text.trim_end_matches('?')), "{text}");
    }
    let questions = questions_of(&call);
    assert_eq!(questions[0].answer.as_deref(), Some("Yes, oh eight oh oh, four four one."), "{questions:?}");
}

#[test]
fn lists_keep_their_newest_items() {
    let sentences: Vec<String> =
        (0..60).map(|number| format!("I will send parcel {number} to customer number {number}.")).collect();
    let call: Vec<(&str, &str)> = sentences.iter().map(|sentence| ("A", sentence.as_str())).collect();
    let found = actions_of(&call);
    assert!(found.len() <= MOST && found.last().is_some_and(|last| last.text.contains("59")), "{}", found.len());
}
