//! The four wire formats of answers, for the tests of complete answers and of bodies.

use serde_json::{Value, json};

use super::fake::{Fake, Reply, Step};
use super::*;

/// One provider of each wire format.
pub(in crate::gateway) const VENDORS: [&str; 4] = ["openai_compatible", "anthropic", "google", "cohere"];

/// How a stream's answer ends, in each vendor's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Ending {
    Known,
    Unknown,
    Empty,
    Absent,
}

impl Ending {
    pub(in crate::gateway) const ALL: [Self; 4] = [Self::Known, Self::Unknown, Self::Empty, Self::Absent];

    fn word(self, vendor: &str) -> Value {
        match (self, vendor) {
            (Self::Known, "anthropic") => json!("end_turn"),
            (Self::Known, "google") => json!("STOP"),
            (Self::Known, "cohere") => json!("COMPLETE"),
            (Self::Known, _) => json!("stop"),
            (Self::Unknown, _) => json!("odd"),
            (Self::Empty, _) => json!(""),
            (Self::Absent, _) => Value::Null,
        }
    }
}

fn event(vendor: &str, value: &Value) -> String {
    match value["type"].as_str().filter(|_| matches!(vendor, "anthropic" | "cohere")) {
        Some(kind) => format!("event: {kind}\ndata: {value}\n\n"),
        None => format!("data: {value}\n\n"),
    }
}

fn chunk_of(choices: &Value) -> Value {
    json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":choices})
}

/// The events that begin a stream: its start, and the text if there is any.
pub(in crate::gateway) fn said(vendor: &str, text: &str) -> String {
    let (start, words) = match vendor {
        "anthropic" => (
            json!({"type":"message_start","message":{"id":"x","model":"m","usage":{"input_tokens":3}}}),
            json!({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":text}}),
        ),
        "google" => {
            (Value::Null, json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":text}]}}]}))
        }
        "cohere" => (
            json!({"type":"message-start","id":"x"}),
            json!({"type":"content-delta","index":0,"delta":{"message":{"content":{"text":text}}}}),
        ),
        _ => (
            chunk_of(&json!([{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}])),
            chunk_of(&json!([{"index":0,"delta":{"content":text},"finish_reason":null}])),
        ),
    };
    let events = [start, words].into_iter().filter(|event| !event.is_null());
    let events: Vec<String> = events.map(|value| event(vendor, &value)).collect();
    if text.is_empty() { events[..events.len() - 1].concat() } else { events.concat() }
}

/// The events that end a stream, with the end mark or without; `None` where the vendor has no such end.
pub(in crate::gateway) fn ended(vendor: &str, ending: Ending, marked: bool) -> Option<String> {
    let word = ending.word(vendor);
    let (last, mark) = match vendor {
        "anthropic" => (
            json!({"type":"message_delta","delta":{"stop_reason":word},"usage":{"output_tokens":1}}),
            event(vendor, &json!({"type":"message_stop"})),
        ),
        "google" => (
            json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":""}]},"finishReason":word}]}),
            "data: [DONE]\n\n".to_owned(),
        ),
        // Its end mark contains the finish reason.
        "cohere" if !marked => return (ending == Ending::Absent).then(String::new),
        "cohere" => (json!({"type":"message-end","delta":{"finish_reason":word}}), String::new()),
        _ => (chunk_of(&json!([{"index":0,"delta":{},"finish_reason":word}])), "data: [DONE]\n\n".to_owned()),
    };
    Some(event(vendor, &last) + if marked { &mark } else { "" })
}

/// A whole answer.
pub(in crate::gateway) fn whole(vendor: &str, text: &str, ending: Ending) -> String {
    let word = ending.word(vendor);
    match vendor {
        "anthropic" => json!({"type":"message","id":"x","model":"m","content":[{"type":"text","text":text}],
            "stop_reason":word,"usage":{"input_tokens":3,"output_tokens":1}}),
        "google" => json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":text}]},
            "finishReason":word}]}),
        "cohere" => json!({"id":"x","message":{"content":[{"type":"text","text":text}]},"finish_reason":word}),
        _ => json!({"id":"x","object":"chat.completion","created":1,"model":"m",
            "choices":[{"index":0,"message":{"role":"assistant","content":text},"finish_reason":word}]}),
    }
    .to_string()
}

/// A reply with this body in HTTP chunks, ended properly if `closed`, otherwise cut.
pub(in crate::gateway) fn bytes(status: u16, media: Option<&str>, body: &str, closed: bool) -> Reply {
    let media = media.map_or_else(String::new, |media| format!("content-type: {media}\r\n"));
    let mut steps =
        vec![Step::Write(format!("HTTP/1.1 {status} X\r\n{media}transfer-encoding: chunked\r\n\r\n").into_bytes())];
    if !body.is_empty() {
        steps.push(fake::chunk(body));
    }
    steps.push(if closed { fake::end() } else { Step::Close });
    steps
}

/// A gateway over the vendor's endpoint `bad`, then a good one, without retries.
pub(in crate::gateway) fn before_good(vendor: &str, bad: &Fake, good: &Fake) -> (Gateway, Arc<Tape>) {
    gateway(&format!(
        "[endpoints.bad]\nprovider = \"{vendor}\"\nbase_url = \"{}\"\n\
         [endpoints.good]\nprovider = \"openai_compatible\"\nbase_url = \"{}\"\n\
         [models.m]\ncandidates = [\"bad/v\", \"good/v\"]\nretries = 0\n",
        bad.url, good.url
    ))
}

/// Result of a stream: the endpoint that answered, the text, the finish reasons, and the error that ended it.
pub(in crate::gateway) struct Streamed {
    pub(in crate::gateway) endpoint: Arc<str>,
    pub(in crate::gateway) text: String,
    pub(in crate::gateway) finishes: Vec<crate::llm::Finish>,
    pub(in crate::gateway) error: Option<GatewayError>,
}

/// Reads a stream to its end.
pub(in crate::gateway) async fn streamed(gateway: &Gateway, request: Request) -> Result<Streamed, GatewayError> {
    let mut stream = open(gateway, request).await?;
    let endpoint = Arc::clone(&stream.provenance.endpoint);
    let mut read = Streamed { endpoint, text: String::new(), finishes: Vec::new(), error: None };
    let mut frames = Vec::new();
    loop {
        let more = stream.next(&mut frames).await;
        for piece in frames.drain(..).flat_map(|frame| frame.pieces) {
            match piece {
                crate::llm::Piece::Text { text, .. } => read.text.push_str(&text),
                crate::llm::Piece::Finish { reason, .. } => read.finishes.push(reason),
                _ => {}
            }
        }
        match more {
            Ok(true) => {}
            Ok(false) => return Ok(read),
            Err(error) => {
                read.error = Some(error);
                return Ok(read);
            }
        }
    }
}
