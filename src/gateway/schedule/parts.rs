//! Answers to several analyses: an object with a member for each. Each member is validated by itself, so that an
//! invalid one does not affect the others.
//!
//! Knows no value of an analysis. The schema of such an answer allows null in place of any member: a member is valid if
//! an answer with this member and null in place of all others is valid.

use serde_json::Value;

use super::validators::{self, Validators};
use crate::base::measure;
use crate::gateway::error::GatewayError;
use crate::gateway::request::{Part, Request};
use crate::llm::schema::{Validator, Verdict};
use crate::llm::{ResponseFormat, schema};
use crate::types::JsonMap;

/// The members that an answer must have, and the valid ones that arrived.
pub(super) struct Parts {
    wanted: Vec<Part>,
    /// An answer whose members are all null.
    blank: JsonMap,
    /// The valid values, in the order of `wanted`.
    right: Vec<Option<Value>>,
}

impl Parts {
    /// The parts of a request; none if its answer is a single value.
    pub(super) fn of(request: &Request) -> Self {
        let members = match &request.chat.response_format {
            Some(ResponseFormat::JsonSchema { schema, .. }) => schema.get("properties").and_then(Value::as_object),
            _ => None,
        };
        let blank = members.into_iter().flatten().map(|(member, _)| (member.clone(), Value::Null)).collect();
        Self { wanted: request.parts.clone(), blank, right: vec![None; request.parts.len()] }
    }

    /// Returns true if the answer is a single value.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Takes the valid members of an answer, except those that arrived before. The verdict is valid once no member is
    /// missing.
    ///
    /// # Errors
    /// `too_complex` if the check is over a limit.
    ///
    /// # Cancel safety
    /// Safe: members that were taken are kept.
    pub(super) async fn judge(
        &mut self,
        validators: &Validators,
        validator: &Validator,
        text: String,
    ) -> Result<(String, Verdict), GatewayError> {
        let (text, verdict) = validators.check(validator, text).await?;
        let (read, is_valid) = match verdict {
            Verdict::Valid(_, value) => (Some(value), true),
            Verdict::Invalid(errors) => match validators::parse(&text).await? {
                Some(value) => (Some(value), false),
                None => return Ok((text, Verdict::Invalid(errors))),
            },
        };
        let Some(Value::Object(mut answer)) = read else {
            return Ok((text, Verdict::Invalid("the answer is not a JSON object".to_owned())));
        };
        let mut errors = Vec::new();
        for (part, right) in self.wanted.iter().zip(&mut self.right).filter(|(_, right)| right.is_none()) {
            let member = &part.member;
            match answer.shift_remove(member) {
                None => errors.push(format!("/{member}: missing")),
                Some(Value::Null) if part.needed => {
                    errors.push(format!("/{member}: null, but no value was given before"))
                }
                Some(value) if is_valid => *right = Some(value),
                Some(value) => {
                    let mut alone = self.blank.clone();
                    alone.insert(member.clone(), value.clone());
                    match validators.check(validator, Value::Object(alone).to_string()).await?.1 {
                        Verdict::Valid(..) => *right = Some(value),
                        Verdict::Invalid(wrong) => errors.push(wrong),
                    }
                }
            }
        }
        let verdict = match self.taken() {
            Some((text, value)) if errors.is_empty() => Verdict::Valid(text, value),
            _ => Verdict::Invalid(errors.join("\n")),
        };
        Ok((text, verdict))
    }

    /// The members that arrived, as one object; `None` if there is none.
    pub(super) fn taken(&self) -> Option<(String, Value)> {
        let members = self.wanted.iter().zip(&self.right);
        let taken: JsonMap = members.filter_map(|(part, right)| Some((part.member.clone(), right.clone()?))).collect();
        let value = (!taken.is_empty()).then_some(Value::Object(taken))?;
        Some((value.to_string(), value))
    }

    /// The message to the model after an invalid answer: it asks only for the invalid members again.
    pub(super) fn repair_request(&self, errors: &str) -> String {
        let mut said = schema::repair_request(errors);
        let members = self.wanted.iter().zip(&self.right);
        let right = members.filter(|(_, right)| right.is_some()).map(|(part, _)| format!("\"{}\"", part.member));
        let right = right.collect::<Vec<_>>().join(", ");
        if !right.is_empty() {
            said.push_str(" Your values of these members are valid and kept; give null for them now: ");
            said.push_str(&right);
            said.push('.');
        }
        said
    }
}

/// The share of each part in an answer, by the length of its member. All shares are equal if the answer has none of the
/// members.
pub(super) fn weights(parts: &[Part], text: &str) -> Vec<u64> {
    let object = text.find('{').zip(text.rfind('}')).and_then(|(first, last)| text.get(first..=last));
    let answer: JsonMap = object.and_then(|object| serde_json::from_str(object).ok()).unwrap_or_default();
    let weight = |part: &Part| answer.get(&part.member).map_or(0, |value| measure::value(value) as u64);
    let weights: Vec<u64> = parts.iter().map(weight).collect();
    if weights.iter().all(|weight| *weight == 0) { vec![1; parts.len()] } else { weights }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(member: &str) -> Part {
        Part { analysis: member.into(), member: member.to_owned(), needed: false, local: None }
    }

    #[test]
    fn weights_are_the_lengths_of_members_or_all_equal() {
        let parts = [part("a"), part("b"), part("c")];
        assert_eq!(weights(&parts, "```json\n{\"a\": [1, 2], \"b\":null, \"x\": 5}\n```"), [5, 4, 0]);
        for none in ["", "}{", "no JSON", "{\"x\": 1}", "[1]"] {
            assert_eq!(weights(&parts, none), [1, 1, 1], "{none}");
        }
        assert!(weights(&[], "{}").is_empty());
    }
}
