"""OpenAI's chat completions, and the differences of vendors with a similar API."""

import json

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter, ValidationError

from .server import Fake, Malformed, thirds

PARAMS = {False: TypeAdapter(CompletionCreateParamsNonStreaming), True: TypeAdapter(CompletionCreateParamsStreaming)}
FIELDS = set(CompletionCreateParamsNonStreaming.__annotations__) | set(CompletionCreateParamsStreaming.__annotations__)
for base in CompletionCreateParamsNonStreaming.__orig_bases__:
    FIELDS |= set(getattr(base, "__annotations__", {}))
USAGE = {
    "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                  "rejected_prediction_tokens": 0},
}


class OpenAi(Fake):
    # Whether a field that is unknown to the SDK's types is refused, as OpenAI does.
    strict = True
    path = "/v1/chat/completions"

    def read(self, path, headers, body):
        if path != self.path:
            raise Malformed(f"no such path: {path}")
        streamed = body.get("stream", False)
        unknown = set(body) - FIELDS
        if self.strict and unknown:
            raise Malformed(f"Unknown parameter: {sorted(unknown)[0]!r}.")
        if self.strict:
            for message in body["messages"]:
                for key in set(message) & {"reasoning_content", "thinking_blocks"}:
                    raise Malformed(f"Unknown parameter: messages.{key}")
        try:
            PARAMS[streamed].validate_python(body)
        except ValidationError as error:
            raise Malformed(f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
        return body["model"], streamed

    def error(self, status, message):
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}

    def headers(self):
        return {"x-request-id": "req_1"}

    def calls(self, reply, indexed):
        return [
            {**({"index": index} if indexed else {}), "id": call.id or f"call_{index}", "type": "function",
             "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
            for index, call in enumerate(reply.calls)
        ]

    def finish(self, reply):
        return reply.finish or ("tool_calls" if reply.calls else "stop")

    def usage(self, reply):
        return reply.usage or USAGE

    def answer(self, reply, model, body):
        message = {"role": "assistant", "content": reply.text or None, "refusal": reply.more.get("refusal")}
        if reply.thinking:
            message["reasoning_content"] = reply.thinking
        if reply.calls:
            message["tool_calls"] = self.calls(reply, indexed=False)
        choice = {"index": 0, "message": message, "logprobs": reply.more.get("logprobs"), "finish_reason": self.finish(reply)}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1790000000, "model": model,
                "service_tier": "default", "system_fingerprint": None,
                "choices": [{**choice, "index": index} for index in range(body.get("n") or 1)], "usage": self.usage(reply)}

    def chunk(self, model, delta, finish=None, **more):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000, "model": model,
                "choices": [choice], **more}

    def deltas(self, reply):
        yield {"role": "assistant", "content": ""}
        yield from ({"reasoning_content": piece} for piece in thirds(reply.thinking))
        yield from ({"content": piece} for piece in thirds(reply.text))
        yield from ({"refusal": piece} for piece in thirds(reply.more.get("refusal") or ""))
        for call in self.calls(reply, indexed=True):
            arguments = call["function"]["arguments"]
            call["function"]["arguments"] = ""
            yield {"tool_calls": [call]}
            for piece in thirds(arguments):
                yield {"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]}

    def events(self, reply, model, body):
        data = lambda value: f"data: {json.dumps(value)}\n\n"  # noqa: E731

        def each(chunk):
            for index in range(body.get("n") or 1):
                yield data({**chunk, "choices": [{**chunk["choices"][0], "index": index}]})

        for delta in self.deltas(reply):
            chunk = self.chunk(model, delta)
            if "content" in delta and delta["content"] and reply.more.get("logprobs"):
                chunk["choices"][0]["logprobs"] = reply.more["logprobs"]
            yield from each(chunk)
        yield from each(self.chunk(model, {}, self.finish(reply)))
        if (body.get("stream_options") or {}).get("include_usage"):
            yield data({**self.chunk(model, {}), "choices": [], "usage": self.usage(reply)})
        yield "data: [DONE]\n\n"


class AssemblyAi(OpenAi):
    """AssemblyAI's gateway: no id, no index, usage under two names, tool calls in the choice, finish reasons of the model."""

    strict = False

    def read(self, path, headers, body):
        if path != self.path:
            raise Malformed(f"no such path: {path}")
        allowed = {
            "model", "messages", "max_tokens", "temperature", "top_p", "top_k", "stream", "stream_options", "tools",
            "tool_choice", "response_format", "reasoning", "cache_control",
        }
        for name in set(body) - allowed:
            raise Malformed(f'model "{body["model"]}" does not support {name}')
        if body.get("response_format", {}).get("type", "json_schema") != "json_schema":
            raise Malformed("response_format is invalid: type")
        if {message["role"] for message in body["messages"]} - {"system", "user", "assistant", "tool"}:
            raise Malformed("messages: role")
        return body["model"], body.get("stream", False)

    def error(self, status, message):
        return {"code": status, "message": "invalid request body", "request_id": "r1", "metadata": {"errors": [message]}}

    def usage(self, reply):
        return reply.usage or {
            "input_tokens": 20, "prompt_tokens": 20, "output_tokens": 9, "completion_tokens": 9, "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0, "cache_creation": {
                "ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 1}},
            "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                          "rejected_prediction_tokens": 0},
        }

    def finish(self, reply):
        return reply.finish or ("tool_use" if reply.calls else "end_turn")

    def answer(self, reply, model, body):
        choices = []
        if reply.text or not reply.calls:
            message = {"role": "assistant", "content": reply.text}
            if reply.thinking:
                message["thinking"] = reply.thinking
            choices.append({"message": message, "finish_reason": self.finish(reply)})
        if reply.calls:
            choices.append({"message": {"role": "assistant", "content": ""}, "finish_reason": self.finish(reply),
                            "tool_calls": self.calls(reply, indexed=False)})
        return {"request": {"model": model}, "request_id": "93f7", "model": model, "choices": choices,
                "usage": self.usage(reply), "http_status_code": 200, "response_time": 53194779, "llm_status_code": 200}

    def events(self, reply, model, body):
        data = lambda value: f"data: {json.dumps(value)}\n\n"  # noqa: E731
        plain = {"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29}
        backend = f"{model}-backend"
        for piece in thirds(reply.text):
            yield data(self.chunk(backend, {"content": piece}, usage=plain))
        for call in self.calls(reply, indexed=True):
            chunk = self.chunk(backend, {}, usage=plain)
            chunk["choices"][0]["tool_calls"] = [call]
            yield data(chunk)
        yield data(self.chunk(backend, {}, self.finish(reply), usage=plain))
        yield data({**self.chunk(backend, {}), "choices": [], "usage": plain})
        yield "data: [DONE]\n\n"
