"""Every row of the mapping tables, in both directions, streamed and not: one case per row.

`ASKED`: the request of an OpenAI client, and the expected members of the vendor's request (path: value), or the words of
the error. `ANSWERED`: the model's answer in the vendor's format, and what the OpenAI client reads. The fake servers refuse
what the vendor's own types refuse, so each case that succeeds is a request that the vendor would accept.
"""

import json
import re

import pytest
from gateway import ABSENT, check, openai, same
from gateway import gateway as gateway  # the fixture

from fakes.server import Call, Refusal, Reply

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer", "minimum": 1, "multipleOf": 1}},
          "required": ["kind", "n"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}
VALID = '{"kind":"a","n":2}'
# An id that the gateway makes if the vendor gives none.
MINTED = re.compile("call_[0-9a-z]{20}")


def tool(name="f", **more):
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": SCHEMA, **more}}


def call(id, name="f", arguments='{"a":1}', **more):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


NAMED = {"type": "function", "function": {"name": "f"}}
TOOL_TURNS = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [call("c1"), call("c2", "g", "")]},
    {"role": "tool", "tool_call_id": "c1", "content": '{"ok":true}'},
    {"role": "tool", "tool_call_id": "c2", "content": "plain"},
    {"role": "user", "content": "go on"},
]
SYSTEMS = [{"role": "system", "content": "one"}, USER, {"role": "developer", "content": "two"}]
IMAGE = {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]}
CACHED = [{"role": "system", "content": [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}]}, USER]
EMPTY = [USER, {"role": "assistant", "content": ""}, {"role": "user", "content": "again"}]
REFUSED = [USER, {"role": "assistant", "content": None, "refusal": "no"}, USER]
THOUGHT = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
FOREIGN = [USER, {"role": "assistant", "content": None, "thinking_blocks": THOUGHT, "reasoning_content": "hm", "tool_calls": [
    call("c1~ts~sig", extra_content={"google": {"thought_signature": "sig"}})]}, {"role": "tool", "tool_call_id": "c1~ts~sig", "content": "1"}]
LONG = "x" * 60
STRANGE = [USER, {"role": "assistant", "content": None, "tool_calls": [call(LONG)]}, {"role": "tool", "tool_call_id": LONG, "content": "1"}]

# (endpoint, case, request, what the vendor gets)
ASKED = [
    ("openai", "system and developer", {"messages": SYSTEMS}, {"messages.0.role": "system", "messages.2.role": "developer"}),
    ("openai", "token limit, old name", {"max_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": ABSENT}),
    ("openai", "token limit", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
    ("openai", "sampling", {"temperature": 0.5, "top_p": 0.9, "seed": 3, "presence_penalty": 1, "frequency_penalty": 1},
     {"temperature": 0.5, "top_p": 0.9, "seed": 3, "presence_penalty": 1.0, "frequency_penalty": 1.0}),
    ("openai", "one stop", {"stop": "x"}, {"stop": ["x"]}),
    ("openai", "stops", {"stop": ["x", "y"]}, {"stop": ["x", "y"]}),
    ("openai", "tools", {"tools": [tool(strict=True)], "tool_choice": "auto", "parallel_tool_calls": False},
     {"tools": [tool(strict=True)], "tool_choice": "auto", "parallel_tool_calls": False}),
    ("openai", "tool choice required", {"tools": [tool()], "tool_choice": "required"}, {"tool_choice": "required"}),
    ("openai", "tool choice none", {"tools": [tool()], "tool_choice": "none"}, {"tool_choice": "none"}),
    ("openai", "tool choice named", {"tools": [tool()], "tool_choice": NAMED}, {"tool_choice": NAMED}),
    ("openai", "tool turns", {"messages": TOOL_TURNS},
     {"messages.1.tool_calls.0": call("c1"), "messages.2.tool_call_id": "c1", "messages.3.content": "plain"}),
    ("openai", "schema", {"response_format": FORMAT}, {"response_format": FORMAT}),
    ("openai", "JSON object", {"response_format": {"type": "json_object"}}, {"response_format.type": "json_object"}),
    ("openai", "effort", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
    ("openai", "effort, as others have it", {"extra_body": {"reasoning": {"effort": "low"}}},
     {"reasoning_effort": "low", "reasoning": ABSENT}),
    ("openai", "logprobs", {"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
    ("openai", "n", {"n": 2}, {"n": 2}),
    ("openai", "hints", {"user": "u", "metadata": {"a": "b"}, "service_tier": "flex", "store": True},
     {"user": "u", "metadata": {"a": "b"}, "service_tier": "flex", "store": True}),
    ("openai", "image", {"messages": [IMAGE]}, {"messages.0.content.1.type": "image_url"}),
    ("openai", "what other vendors put into a message", {"messages": FOREIGN}, {
        "messages.1.thinking_blocks": ABSENT, "messages.1.reasoning_content": ABSENT,
        "messages.1.tool_calls.0": call("c1"), "messages.2.tool_call_id": "c1"}),

    ("assemblyai", "developer", {"messages": SYSTEMS}, {"messages.2.role": "system"}),
    ("assemblyai", "token limit", {"max_completion_tokens": 5}, {"max_tokens": 5}),
    ("assemblyai", "effort", {"reasoning_effort": "low"}, {"reasoning.effort": "low", "reasoning_effort": ABSENT}),
    ("assemblyai", "thinking tokens", {"extra_body": {"reasoning": {"max_tokens": 2000}}}, {"reasoning.max_tokens": 2000}),
    ("assemblyai", "schema", {"response_format": FORMAT}, {"response_format.json_schema.schema": SCHEMA}),
    ("assemblyai", "JSON object in words", {"response_format": {"type": "json_object"}},
     {"response_format": ABSENT, "messages.0.role": "system"}),
    ("assemblyai", "what it does not know is its own refusal", {"seed": 3}, "does not support seed"),

    ("anthropic", "system and developer", {"messages": SYSTEMS}, {"system": "one\n\ntwo", "messages.0.role": "user", "messages.1": ABSENT}),
    ("anthropic", "cached system", {"messages": CACHED},
     {"system": [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}]}),
    ("anthropic", "token limit, its own default", {}, {"max_tokens": 4096}),
    ("anthropic", "token limit", {"max_completion_tokens": 5}, {"max_tokens": 5}),
    ("anthropic", "sampling is gone", {"temperature": 0.5, "top_p": 0.9}, {"temperature": ABSENT, "top_p": ABSENT}),
    ("anthropic_old", "sampling", {"temperature": 1.5, "top_p": 0.9}, {"temperature": 1.0, "top_p": 0.9}),
    ("anthropic", "stop", {"stop": "x"}, {"stop_sequences": ["x"]}),
    ("anthropic", "tools", {"tools": [tool(strict=True)]},
     {"tools.0": {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}, "tool_choice": ABSENT}),
    ("anthropic", "tool choice auto", {"tools": [tool()], "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
    ("anthropic", "tool choice required", {"tools": [tool()], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    ("anthropic", "tool choice none", {"tools": [tool()], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    ("anthropic", "tool choice named", {"tools": [tool()], "tool_choice": NAMED}, {"tool_choice": {"type": "tool", "name": "f"}}),
    ("anthropic", "one call at a time", {"tools": [tool()], "parallel_tool_calls": False},
     {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
    ("anthropic", "tool turns", {"messages": TOOL_TURNS}, {
        "messages.1.content.0": {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        "messages.1.content.1": {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
        "messages.2.content.0": {"type": "tool_result", "tool_use_id": "c1", "content": '{"ok":true}'},
        "messages.2.content.1.content": "plain", "messages.2.content.2": {"type": "text", "text": "go on"}}),
    ("anthropic", "tool result in parts", {"messages": [*STRANGE[:2], {"role": "tool", "tool_call_id": LONG, "content": [{"type": "text", "text": "1"}]}]},
     {"messages.2.content.0.content": [{"type": "text", "text": "1"}]}),
    ("anthropic", "schema", {"response_format": FORMAT}, {
        "output_config.format.type": "json_schema", "output_config.format.schema.additionalProperties": False,
        "output_config.format.schema.properties.n": {"type": "integer"}, "response_format": ABSENT}),
    ("anthropic", "JSON object in words", {"response_format": {"type": "json_object"}},
     {"system": "Answer with one JSON object and nothing else: no explanation, no code fence."}),
    ("anthropic", "effort", {"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
    ("anthropic", "thinking tokens", {"extra_body": {"reasoning": {"max_tokens": 2000}}}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    ("anthropic", "signed thinking comes back", {"messages": [USER, {"role": "assistant", "content": "a", "thinking_blocks": THOUGHT}, USER]},
     {"messages.1.content.0": THOUGHT[0], "messages.1.content.1.text": "a"}),
    ("anthropic", "user", {"user": "u"}, {"metadata": {"user_id": "u"}}),
    ("anthropic", "image", {"messages": [IMAGE]},
     {"messages.0.content.1.source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}),
    ("anthropic", "nothing said", {"messages": EMPTY}, {"messages.0.content.1.text": "again", "messages.1": ABSENT}),
    ("anthropic", "a refusal before", {"messages": REFUSED}, {"messages.1.content.0.text": "no"}),
    ("anthropic", "a name", {"messages": [{**USER, "name": "ann"}]}, {"messages.0.content.0.text": "ann: hi"}),
    ("anthropic", "hints", {"seed": 1, "service_tier": "flex", "store": True, "metadata": {"a": "b"}}, {"seed": ABSENT, "store": ABSENT}),
    ("anthropic", "n", {"n": 2}, "Anthropic does not support n above 1"),
    ("anthropic", "logprobs", {"logprobs": True}, "Anthropic does not support logprobs"),
    ("anthropic", "penalties", {"presence_penalty": 1}, "Anthropic does not support presence_penalty"),
    ("anthropic", "logit bias", {"logit_bias": {"5": 1}}, "Anthropic does not support logit_bias"),
    ("anthropic", "custom tool", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "Anthropic does not accept a tool of type"),
    ("anthropic", "system alone", {"messages": SYSTEMS[:1]}, "at least one message"),

    ("google", "system and developer", {"messages": SYSTEMS}, {"systemInstruction.parts": [{"text": "one"}, {"text": "two"}], "contents.1": ABSENT}),
    ("google", "roles", {"messages": [USER, {"role": "assistant", "content": "a"}, USER]}, {"contents.1.role": "model", "contents.1.parts.0.text": "a"}),
    ("google", "sampling", {"temperature": 0.5, "top_p": 0.9, "seed": 3, "presence_penalty": 1, "frequency_penalty": 1}, {
        "generationConfig": {"temperature": 0.5, "topP": 0.9, "seed": 3, "presencePenalty": 1.0, "frequencyPenalty": 1.0}}),
    ("google", "limit and stop", {"max_tokens": 5, "stop": "x"}, {"generationConfig": {"maxOutputTokens": 5, "stopSequences": ["x"]}}),
    ("google", "n", {"n": 2}, {"generationConfig.candidateCount": 2}),
    ("google", "tools", {"tools": [tool()]}, {
        "tools.0.functionDeclarations.0.name": "f", "toolConfig": ABSENT,
        "tools.0.functionDeclarations.0.parametersJsonSchema.properties": {"kind": {"enum": ["a"]}, "n": {"type": "integer", "minimum": 1}}}),
    ("google", "strict tools", {"tools": [tool(strict=True)]}, {"toolConfig.functionCallingConfig.mode": "VALIDATED"}),
    ("google", "tool choice auto", {"tools": [tool()], "tool_choice": "auto"}, {"toolConfig.functionCallingConfig": {"mode": "AUTO"}}),
    ("google", "tool choice required", {"tools": [tool()], "tool_choice": "required"}, {"toolConfig.functionCallingConfig": {"mode": "ANY"}}),
    ("google", "tool choice none", {"tools": [tool()], "tool_choice": "none"}, {"toolConfig.functionCallingConfig": {"mode": "NONE"}}),
    ("google", "tool choice named", {"tools": [tool()], "tool_choice": NAMED},
     {"toolConfig.functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}),
    ("google", "tool turns", {"messages": TOOL_TURNS}, {
        "contents.1.parts.0": {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
        "contents.1.parts.1.functionCall.args": {}, "contents.2.role": "user",
        "contents.2.parts.0.functionResponse": {"id": "c1", "name": "f", "response": {"ok": True}},
        "contents.2.parts.1.functionResponse.response": {"result": "plain"}, "contents.2.parts.2.text": "go on"}),
    ("google", "signature in the id", {"messages": [*FOREIGN[:1], {"role": "assistant", "tool_calls": [call("c1~ts~c2ln")]}, {**FOREIGN[2], "tool_call_id": "c1~ts~c2ln"}]},
     {"contents.1.parts.0.thoughtSignature": "c2ln", "contents.1.parts.0.functionCall.id": "c1"}),
    ("google", "schema", {"response_format": FORMAT}, {
        "generationConfig.responseMimeType": "application/json",
        "generationConfig.responseJsonSchema.properties": {"kind": {"enum": ["a"]}, "n": {"type": "integer", "minimum": 1}}}),
    ("google", "JSON object", {"response_format": {"type": "json_object"}}, {"generationConfig": {"responseMimeType": "application/json"}}),
    ("google", "effort", {"reasoning_effort": "low"}, {"generationConfig.thinkingConfig": {"thinkingLevel": "LOW"}}),
    ("google", "thinking tokens", {"extra_body": {"reasoning": {"max_tokens": 2000}}}, {"generationConfig.thinkingConfig": {"thinkingBudget": 2000}}),
    ("google", "image", {"messages": [IMAGE]}, {"contents.0.parts.1.inlineData": {"mimeType": "image/png", "data": "QUJD"}}),
    ("google", "nothing said", {"messages": EMPTY}, {"contents.0.parts.1.text": "again", "contents.1": ABSENT}),
    ("google", "a refusal before", {"messages": REFUSED}, {"contents.1.parts.0.text": "no"}),
    ("google", "logprobs", {"logprobs": True}, "Gemini does not support logprobs"),
    ("google", "one call at a time", {"tools": [tool()], "parallel_tool_calls": False}, {"parallel_tool_calls": ABSENT}),
    ("google", "result without its call", {"messages": [USER, {"role": "tool", "tool_call_id": "x", "content": "1"}]}, "no assistant message before it has a tool call"),
]


def ids(cases):
    return [f"{endpoint}: {name}" for endpoint, name, *_ in cases]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("endpoint, name, request_, expected", ASKED, ids=ids(ASKED))
def test_asked(gateway, endpoint, name, request_, expected, stream):
    fake = gateway.fakes[endpoint]
    fake.script["m"] = Reply(text=VALID)
    before = len(fake.requests)
    if isinstance(expected, str):
        with pytest.raises(openai.BadRequestError) as error:
            gateway.ask(f"{endpoint}/m", stream, **request_)
        assert expected in json.dumps(error.value.body), error.value.body
        return
    answer = gateway.ask(f"{endpoint}/m", stream, **request_)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [VALID] * request_.get("n", 1)
    assert len(fake.requests) == before + 1
    check(fake.last(), expected)


CALLS = [Call("f", {"a": [1]}), Call("g", {"b": "ü"})]
LOGPROBS = {"content": [{"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": []}], "refusal": None}
HEAD = "choices.0."


def calls(*names):
    """The paths of the names and the arguments of these calls."""
    known = {each.name: each for each in CALLS}
    places = {}
    for index, name in enumerate(names):
        places[f"{HEAD}message.tool_calls.{index}.function.name"] = name
        places[f"{HEAD}message.tool_calls.{index}.function.arguments"] = known[name].arguments
    return {**places, f"{HEAD}message.tool_calls.{len(names)}": ABSENT, f"{HEAD}finish_reason": "tool_calls"}


def finish(reason):
    return {f"{HEAD}finish_reason": reason}


def usage(prompt, completion, cached=0, reasoning=0, written=0):
    return {
        "usage.prompt_tokens": prompt, "usage.completion_tokens": completion, "usage.total_tokens": prompt + completion,
        "usage.input_tokens": prompt, "usage.output_tokens": completion,
        "usage.prompt_tokens_details.cached_tokens": cached, "usage.completion_tokens_details.reasoning_tokens": reasoning,
        "usage.prompt_tokens_details.cache_write_tokens": written,
    }


# (endpoint, case, what the model says, what the client reads)
ANSWERED = [
    ("openai", "text", Reply(text="Hello."), {f"{HEAD}message.content": "Hello.", **finish("stop"), **usage(20, 9, 4, 3)}),
    ("openai", "thinking", Reply(text="a", thinking="hm hm"), {f"{HEAD}message.reasoning_content": "hm hm"}),
    ("openai", "calls", Reply(calls=CALLS), calls("f", "g")),
    ("openai", "text and a call", Reply(text="so", calls=CALLS[:1]), {f"{HEAD}message.content": "so", **calls("f")}),
    ("openai", "length", Reply(text="a", finish="length"), finish("length")),
    ("openai", "filter", Reply(text="a", finish="content_filter"), finish("content_filter")),
    ("openai", "refusal", Reply(more={"refusal": "I will not."}), {f"{HEAD}message.refusal": "I will not.", f"{HEAD}message.content": None}),
    ("openai", "logprobs", Reply(text="x", more={"logprobs": LOGPROBS}), {f"{HEAD}logprobs.content.0.token": "x"}),
    ("assemblyai", "text", Reply(text="Hello."), {f"{HEAD}message.content": "Hello.", **finish("stop"), "usage.prompt_tokens": 20}),
    ("assemblyai", "calls on the choice, beside text", Reply(text="so", calls=CALLS), {f"{HEAD}message.content": "so", **calls("f", "g")}),
    ("assemblyai", "Claude's length", Reply(text="a", finish="max_tokens"), finish("length")),
    ("assemblyai", "Gemini's stop", Reply(text="a", finish="STOP"), finish("stop")),
    ("assemblyai", "Gemini's filter", Reply(text="a", finish="SAFETY"), finish("content_filter")),
    ("anthropic", "text", Reply(text="Hello."), {f"{HEAD}message.content": "Hello.", **finish("stop"), **usage(32, 9, 7, 3, 5)}),
    ("anthropic", "signed thinking", Reply(text="a", thinking="hm hm"), {
        f"{HEAD}message.reasoning_content": "hm hm",
        f"{HEAD}message.thinking_blocks": [{"type": "thinking", "thinking": "hm hm", "signature": "sig-of-thinking"}]}),
    ("anthropic", "calls after thinking and text", Reply(text="so", thinking="hm", calls=CALLS), {f"{HEAD}message.content": "so", **calls("f", "g")}),
    ("anthropic", "stop sequence", Reply(text="a", finish="stop_sequence"), finish("stop")),
    ("anthropic", "pause", Reply(text="a", finish="pause_turn"), finish("stop")),
    ("anthropic", "length", Reply(text="a", finish="max_tokens"), finish("length")),
    ("anthropic", "context", Reply(text="a", finish="model_context_window_exceeded"), finish("length")),
    ("anthropic", "refusal", Reply(text="", finish="refusal"), finish("content_filter")),
    ("google", "text", Reply(text="Hello."), {f"{HEAD}message.content": "Hello.", **finish("stop"), **usage(20, 9, 4, 3)}),
    ("google", "thinking is not content", Reply(text="a", thinking="hm hm"), {f"{HEAD}message.reasoning_content": "hm hm", f"{HEAD}message.content": "a"}),
    ("google", "calls, ids minted", Reply(calls=CALLS), {
        **calls("f", "g"), f"{HEAD}message.tool_calls.0.id": MINTED, f"{HEAD}message.tool_calls.1.id": MINTED}),
    ("google", "a signed call", Reply(calls=[Call("f", {"a": [1]}, "c9", "c2ln")]), {**calls("f"), f"{HEAD}message.tool_calls.0.id": "c9~ts~c2ln"}),
    ("google", "length", Reply(text="a", finish="MAX_TOKENS"), finish("length")),
    *[("google", reason, Reply(text="a", finish=reason), finish("content_filter"))
      for reason in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY")],
    ("google", "blocked prompt", Reply(more={"promptFeedback": {"blockReason": "SAFETY"}}),
     {f"{HEAD}message.content": None, **finish("content_filter"), **usage(20, 0)}),
    ("google", "tool use counts as prompt", Reply(text="a", usage={
        "promptTokenCount": 20, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 31}), usage(25, 6)),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("endpoint, name, reply, expected", ANSWERED, ids=ids(ANSWERED))
def test_answered(gateway, endpoint, name, reply, expected, stream):
    gateway.fakes[endpoint].script["m"] = reply
    answer = gateway.ask(f"{endpoint}/m", stream)
    for choice in answer["choices"]:
        for made in choice["message"].get("tool_calls") or []:
            made["function"]["arguments"] = json.loads(made["function"]["arguments"])
    check(answer, expected)
    made = [made["id"] for choice in answer["choices"] for made in choice["message"].get("tool_calls") or []]
    assert len(set(made)) == len(made), made
    assert answer["sidetone"]["endpoint"] == endpoint and answer["sidetone"]["cost_usd"] is not None


@pytest.mark.parametrize("endpoint, status, body, headers, expected", [
    ("openai", 400, {"error": {"message": "bad", "type": "invalid_request_error", "param": "x", "code": None}}, {}, openai.BadRequestError),
    ("openai", 404, {"error": {"message": "no model", "type": "invalid_request_error", "param": None, "code": "model_not_found"}}, {}, openai.NotFoundError),
    ("openai", 429, {"error": {"message": "slow", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}, {"retry-after": "60"}, openai.RateLimitError),
    ("openai", 429, {"error": {"message": "broke", "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}}, {}, openai.RateLimitError),
    ("openai", 401, {"error": {"message": "key", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}}, {}, openai.InternalServerError),
    ("assemblyai", 401, {"error": "Authentication error, API token missing/invalid", "status": "error", "request_id": "r"}, {}, openai.InternalServerError),
    ("assemblyai", 400, {"error": {"code": 400, "message": "old form", "metadata": {}}}, {}, openai.BadRequestError),
    ("assemblyai", 400, {"code": 400, "message": "Your account does not have access to this LLM Gateway model"}, {}, openai.InternalServerError),
    ("assemblyai", 429, {"code": 429, "message": "too many requests for this action", "request_id": "r"}, {"retry-after": "60"}, openai.RateLimitError),
    ("anthropic", 429, {"type": "error", "error": {"type": "rate_limit_error", "message": "m", "details": {"error_code": "enforced_spend_limit_reached"}}}, {}, openai.RateLimitError),
    ("anthropic", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, {"retry-after": "60"}, openai.InternalServerError),
    ("anthropic", 413, {"type": "error", "error": {"type": "request_too_large", "message": "m"}}, {}, openai.APIStatusError),
    ("google", 400, [{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}], {}, openai.InternalServerError),
    ("google", 429, {"error": {"code": 429, "message": "Please retry in 60s.", "status": "RESOURCE_EXHAUSTED"}}, {}, openai.RateLimitError),
], ids=lambda value: value if isinstance(value, (str, int)) else "")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_refused(gateway, request, endpoint, status, body, headers, expected, stream):
    model = f"e{abs(hash(request.node.name))}"  # A model for each case, so that each has a circuit breaker of its own.
    gateway.fakes[endpoint].script[model] = Refusal(status, body, headers)
    with pytest.raises(expected) as error:
        gateway.ask(f"{endpoint}/{model}", stream)
    attempts = error.value.body["attempts"]
    assert attempts[-1]["status"] == status and attempts[-1]["endpoint"] == endpoint
    if "retry-after" in headers:
        assert int(error.value.response.headers["retry-after"]) in range(50, 61)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("endpoint", ["openai", "assemblyai", "anthropic", "google"])
def test_parallel_tool_calls_off_gives_one_call(gateway, endpoint, stream):
    """Also if the vendor has no parameter for it, or ignores it."""
    gateway.fakes[endpoint].script["m"] = Reply(text="so", calls=CALLS)
    answer = gateway.ask(f"{endpoint}/m", stream, tools=[tool("f"), tool("g")], parallel_tool_calls=False)
    made = answer["choices"][0]["message"]["tool_calls"]
    assert [each["function"]["name"] for each in made] == ["f"] and json.loads(made[0]["function"]["arguments"]) == {"a": [1]}
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_signatures_come_back_to_their_vendor(gateway, stream):
    """The client sends the calls of an answer back unchanged; the next request to the vendor has them in their first form."""
    fake = gateway.fakes["google"]
    fake.script["m"] = Reply(calls=[Call("f", {"a": 1}, "", "c2ln"), Call("g", {})])
    message = gateway.ask("google/m", stream, tools=[tool("f"), tool("g")])["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": made["id"], "content": "1"} for made in message["tool_calls"]]
    fake.script["m"] = Reply(text="done")
    gateway.ask("google/m", stream, tools=[tool("f"), tool("g")], messages=[USER, message, *results])
    check(fake.last(), {"contents.1.parts.0.thoughtSignature": "c2ln", "contents.1.parts.1.thoughtSignature": ABSENT,
                        "contents.2.parts.0.functionResponse.name": "f", "contents.2.parts.1.functionResponse.name": "g"})
    # Another vendor gets the calls without signatures.
    gateway.ask("openai/m", stream, messages=[USER, message, *results])
    sent = gateway.fakes["openai"].last()["messages"]
    ids = [made["id"] for made in sent[1]["tool_calls"]]
    assert all(same(made, MINTED) for made in ids) and len(set(ids)) == 2, ids
    assert [result["tool_call_id"] for result in sent[2:]] == ids

    fake = gateway.fakes["anthropic"]
    fake.script["m"] = Reply(thinking="hm", calls=[Call("f", {"a": 1})])
    message = gateway.ask("anthropic/m", stream, tools=[tool("f")])["choices"][0]["message"]
    fake.script["m"] = Reply(text="done")
    gateway.ask("anthropic/m", stream, messages=[USER, message, {"role": "tool", "tool_call_id": "toolu_0", "content": "1"}])
    check(fake.last(), {"messages.1.content.0": {"type": "thinking", "thinking": "hm", "signature": "sig-of-thinking"}})


def test_schema_is_emulated_if_a_vendor_violates_it(gateway):
    """Almost valid JSON is repaired; for an answer that violates the schema the model is asked once more; then it is an error."""
    fake = gateway.fakes["anthropic"]
    fake.script["m"] = Reply(text='```json\n{"kind": "a", "n": 2,}\n```')
    assert json.loads(gateway.ask("anthropic/m", False, response_format=FORMAT)["choices"][0]["message"]["content"]) == json.loads(VALID)
    fake.script["m"] = [Reply(text='{"kind":"a","n":0}'), Reply(text=VALID)]
    answer = gateway.ask("anthropic/m", False, response_format=FORMAT)
    assert answer["choices"][0]["message"]["content"] == VALID and answer["sidetone"]["attempts"] == 2
    fake.script["m"] = Reply(text="no JSON at all")
    with pytest.raises(openai.InternalServerError) as error:
        gateway.ask("anthropic/m", False, response_format=FORMAT)
    assert error.value.status_code == 502 and error.value.code == "schema_mismatch"
    fake.script["m"] = Reply(finish="refusal")
    assert gateway.ask("anthropic/m", False, response_format=FORMAT)["choices"][0]["finish_reason"] == "content_filter"
