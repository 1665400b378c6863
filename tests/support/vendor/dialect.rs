//! What each vendor's answers and streams look like.

use std::time::Instant;

use super::super::{Json, json};
use super::{Asked, Dialect, Step, Tokens, chunk, reply, stream_head};

impl Dialect {
    pub(super) fn read(self, number: u64, head: String, body: &[u8]) -> Asked {
        let body: Json = serde_json::from_slice(body).unwrap_or(Json::Null);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (model, stream) = match self {
            Self::Google => {
                let name = path.rsplit("/models/").next().unwrap_or_default();
                let (model, method) = name.split_once(':').unwrap_or((name, ""));
                (model.to_owned(), method.starts_with("stream"))
            }
            _ => (body["model"].as_str().unwrap_or_default().to_owned(), body["stream"] == true),
        };
        Asked { number, at: Instant::now(), path, head, body, model, stream, hung_up: None }
    }

    /// The schema under which an answer must be valid.
    pub fn schema(self, body: &Json) -> Option<Json> {
        let schema = match self {
            Self::OpenAi => &body["response_format"]["json_schema"]["schema"],
            Self::Anthropic => &body["output_config"]["format"]["schema"],
            Self::Google => &body["generationConfig"]["responseJsonSchema"],
        };
        schema.is_object().then(|| schema.clone())
    }

    /// A good answer, streamed or whole as requested.
    pub fn answer(self, asked: &Asked, texts: &[&str], tokens: Tokens) -> Vec<Step> {
        if asked.stream { self.streamed(texts, tokens) } else { reply(200, "", &self.whole(&texts.concat(), tokens)) }
    }

    /// A good stream.
    pub fn streamed(self, texts: &[&str], tokens: Tokens) -> Vec<Step> {
        let mut steps = vec![stream_head()];
        steps.extend(self.preamble(tokens).map(chunk));
        steps.extend(texts.iter().map(|text| chunk(self.text(text, tokens))));
        // The end of the body is in the same write as the last event, so that the connection is free at once.
        let mut last = String::new();
        for event in self.finish(tokens) {
            last.push_str(&event);
        }
        let mut bytes = format!("{:x}\r\n{last}\r\n", last.len()).into_bytes();
        bytes.extend_from_slice(b"0\r\n\r\n");
        steps.push(Step::Write(bytes));
        steps
    }

    /// What is sent before the first token, if anything.
    pub fn preamble(self, tokens: Tokens) -> Option<String> {
        match self {
            Self::OpenAi => Some(data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1",
                "choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}))),
            Self::Anthropic => {
                let usage = json!({"input_tokens":tokens.input - tokens.cached,
                    "cache_read_input_tokens":tokens.cached,"output_tokens":1});
                let start = json!({"type":"message_start","message":{"id":"m","type":"message","role":"assistant",
                    "model":"v-1","content":[],"stop_reason":null,"usage":usage}});
                let block = json!({"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}});
                Some(named(&start) + &named(&block) + &named(&json!({"type":"ping"})))
            }
            Self::Google => None,
        }
    }

    /// One event with text.
    pub fn text(self, text: &str, tokens: Tokens) -> String {
        match self {
            Self::OpenAi => data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1",
                "choices":[{"index":0,"delta":{"content":text},"finish_reason":null}]})),
            Self::Anthropic => named(&json!({"type":"content_block_delta","index":0,
                "delta":{"type":"text_delta","text":text}})),
            Self::Google => {
                data(&json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":text}]}}],
                "usageMetadata":google_usage(tokens),"modelVersion":"v-1","responseId":"r"}))
            }
        }
    }

    /// The last events of a good stream.
    pub fn finish(self, tokens: Tokens) -> Vec<String> {
        match self {
            Self::OpenAi => vec![
                data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1",
                    "choices":[{"index":0,"delta":{},"finish_reason":"stop"}]})),
                data(&json!({"id":"x","object":"chat.completion.chunk","created":1,"model":"v-1","choices":[],
                    "usage":openai_usage(tokens)})),
                "data: [DONE]\n\n".to_owned(),
            ],
            Self::Anthropic => vec![
                named(&json!({"type":"content_block_stop","index":0})),
                named(&json!({"type":"message_delta","delta":{"stop_reason":"end_turn"},
                    "usage":{"output_tokens":tokens.output}})),
                named(&json!({"type":"message_stop"})),
            ],
            Self::Google => vec![data(&json!({"candidates":[{"index":0,
                "content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP"}],
                "usageMetadata":google_usage(tokens),"modelVersion":"v-1","responseId":"r"}))],
        }
    }

    /// A whole answer.
    pub fn whole(self, text: &str, tokens: Tokens) -> String {
        match self {
            Self::OpenAi => json!({"id":"x","object":"chat.completion","created":1,"model":"v-1","choices":[
                {"index":0,"message":{"role":"assistant","content":text},"finish_reason":"stop"}],
                "usage":openai_usage(tokens)}),
            Self::Anthropic => json!({"id":"m","type":"message","role":"assistant","model":"v-1",
                "content":[{"type":"text","text":text}],"stop_reason":"end_turn",
                "usage":{"input_tokens":tokens.input - tokens.cached,"cache_read_input_tokens":tokens.cached,
                    "output_tokens":tokens.output}}),
            Self::Google => json!({"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":text}]},
                "finishReason":"STOP"}],"usageMetadata":google_usage(tokens),"modelVersion":"v-1","responseId":"r"}),
        }
        .to_string()
    }

    /// An error body.
    pub fn error(self, status: u16, kind: &str, message: &str) -> String {
        match self {
            Self::OpenAi => json!({"error":{"message":message,"type":kind,"param":null,"code":kind}}),
            Self::Anthropic => json!({"type":"error","error":{"type":kind,"message":message},"request_id":"req_1"}),
            Self::Google => json!({"error":{"code":status,"message":message,"status":kind}}),
        }
        .to_string()
    }

    /// An error in the middle of a stream.
    pub fn error_event(self) -> String {
        match self {
            Self::OpenAi => data(&json!({"error":{"message":"Overloaded","type":"server_error","code":503}})),
            Self::Anthropic => {
                named(&json!({"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}))
            }
            Self::Google => data(&json!({"error":{"code":503,"message":"Overloaded","status":"UNAVAILABLE"}})),
        }
    }
}

fn openai_usage(tokens: Tokens) -> Json {
    json!({"prompt_tokens":tokens.input,"completion_tokens":tokens.output,
        "total_tokens":tokens.input + tokens.output,"prompt_tokens_details":{"cached_tokens":tokens.cached}})
}

fn google_usage(tokens: Tokens) -> Json {
    json!({"promptTokenCount":tokens.input,"cachedContentTokenCount":tokens.cached,
        "candidatesTokenCount":tokens.output,"totalTokenCount":tokens.input + tokens.output})
}

/// A `data:` event.
pub fn data(value: &Json) -> String {
    format!("data: {value}\n\n")
}

/// An event under the name of its type.
fn named(value: &Json) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
}
