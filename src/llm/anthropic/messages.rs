//! Messages in Anthropic's format: one text of instructions, and the turns of user and assistant as content blocks.
//!
//! Knows no tool and no parameter of a request.

use serde_json::{Value, json};

use super::blocks::Blocks;
use super::cache;
use crate::llm::emulate::{self, image_source};
use crate::llm::json::{self, Object};
use crate::llm::{ChatRequest, Content, Marks, Message, Role, THINKING_BLOCKS, Unsupported};

/// Writes all system and developer messages, joined.
///
/// As one text, or as blocks if one of them marks the end of a prefix to be cached.
pub(super) fn write_system(object: &mut Object<'_>, request: &ChatRequest, instruction: Option<&str>) {
    let instructions: Vec<&Message> = request
        .messages
        .iter()
        .filter(|message| message.role.instructs() && !emulate::blank(&message.content))
        .collect();
    if instructions.is_empty() && instruction.is_none() {
        return;
    }
    let out = object.key("system");
    let cached = |message: &&Message| match &message.content {
        Content::Parts(parts) => parts.iter().any(|part| part.get("cache_control").is_some()),
        _ => message.rest.contains_key("cache_control"),
    };
    if instructions.iter().any(cached) {
        let mut blocks = Blocks::open(out);
        for message in instructions {
            match &message.content {
                Content::Parts(parts) => {
                    for block in emulate::parts(message, parts).filter_map(|part| text_block(&part)) {
                        json::value(blocks.next(), &block);
                    }
                }
                content => write_text(&mut blocks, message, content),
            }
        }
        if let Some(instruction) = instruction {
            json::value(blocks.next(), &json!({"type": "text", "text": instruction}));
        }
        blocks.close();
        return;
    }
    out.push(b'"');
    for (position, message) in instructions.iter().enumerate() {
        if position > 0 {
            out.extend_from_slice(b"\\n\\n");
        }
        match &message.content {
            Content::Text(text) => text.segments().iter().for_each(|segment| json::escape(out, segment)),
            other => json::escape(out, &other.plain()),
        }
    }
    if let Some(instruction) = instruction {
        if !instructions.is_empty() {
            out.extend_from_slice(b"\\n\\n");
        }
        json::escape(out, instruction);
    }
    out.push(b'"');
}

/// Writes the messages. Consecutive messages of one role are merged; tool results belong to the user's message and come
/// first in it.
pub(super) fn write_messages(out: &mut Vec<u8>, messages: &[Message], marks: Marks) -> Result<(), Unsupported> {
    let spoken: Vec<&Message> =
        messages.iter().filter(|message| !message.role.instructs() && !emulate::says_nothing(message)).collect();
    if spoken.is_empty() {
        let message = "Anthropic needs at least one message with content that is not a system message";
        return Err(Unsupported(message.to_owned()));
    }
    out.push(b'[');
    let mut from = 0;
    while from < spoken.len() {
        let assistant = spoken[from].role == Role::Assistant;
        let length = spoken[from..].iter().take_while(|message| (message.role == Role::Assistant) == assistant).count();
        let group = &spoken[from..from + length];
        if from > 0 {
            out.push(b',');
        }
        from += length;
        let mut object = Object::new(out);
        object.string("role", if assistant { "assistant" } else { "user" });
        let mut blocks = Blocks::open(object.key("content"));
        for message in group.iter().filter(|message| message.role == Role::Tool) {
            write_result(&mut blocks, message)?;
        }
        for message in group.iter().filter(|message| message.role != Role::Tool) {
            write_blocks(&mut blocks, message, marks)?;
        }
        blocks.close();
        object.end();
    }
    out.push(b']');
    Ok(())
}

fn write_result(blocks: &mut Blocks<'_>, message: &Message) -> Result<(), Unsupported> {
    let mut object = Object::new(blocks.next());
    object.string("type", "tool_result");
    object.string("tool_use_id", emulate::bare_call_id(message.tool_call_id.as_deref().unwrap_or_default()));
    match &message.content {
        Content::Text(_) | Content::Blocks(_) => json::segments(object.key("content"), message.content.segments()),
        Content::None => object.string("content", ""),
        Content::Parts(parts) => {
            let blocks = emulate::parts(message, parts).map(|part| block(&part)).collect::<Result<Vec<_>, _>>()?;
            object.value("content", &blocks);
        }
    }
    object.end();
    Ok(())
}

fn write_blocks(blocks: &mut Blocks<'_>, message: &Message, marks: Marks) -> Result<(), Unsupported> {
    if let Some(Value::Array(thinking)) = message.rest.get(THINKING_BLOCKS) {
        for block in thinking {
            // The index is only for OpenAI's clients, which assemble the blocks of a stream by it.
            let mut block = block.clone();
            if let Value::Object(fields) = &mut block {
                fields.remove("index");
            }
            json::value(blocks.next(), &block);
        }
    }
    match &message.content {
        Content::Parts(parts) => {
            for part in emulate::parts(message, parts) {
                json::value(blocks.next(), &block(&part)?);
            }
        }
        Content::Blocks(texts) => cache::write(blocks, texts, marks),
        content => write_text(blocks, message, content),
    }
    if let Some(refusal) = message.refusal.as_deref().filter(|refusal| !refusal.is_empty()) {
        json::value(blocks.next(), &json!({"type": "text", "text": refusal}));
    }
    for call in &message.tool_calls {
        let mut object = Object::new(blocks.next());
        object.string("type", "tool_use");
        object.string("id", emulate::bare_call_id(&call.id));
        object.string("name", &call.name);
        object.value("input", &emulate::arguments(call)?);
        object.end();
    }
    Ok(())
}

/// Writes a message's text as a block; nothing if it is blank.
fn write_text(blocks: &mut Blocks<'_>, message: &Message, content: &Content) {
    let Content::Text(text) = content else { return };
    if emulate::blank(content) {
        return;
    }
    let mut object = Object::new(blocks.next());
    object.string("type", "text");
    let out = object.key("text");
    out.push(b'"');
    if let Some(name) = &message.name {
        json::escape(out, &format!("{name}: "));
    }
    text.segments().iter().for_each(|segment| json::escape(out, segment));
    out.push(b'"');
    object.option("cache_control", message.rest.get("cache_control"));
    object.end();
}

fn text_block(part: &Value) -> Option<Value> {
    let text = part.get("text").or_else(|| part.get("refusal"))?;
    let mut block = json!({"type": "text", "text": text});
    if let Some(cache) = part.get("cache_control") {
        block["cache_control"] = cache.clone();
    }
    Some(block)
}

/// Converts a content part to a block of Anthropic's API.
fn block(part: &Value) -> Result<Value, Unsupported> {
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "refusal") => {
            text_block(part).ok_or_else(|| Unsupported("a text part without a text".to_owned()))
        }
        Some("image_url") => match image_source(part) {
            Some((Some(media), data)) => {
                Ok(json!({"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}))
            }
            Some((None, url)) => Ok(json!({"type": "image", "source": {"type": "url", "url": url}})),
            None => Err(Unsupported("an image_url part without a url".to_owned())),
        },
        other => Err(Unsupported(format!("Anthropic does not accept content of type {:?}", other.unwrap_or("none")))),
    }
}
