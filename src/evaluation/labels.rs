//! People's labels of recorded calls: `labels.jsonl`, one JSON object per line.
//!
//! `{"kind":"turn","call_id","turn_order","sentiment","sentiment_source"}` is the sentiment of a turn, by the vendor's
//! number of it;
//! `{"kind":"call","call_id","summary","source"}` is the summary of a call, and where the call is from. Other kinds and
//! fields are ignored. Knows no file.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::score::CLASSES;

/// The labels of calls.
#[derive(Debug, Default)]
pub struct Labels {
    calls: HashMap<String, CallLabels>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CallLabels {
    /// Where the call is from, such as the name of a collection.
    pub source: Option<String>,
    /// The summary of the call that a person wrote.
    pub summary: Option<String>,
    /// Sentiment by the vendor's number of the turn.
    pub sentiment: HashMap<String, String>,
    /// Who gave the sentiment, if the labels name a source: it may be a model.
    pub sentiment_source: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Turn {
        call_id: String,
        turn_order: Value,
        sentiment: Option<String>,
        sentiment_source: Option<String>,
    },
    Call {
        call_id: String,
        source: Option<String>,
        summary: Option<String>,
    },
    #[serde(other)]
    Other,
}

impl Labels {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first invalid line, with its number.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut labels = Self::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |message: String| format!("line {}: {message}", index + 1);
            match serde_json::from_str(line).map_err(|error| wrong(error.to_string()))? {
                Line::Turn { call_id, turn_order, sentiment: Some(sentiment), sentiment_source } => {
                    if !CLASSES.contains(&sentiment.as_str()) {
                        let message = format!("sentiment: expected one of {}, found {sentiment:?}", CLASSES.join(", "));
                        return Err(wrong(message));
                    }
                    let turn = turn_order.as_str().map_or_else(|| turn_order.to_string(), str::to_owned);
                    let call = labels.calls.entry(call_id).or_default();
                    call.sentiment.insert(turn, sentiment);
                    call.sentiment_source = call.sentiment_source.take().or(sentiment_source);
                }
                Line::Call { call_id, source, summary } => {
                    let call = labels.calls.entry(call_id).or_default();
                    (call.source, call.summary) = (source, summary);
                }
                Line::Turn { .. } | Line::Other => {}
            }
        }
        Ok(labels)
    }

    pub fn of(&self, call: &str) -> Option<&CallLabels> {
        self.calls.get(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_call_and_turn() {
        let text = "{\"kind\":\"turn\",\"call_id\":\"a\",\"turn_order\":3,\"sentiment\":\"positive\",\"sentiment_source\":\"m\"}\n\n\
                    {\"kind\":\"turn\",\"call_id\":\"a\",\"turn_order\":4,\"gold_speaker\":\"X\"}\n\
                    {\"kind\":\"call\",\"call_id\":\"a\",\"source\":\"S\",\"summary\":\"It was short.\"}\n{\"kind\":\"topic\"}\n";
        let labels = Labels::read(text).expect("labels");
        let call = labels.of("a").expect("a call");
        assert_eq!((call.source.as_deref(), call.summary.as_deref()), (Some("S"), Some("It was short.")));
        assert_eq!(call.sentiment_source.as_deref(), Some("m"));
        assert_eq!(call.sentiment, HashMap::from([("3".to_owned(), "positive".to_owned())]));
        assert_eq!(labels.of("b"), None);
    }

    #[test]
    fn wrong_line_is_named() {
        let error = Labels::read("{\"kind\":\"topic\"}\n{").expect_err("a fault");
        assert!(error.starts_with("line 2: "), "{error}");
        let mood = "{\"kind\":\"turn\",\"call_id\":\"a\",\"turn_order\":0,\"sentiment\":\"happy\"}";
        assert!(Labels::read(mood).expect_err("a fault").contains("expected one of negative, neutral, positive"));
    }
}
