"""Checks the fake servers: each vendor's own SDK must understand its fake, which shows that the fake has the vendor's format."""

import json

import pytest
from gateway import need, openai

anthropic = need("anthropic")
genai = need("google.genai")
from fakes.anthropic_messages import Anthropic  # noqa: E402
from fakes.gemini import Gemini  # noqa: E402
from fakes.openai_chat import OpenAi  # noqa: E402
from fakes.server import Call, Refusal, Reply  # noqa: E402

REPLY = Reply(text="Let me look.", thinking="Hm, weather.", calls=[Call("weather", {"city": "Ulm"}), Call("time", {"zone": "CET"})])
TOOLS = [{"name": name, "description": "d", "schema": {"type": "object", "properties": {key: {"type": "string"}}}}
         for name, key in (("weather", "city"), ("time", "zone"))]


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request):
    return request.param


@pytest.fixture
def fake(request):
    fake = request.param()
    yield fake
    fake.stop()


@pytest.mark.parametrize("fake", [OpenAi], indirect=True, ids=["openai"])
def test_openai(fake, stream):
    fake.script["m"] = REPLY
    client = openai.OpenAI(base_url=f"{fake.url}/v1", api_key="k", max_retries=0)
    tools = [{"type": "function", "function": {"name": t["name"], "parameters": t["schema"]}} for t in TOOLS]
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": tools}
    if stream:
        with client.chat.completions.stream(**request, stream_options={"include_usage": True}) as events:
            done = events.get_final_completion()
    else:
        done = client.chat.completions.create(**request)
    message = done.choices[0].message
    assert message.content == REPLY.text and done.choices[0].finish_reason == "tool_calls"
    assert [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls] == [
        (call.name, call.arguments) for call in REPLY.calls]
    assert done.usage.prompt_tokens_details.cached_tokens == 4 and done.usage.total_tokens == 29
    fake.script["m"] = Refusal(429, {"error": {"message": "slow", "type": "requests", "param": None, "code": "rate_limit_exceeded"}})
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**request)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**{**request, "extra_body": {"nonsense": 1}})


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
@pytest.mark.parametrize("fake", [Anthropic], indirect=True, ids=["anthropic"])
def test_anthropic(fake, stream, version):
    fake.script["m"] = REPLY
    client = anthropic.Anthropic(base_url=fake.url, api_key="k", max_retries=0, default_headers={"anthropic-version": version})
    tools = [{"name": t["name"], "input_schema": t["schema"]} for t in TOOLS]
    request = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], "tools": tools}
    if stream:
        with client.messages.stream(**request) as events:
            done = events.get_final_message()
    else:
        done = client.messages.create(**request)
    assert [block.type for block in done.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert done.content[0].signature == "sig-of-thinking" and done.content[1].text == REPLY.text
    assert [(block.name, block.input) for block in done.content[2:]] == [(call.name, call.arguments) for call in REPLY.calls]
    assert done.stop_reason == "tool_use" and done.usage.cache_read_input_tokens == 7 and done.usage.output_tokens == 9
    fake.script["m"] = Refusal(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    with pytest.raises(anthropic.APIStatusError) as error:
        client.messages.create(**request)
    assert error.value.status_code == 529
    if version == "2026-10-21":
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**request, extra_body={"temperature": 1.0})


@pytest.mark.parametrize("fake", [Gemini], indirect=True, ids=["google"])
def test_google(fake, stream):
    fake.script["m"] = Reply(text=REPLY.text, thinking=REPLY.thinking, calls=[Call("weather", {"city": "Ulm"}, signature="c2ln")])
    client = genai.Client(api_key="k", http_options={"base_url": fake.url, "retry_options": {"attempts": 1}})
    declared = [{"name": t["name"], "description": "d", "parameters_json_schema": t["schema"]} for t in TOOLS]
    config = genai.types.GenerateContentConfig(
        system_instruction="s", temperature=0.1, tools=[{"function_declarations": declared}],
        automatic_function_calling={"disable": True})
    if stream:
        chunks = list(client.models.generate_content_stream(model="m", contents="hi", config=config))
    else:
        chunks = [client.models.generate_content(model="m", contents="hi", config=config)]
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert "".join(part.text for part in parts if part.text and part.thought) == REPLY.thinking
    assert "".join(part.text for part in parts if part.text and not part.thought) == REPLY.text
    assert parts[-1].function_call.args == {"city": "Ulm"} and parts[-1].thought_signature == b"sig"
    last = chunks[-1]
    assert last.candidates[0].finish_reason.value == "STOP" and last.usage_metadata.thoughts_token_count == 3
    fake.script["m"] = Refusal(429, {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}})
    with pytest.raises(genai.errors.ClientError) as error:
        client.models.generate_content(model="m", contents="hi")
    assert error.value.code == 429
    fake.script["m"] = Reply(more={"promptFeedback": {"blockReason": "SAFETY"}})
    assert client.models.generate_content(model="m", contents="hi").prompt_feedback.block_reason.value == "SAFETY"


