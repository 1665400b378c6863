"""Real clients, with only the base URL changed: `openai`, `litellm`, LangChain and AssemblyAI's own, with the real binary.

`test_gateway_wire.py` checks chunks, headers, keep-alive comments and interrupted streams.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from conftest import BINARY
from gateway import gateway as gateway  # the fixture
from gateway import need, openai
from pydantic import BaseModel

from fakes.server import Call, Refusal, Reply

USER = [{"role": "user", "content": "hi"}]
ENDPOINTS = ["openai", "assemblyai", "anthropic", "google"]
CALLS = [Call("weather", {"city": "Ulm"}), Call("time", {"zone": "CET"})]
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "time", "description": "d", "parameters": {
        "type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}}},
]
REFUSALS = [
    (400, {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": None}}),
    (404, {"error": {"message": "m", "type": "invalid_request_error", "param": None, "code": "model_not_found"}}),
    (429, {"error": {"message": "m", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}),
    (500, {"error": {"message": "m", "type": "server_error", "param": None, "code": None}}),
]


class Mood(BaseModel):
    """How somebody feels."""

    label: str
    score: int


MOOD = '{"label":"calm","score":3}'


def refuse(gateway, status, model):
    body = dict(REFUSALS)[status]
    gateway.fakes["openai"].script[model] = Refusal(status, body, {"retry-after": "60"} if status == 429 else {})
    return f"openai/{model}"


# ---- openai


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_openai_stream_helper(gateway, endpoint):
    """The SDK's own accumulator, which insists on indexes and order."""
    gateway.fakes[endpoint].script["m"] = Reply(text="One two three.", calls=CALLS)
    request = {"model": f"{endpoint}/m", "messages": USER, "tools": TOOLS}
    with gateway.client.chat.completions.stream(**request, stream_options={"include_usage": True}) as events:
        kinds = {event.type for event in events}
        done = events.get_final_completion()
    assert {"content.delta", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    whole = gateway.client.chat.completions.create(**request)
    assert done.choices[0].message.content == whole.choices[0].message.content == "One two three."
    for answer in (done, whole):
        made = answer.choices[0].message.tool_calls
        assert [(call.function.name, json.loads(call.function.arguments)) for call in made] == [
            (call.name, call.arguments) for call in CALLS]
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert whole.usage.completion_tokens_details.reasoning_tokens == 3


def test_openai_stream_helper_with_thinking(gateway):
    """Several blocks of thinking, and a call without arguments; the client sends them back unchanged."""
    fake = gateway.fakes["anthropic"]
    fake.script["m"] = Reply(thinking="hm hm", more={"redacted_thinking": ["one", "two"]}, calls=[Call("now", {})])
    request = {"model": "anthropic/m", "tools": [{"type": "function", "function": {"name": "now"}}]}
    with gateway.client.chat.completions.stream(**request, messages=USER) as events:
        message = events.get_final_completion().choices[0].message
    assert json.loads(message.tool_calls[0].function.arguments) == {}
    call = message.tool_calls[0].to_dict()
    again = [*USER, {**message.to_dict(), "tool_calls": [call]}, {"role": "tool", "tool_call_id": call["id"], "content": "noon"}]
    gateway.client.chat.completions.create(**request, messages=again)
    assert fake.last()["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm hm", "signature": "sig-of-thinking"},
        {"type": "redacted_thinking", "data": "one"},
        {"type": "redacted_thinking", "data": "two"},
        {"type": "tool_use", "id": "toolu_0", "name": "now", "input": {}},
    ]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_openai_parse(gateway, endpoint):
    gateway.fakes[endpoint].script["m"] = Reply(text=MOOD)
    answer = gateway.client.chat.completions.parse(model=f"{endpoint}/m", messages=USER, response_format=Mood)
    assert answer.choices[0].message.parsed == Mood(label="calm", score=3)
    with gateway.client.chat.completions.stream(model=f"{endpoint}/m", messages=USER, response_format=Mood) as events:
        assert events.get_final_completion().choices[0].message.parsed == Mood(label="calm", score=3)
    tool = openai.pydantic_function_tool(Mood)
    gateway.fakes[endpoint].script["m"] = Reply(calls=[Call("Mood", json.loads(MOOD))])
    answer = gateway.client.chat.completions.parse(model=f"{endpoint}/m", messages=USER, tools=[tool])
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == Mood(label="calm", score=3)


def test_openai_names_headers_and_models(gateway):
    for model in ("live", "fast", "openai/gpt-x"):
        raw = gateway.client.chat.completions.with_raw_response.create(model=model, messages=USER)
        answer = raw.parse()
        assert answer.model == "gpt-x" and answer.id == answer.to_dict()["request_id"]
        facts = answer.to_dict()["sidetone"]
        assert (raw.headers["sidetone-endpoint"], raw.headers["sidetone-attempts"]) == ("openai", "1")
        assert facts["endpoint"] == "openai" and facts["cost_usd"] == pytest.approx((16 * 1.0 + 4 * 0.1 + 9 * 2.0) / 1e6)
    listed = {model.id for model in gateway.client.models.list()}
    assert {"live", "fast"} <= listed and gateway.client.models.retrieve("live").id == "live"


ERRORS = {400: openai.BadRequestError, 404: openai.NotFoundError, 429: openai.RateLimitError, 500: openai.InternalServerError}


@pytest.mark.parametrize("status", ERRORS)
def test_openai_errors(gateway, status):
    model = refuse(gateway, status, f"refuses-{status}")
    for stream in (False, True):
        with pytest.raises(ERRORS[status]) as error:
            gateway.client.chat.completions.create(model=model, messages=USER, stream=stream)
        assert error.value.code and error.value.message and error.value.type
    if status == 429:
        assert int(error.value.response.headers["retry-after"]) > 50
        assert error.value.response.headers["x-should-retry"] == "true"


def test_openai_errors_of_our_own(gateway, start, llm):
    create = gateway.client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as error:
        create(model="nobody", messages=USER)
    assert error.value.code == "model_not_found" and "live" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        create(model="live", messages=USER, temperature=5)
    assert error.value.param == "temperature"
    # A spending limit is reached.
    priced = llm.config().replace("[models", 'prices = [{ model = "*", input = 1.0, output = 1.0 }]\n[models', 1)
    capped = start.daemon(start.vendor(), priced + "\n[limits]\nusd_per_day = 0.000001\n")
    client = openai.OpenAI(base_url=f"{capped.url}/v1", api_key="k", max_retries=0)
    with pytest.raises(openai.APIStatusError) as error:
        for _ in range(3):
            client.chat.completions.create(model="mock/m", messages=USER)
    assert error.value.status_code == 402 and error.value.code == "budget_exhausted"


def test_openai_errors_of_keys(start, llm, monkeypatch, tmp_path):
    monkeypatch.setenv("SIDETONE_TEST_KEY", "the-right-key")
    daemon = start.daemon(start.vendor(), llm.config() + '\n[server]\nkey = "env:SIDETONE_TEST_KEY"\n')
    client = openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="the-right-key", max_retries=0)
    assert client.chat.completions.create(model="fast", messages=USER).choices[0].message.content
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="a-wrong-key").chat.completions.create(model="fast", messages=USER)
    config = next(tmp_path.glob("daemon*/sidetone.toml"))
    made = [BINARY, "key", "create", "--scope", "ingest", "--name", "ears", "--config", config]
    ears = subprocess.run(made, check=True, capture_output=True, text=True).stdout.split()[-1]
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=ears).chat.completions.create(model="fast", messages=USER)


# ---- litellm


@pytest.fixture(scope="module")
def litellm():
    module = need("litellm")
    module.suppress_debug_info = True
    return module


@pytest.mark.parametrize("base", ["/v1", ""])
@pytest.mark.parametrize("prefix", ["openai", "litellm_proxy"])
def test_litellm(gateway, litellm, prefix, base):
    where = {"api_base": gateway.url + base, "api_key": "k", "max_retries": 0}
    for endpoint in ENDPOINTS:
        gateway.fakes[endpoint].script["m"] = Reply(text="One two three.", calls=CALLS)
        request = {"model": f"{prefix}/{endpoint}/m", "messages": USER, "tools": TOOLS, **where}
        whole = litellm.completion(**request)
        chunks = list(litellm.completion(**request, stream=True, stream_options={"include_usage": True}))
        streamed = litellm.stream_chunk_builder(chunks, messages=USER)
        for answer in (whole, streamed):
            message = answer.choices[0].message
            assert message.content == "One two three." and answer.choices[0].finish_reason == "tool_calls"
            assert [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls] == [
                (call.name, call.arguments) for call in CALLS]
            assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
        assert whole.usage.prompt_tokens_details.cached_tokens in (4, 7)
        cost = litellm.completion_cost(whole, custom_cost_per_token={"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6})
        assert cost > 0


def test_litellm_names_schema_and_errors(gateway, litellm):
    where = {"api_base": f"{gateway.url}/v1", "api_key": "k", "max_retries": 0, "num_retries": 0}
    assert litellm.completion(model="openai/live", messages=USER, **where).choices[0].message.content
    gateway.fakes["openai"].script["s"] = Reply(text=MOOD)
    answer = litellm.completion(model="openai/openai/s", messages=USER, response_format=Mood, **where)
    assert Mood.model_validate_json(answer.choices[0].message.content).label == "calm"
    extra = {"transcript": {"text": "A: hello"}, "fallbacks": [{"model": "live"}]}
    model = refuse(gateway, 400, "refuses-litellm")
    assert litellm.completion(model=f"openai/{model}", messages=USER, extra_body=extra, **where).choices[0].message.content
    for status, kind in ((400, litellm.BadRequestError), (404, litellm.NotFoundError), (429, litellm.RateLimitError),
                         (500, litellm.InternalServerError)):
        model = refuse(gateway, status, f"refuses-litellm-{status}")
        with pytest.raises(kind):
            litellm.completion(model=f"openai/{model}", messages=USER, **where)


# ---- LangChain


def langchain(gateway, model, **more):
    chat = need("langchain_openai").ChatOpenAI
    return chat(base_url=f"{gateway.url}/v1", api_key="k", model=model, max_retries=0, stream_usage=True, **more)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_langchain(gateway, endpoint):
    fake = gateway.fakes[endpoint]
    model = langchain(gateway, f"{endpoint}/m")
    fake.script["m"] = Reply(text="One two three.")
    assert model.invoke("hi").content == "One two three."
    chunks = list(model.stream("hi"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == "One two three." and whole.usage_metadata["total_tokens"] > 0
    fake.script["m"] = Reply(calls=CALLS)
    bound = model.bind_tools(TOOLS)
    expected = [(call.name, call.arguments) for call in CALLS]
    answer = bound.invoke("hi")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == expected
    streamed = None
    for chunk in bound.stream("hi"):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(call["name"], call["args"]) for call in streamed.tool_calls] == expected
    fake.script["m"] = Reply(text="done")
    from langchain_core.messages import HumanMessage, ToolMessage
    results = [ToolMessage(content="1", tool_call_id=call["id"]) for call in answer.tool_calls]
    assert bound.invoke([HumanMessage("hi"), answer, *results]).content == "done"
    fake.script["m"] = Reply(text=MOOD)
    assert model.with_structured_output(Mood).invoke("hi") == Mood(label="calm", score=3)


def test_langchain_errors(gateway):
    with pytest.raises(openai.BadRequestError):
        langchain(gateway, refuse(gateway, 400, "refuses-langchain")).invoke("hi")
    with pytest.raises(openai.RateLimitError):
        list(langchain(gateway, refuse(gateway, 429, "refuses-langchain-429")).stream("hi"))


# ---- AssemblyAI's own client


@pytest.fixture
def assembly(gateway):
    aai = need("assemblyai")
    aai.settings.api_key = "k"
    aai.settings.llm_gateway_base_url = gateway.url
    from assemblyai.llm_gateway.v1 import client
    return client.LLMGateway()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_assemblyai(gateway, assembly, endpoint):
    gateway.fakes[endpoint].script["m"] = Reply(text="One two three.", calls=CALLS)
    request = {"model": f"{endpoint}/m", "messages": USER, "tools": TOOLS, "max_tokens": 50}
    whole = assembly.chat.completions.create(**request, reasoning={"effort": "low"})
    choice = whole.choices[0]
    assert choice.message.content == "One two three." and choice.finish_reason == "tool_calls"
    assert [call["function"]["name"] if isinstance(call, dict) else call.function.name for call in choice.message.tool_calls] == [
        "weather", "time"]
    assert whole.request_id and whole.usage.input_tokens == whole.usage.prompt_tokens == (32 if endpoint == "anthropic" else 20)
    text = ""
    for chunk in assembly.chat.completions.create(**request, stream=True):
        for part in chunk.choices:
            text += getattr(part.delta, "content", None) or ""
    assert text == "One two three."


def test_assemblyai_lists_models(gateway, assembly):
    plain = {model["id"]: model for model in httpx.get(f"{gateway.url}/v1/models").json()["data"]}
    listed = {model.id: model for model in assembly.models.list().data}
    assert listed.keys() == plain.keys() and "live" in listed
    for name, model in listed.items():
        own = plain[name]
        assert model.context_length == (own["context_length"] or 0) and model.creator == own["owned_by"]
        assert model.pricing.global_.prompt == (own["pricing"]["input"] if own["pricing"] else -1)
        assert [provider.id for provider in model.providers][:1] == [model.default_provider.id]
        assert model.retirement_date == 0 and own["retirement_date"] is None


def test_assemblyai_fallbacks_and_errors(gateway, assembly):
    from assemblyai.types import LLMGatewayError
    model = refuse(gateway, 500, "refuses-assemblyai")
    answer = assembly.chat.completions.create(
        model=model, messages=USER, fallbacks=[{"model": "live", "max_tokens": 7}], fallback_config={"depth": 1, "retry": False})
    assert answer.choices[0].message.content
    gateway.fakes["openai"].script["broken"] = Reply(text='{"a": 1,}')
    answer = assembly.chat.completions.create(
        model="openai/broken", messages=USER, post_processing_steps=[{"type": "json-repair"}])
    assert json.loads(answer.choices[0].message.content) == {"a": 1}
    with pytest.raises(LLMGatewayError) as error:
        assembly.chat.completions.create(model="nobody", messages=USER)
    assert error.value.status_code == 404


# ---- openai for Node

FOLDER = Path(os.environ.get("SIDETONE_CLIENTS_JS", "target/clients/js"))


NODE = shutil.which("node") is not None and (FOLDER / "node_modules" / "openai").is_dir()


@pytest.mark.skipif(not NODE and os.environ.get("CI") != "true", reason="no node, or no package")
def test_node(gateway):
    for endpoint in ENDPOINTS:
        script = gateway.fakes[endpoint].script
        script["text"], script["calls"], script["json"] = Reply(text="One two three."), Reply(calls=CALLS), Reply(text=MOOD)
    kinds = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}
    refusing = [refuse(gateway, status, f"refuses-node-{status}") for status in kinds]
    for endpoint in ENDPOINTS:
        models = [f"{endpoint}/{name}" for name in ("text", "calls", "json")]
        refused = refusing if endpoint == "openai" else []
        done = subprocess.run(
            ["node", FOLDER / "gateway.mjs", f"{gateway.url}/v1", *models, *refused], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        results = {line["name"]: line["value"] for line in lines}
        assert results["whole"]["text"] == results["stream"]["text"] == "One two three."
        assert results["whole"]["usage"]["total_tokens"] > 0 and results["stream"]["usage"]["total_tokens"] > 0
        assert results["calls"] == results["streamed calls"] == [[call.name, call.arguments] for call in CALLS]
        assert results["parsed"] == json.loads(MOOD) and "live" in results["models"]
        seen = [line["value"][:2] for line in lines if line["name"] == "refused"]
        assert seen == ([[name, status] for status, name in kinds.items()] if refused else [])
