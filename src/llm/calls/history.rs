//! Matches tool calls and their results in the messages of a request by position. Some vendors restart the numbering of
//! their calls with each answer, so an id identifies a call only together with its position in the conversation.
//!
//! Knows no vendor's format, only the rule for its ids.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use crate::llm::emulate::{bare_call_id, call_signature, digest, signed_call_id};
use crate::llm::{Message, Role};

/// A vendor's rule for the ids of tool calls.
#[derive(Debug, Clone, Copy)]
pub(in crate::llm) struct IdRule {
    /// Returns true if an id can be sent unchanged.
    pub(in crate::llm) fits: fn(&str) -> bool,
    /// Length of a replacement id, in characters.
    pub(in crate::llm) length: usize,
}

/// Returns the messages with tool call ids that follow the rule and are unique within the request. Each result gets the
/// id of its call: among the nearest calls before it that have its id, the first without a result. A signature in an id
/// is kept.
///
/// An id that is unused and follows the rule is kept. A replacement depends only on earlier messages, so that the
/// beginning of a growing conversation does not change.
pub(in crate::llm) fn unique_ids(messages: &[Message], rule: IdRule) -> Cow<'_, [Message]> {
    let mut out = Cow::Borrowed(messages);
    let mut pairs = Pairs::default();
    let mut used = HashSet::new();
    let mut ids: Vec<String> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        pairs.message(message);
        for (number, call) in message.tool_calls.iter().enumerate() {
            let bare = bare_call_id(&call.id);
            let mut times = pairs.call(bare);
            let mut id = rule.fit(bare);
            while !used.insert(id.clone().into_owned()) {
                id = Cow::Owned(digest(&format!("{bare}#{times}"), rule.length));
                times += 1;
            }
            if id != bare {
                out.to_mut()[at].tool_calls[number].id = signed_call_id(&id, call_signature(&call.id));
            }
            ids.push(id.into_owned());
        }
        if let Some(given) = answers(message) {
            let id = match pairs.result(given) {
                Some(call) => Cow::Borrowed(ids[call].as_str()),
                None => rule.fit(given),
            };
            if message.tool_call_id.as_deref() != Some(&*id) {
                out.to_mut()[at].tool_call_id = Some(id.into_owned());
            }
        }
    }
    out
}

/// The first result that matches no earlier call: its position among the messages, and its id.
pub(in crate::llm) fn stray_result(messages: &[Message]) -> Option<(usize, &str)> {
    let mut pairs = Pairs::default();
    messages.iter().enumerate().find_map(|(at, message)| {
        pairs.message(message);
        for call in &message.tool_calls {
            pairs.call(bare_call_id(&call.id));
        }
        let id = answers(message)?;
        pairs.result(id).is_none().then_some((at, id))
    })
}

impl IdRule {
    fn fit<'i>(&self, id: &'i str) -> Cow<'i, str> {
        if (self.fits)(id) { Cow::Borrowed(id) } else { Cow::Owned(digest(id, self.length)) }
    }
}

fn answers(message: &Message) -> Option<&str> {
    (message.role == Role::Tool).then_some(message.tool_call_id.as_deref()).flatten().map(bare_call_id)
}

/// The calls so far, by id.
#[derive(Default)]
struct Pairs<'m> {
    named: HashMap<&'m str, Named>,
    calls: usize,
    /// Number of the current answer. Consecutive assistant messages are one answer.
    answer: usize,
    in_answer: bool,
}

/// The calls with the same id.
#[derive(Default)]
struct Named {
    /// Calls without a result, grouped by the answer that they are part of.
    open: Vec<(usize, VecDeque<usize>)>,
    newest: usize,
    times: usize,
}

impl<'m> Pairs<'m> {
    fn message(&mut self, message: &Message) {
        let assistant = message.role == Role::Assistant;
        self.answer += usize::from(assistant && !self.in_answer);
        self.in_answer = assistant;
    }

    /// Records a call. Returns how many calls have its id so far.
    fn call(&mut self, id: &'m str) -> usize {
        let (answer, call) = (self.answer, self.calls);
        self.calls += 1;
        let named = self.named.entry(id).or_default();
        match named.open.last_mut() {
            Some((of, open)) if *of == answer => open.push_back(call),
            _ => named.open.push((answer, VecDeque::from([call]))),
        }
        named.newest = call;
        named.times += 1;
        named.times
    }

    /// The number of the call that a result belongs to. A second result of a call belongs to it too.
    fn result(&mut self, id: &str) -> Option<usize> {
        let named = self.named.get_mut(id)?;
        while let Some((_, open)) = named.open.last_mut() {
            if let Some(call) = open.pop_front() {
                return Some(call);
            }
            named.open.pop();
        }
        Some(named.newest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::testing::kept;
    use crate::llm::{ToolCall, emulate};

    const ANY: IdRule = IdRule { fits: |id| !id.is_empty(), length: 20 };
    const NINE: IdRule =
        IdRule { fits: |id| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), length: 9 };

    fn asks(ids: &[&str]) -> Message {
        let call = |id: &&str| ToolCall { id: (*id).to_owned(), name: format!("f_{id}"), ..ToolCall::default() };
        Message { role: Role::Assistant, tool_calls: ids.iter().map(call).collect(), ..Message::default() }
    }

    fn result(id: &str) -> Message {
        Message { role: Role::Tool, tool_call_id: Some(id.to_owned()), ..Message::default() }
    }

    /// For each result, the call with its id: the number of the call's message, and its number in that message.
    fn answered(messages: &[Message]) -> Vec<Option<(usize, usize)>> {
        let mut calls = HashMap::new();
        for (at, message) in messages.iter().enumerate() {
            for (number, call) in message.tool_calls.iter().enumerate() {
                let before = calls.insert(emulate::bare_call_id(&call.id).to_owned(), (at, number));
                assert_eq!(before, None, "an id twice: {:?}", call.id);
            }
        }
        let results = messages.iter().filter_map(answers);
        results.map(|id| calls.get(id).copied()).collect()
    }

    #[test]
    fn results_answer_the_nearest_call_before_them_that_is_open() {
        let user = Message::text(Role::User, "x");
        type Case = (&'static str, Vec<Message>, Vec<Option<(usize, usize)>>);
        let cases: Vec<Case> = vec![
            (
                "numbered anew in each answer",
                vec![asks(&["call_0"]), result("call_0"), asks(&["call_0"]), result("call_0")],
                vec![Some((0, 0)), Some((2, 0))],
            ),
            (
                "one id twice in one answer",
                vec![asks(&["a", "a"]), result("a"), result("a")],
                vec![Some((0, 0)), Some((0, 1))],
            ),
            (
                "an answer in two messages",
                vec![asks(&["a"]), asks(&["a"]), result("a"), result("a")],
                vec![Some((0, 0)), Some((1, 0))],
            ),
            (
                "the nearest first, then one that was left open",
                vec![asks(&["a"]), user.clone(), asks(&["a"]), result("a"), result("a")],
                vec![Some((2, 0)), Some((0, 0))],
            ),
            ("two results of one call", vec![asks(&["a"]), result("a"), result("a")], vec![Some((0, 0)), Some((0, 0))]),
            ("no id at all", vec![asks(&["", ""]), result(""), result("")], vec![Some((0, 0)), Some((0, 1))]),
        ];
        for (name, messages, expected) in cases {
            for rule in [ANY, NINE] {
                let unique = unique_ids(&messages, rule);
                assert_eq!(answered(&unique), expected, "{name}");
                let calls = unique.iter().flat_map(|message| &message.tool_calls);
                assert!(calls.clone().all(|call| (rule.fits)(&call.id)), "{name}");
            }
        }
    }

    #[test]
    fn valid_unused_ids_and_signatures_stay() {
        let messages = [asks(&["a", "b~ts~sig"]), result("b~ts~sig"), result("a")];
        assert!(
            matches!(unique_ids(&messages[..1], ANY), Cow::Borrowed(_)),
            "nothing is copied where nothing is to be changed"
        );
        let unique = unique_ids(&messages, ANY);
        assert_eq!(unique[0].tool_calls[1].id, "b~ts~sig");
        assert_eq!(unique[1].tool_call_id.as_deref(), Some("b"));
        let nine = unique_ids(&messages, NINE);
        assert_eq!(emulate::call_signature(&nine[0].tool_calls[1].id), Some("sig"));
        assert_eq!(answered(&nine), [Some((0, 1)), Some((0, 0))]);
    }

    #[test]
    fn a_result_without_a_call_is_named() {
        let messages = [asks(&["a"]), result("a"), result("b")];
        assert_eq!(stray_result(&messages[..2]), None);
        assert_eq!(stray_result(&messages), Some((2, "b")));
        assert_eq!(stray_result(&[result("a"), asks(&["a"])]), Some((0, "a")), "a call that comes after it");
    }

    proptest! {
        #![proptest_config(kept())]

        #[test]
        fn any_history_has_unique_ids_that_a_longer_one_keeps(
            answers in proptest::collection::vec(proptest::collection::vec("[ab]{0,1}|[a-z:]{9}", 1..3), 1..6)
        ) {
            let mut messages = Vec::new();
            let mut expected = Vec::new();
            for ids in &answers {
                let at = messages.len();
                messages.push(asks(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
                for (number, id) in ids.iter().enumerate() {
                    messages.push(result(id));
                    // An earlier call of this answer with the same id is answered first, because results come in order.
                    expected.push(Some((at, number)));
                }
            }
            for rule in [ANY, NINE] {
                let whole = unique_ids(&messages, rule).into_owned();
                prop_assert_eq!(answered(&whole), expected.clone());
                let shorter = unique_ids(&messages[..messages.len() / 2], rule).into_owned();
                prop_assert_eq!(&whole[..messages.len() / 2], &shorter[..]);
            }
        }
    }
}
