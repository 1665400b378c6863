"""Anthropic's Messages API in both of its live versions."""

import json

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from pydantic import TypeAdapter, ValidationError

from .server import Fake, Malformed, thirds

PARAMS = {False: TypeAdapter(MessageCreateParamsNonStreaming), True: TypeAdapter(MessageCreateParamsStreaming)}
VERSIONS = {"2023-06-01", "2026-10-21"}
SAMPLING = {"temperature", "top_p", "top_k"}
FIELDS = {
    "model", "max_tokens", "messages", "system", "stop_sequences", "stream", "tools", "tool_choice", "output_config",
    "thinking", "cache_control", "metadata", "service_tier", "inference_geo", "speed", "container",
} | SAMPLING


class Anthropic(Fake):
    def read(self, path, headers, body):
        if path != "/v1/messages":
            raise Malformed(f"no such path: {path}")
        version = headers.get("anthropic-version")
        if version not in VERSIONS:
            raise Malformed("anthropic-version: header is required")
        if not headers.get("x-api-key") and not headers.get("authorization"):
            raise Malformed("no key")
        if set(body) - FIELDS:
            raise Malformed(f"{sorted(set(body) - FIELDS)[0]}: Extra inputs are not permitted")
        if version == "2026-10-21" and set(body) & SAMPLING:
            raise Malformed(f"{sorted(set(body) & SAMPLING)[0]}: Extra inputs are not permitted")
        streamed = body.get("stream", False)
        typed = {key: value for key, value in body.items() if key not in SAMPLING}
        try:
            PARAMS[streamed].validate_python(typed)
        except ValidationError as error:
            raise Malformed(f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
        self.check_messages(body["messages"])
        schema = (body.get("output_config") or {}).get("format", {}).get("schema")
        if schema is not None and schema.get("additionalProperties") is not False:
            raise Malformed("output_config.format.schema: additionalProperties must be false")
        return body["model"], streamed

    def check_messages(self, messages):
        called = set()
        for index, message in enumerate(messages):
            blocks = message["content"]
            if isinstance(blocks, str):
                blocks = [{"type": "text", "text": blocks}]
            if not blocks or any(block["type"] == "text" and not block["text"] for block in blocks):
                raise Malformed(f"messages.{index}: content must be non-empty")
            results = [block["type"] == "tool_result" for block in blocks]
            if results != sorted(results, reverse=True):
                raise Malformed(f"messages.{index}: tool results come first")
            answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            if answered != called:
                raise Malformed(f"messages.{index}: tool_use without tool_result, or the other way round")
            called = {block["id"] for block in blocks if block["type"] == "tool_use"}

    def error(self, status, message):
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}, "request_id": "req_1"}

    def headers(self):
        return {"request-id": "req_1"}

    def usage(self, reply):
        return {
            "input_tokens": 20, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 3}, "service_tier": "standard",
            **reply.usage,
        }

    def finish(self, reply):
        return reply.finish or ("tool_use" if reply.calls else "end_turn")

    def blocks(self, reply):
        if reply.thinking:
            yield {"type": "thinking", "thinking": reply.thinking, "signature": "sig-of-thinking"}
        for data in reply.more.get("redacted_thinking", []):
            yield {"type": "redacted_thinking", "data": data}
        if reply.text:
            yield {"type": "text", "text": reply.text}
        for index, call in enumerate(reply.calls):
            yield {"type": "tool_use", "id": call.id or f"toolu_{index}", "name": call.name, "input": call.arguments}

    def answer(self, reply, model, body):
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": model,
                "content": list(self.blocks(reply)), "stop_reason": self.finish(reply), "stop_sequence": None,
                "stop_details": None, "usage": self.usage(reply)}

    def events(self, reply, model, body):
        def event(kind, **more):
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"

        usage = self.usage(reply)
        begun = {**self.answer(reply, model, body), "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        yield event("message_start", message=begun)
        yield event("ping")
        for index, block in enumerate(self.blocks(reply)):
            deltas = {
                "thinking": lambda: [("thinking_delta", "thinking", piece) for piece in thirds(block["thinking"])]
                + [("signature_delta", "signature", block["signature"])],
                "text": lambda: [("text_delta", "text", piece) for piece in thirds(block["text"])],
                "tool_use": lambda: [("input_json_delta", "partial_json", piece) for piece in (thirds(json.dumps(block["input"])) if block["input"] else [""])],
                "redacted_thinking": lambda: [],
            }[block["type"]]()
            empty = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}, "tool_use": {"input": {}}, "redacted_thinking": {}}
            yield event("content_block_start", index=index, content_block={**block, **empty[block["type"]]})
            for kind, key, piece in deltas:
                yield event("content_block_delta", index=index, delta={"type": kind, key: piece})
            yield event("content_block_stop", index=index)
        delta = {"stop_reason": self.finish(reply), "stop_sequence": None}
        final = {"output_tokens": usage["output_tokens"], "output_tokens_details": usage["output_tokens_details"]}
        yield event("message_delta", delta=delta, usage=final)
        yield event("message_stop")
