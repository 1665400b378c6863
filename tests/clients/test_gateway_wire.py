"""The bytes of streams, and how real clients report a stream that is interrupted."""

import json
import urllib.request

import pytest
from gateway import gateway as gateway  # the fixture
from gateway import need, openai

from fakes.server import Call, Raw, Reply

USER = [{"role": "user", "content": "hi"}]
# Chunks as OpenAI writes them, with an unknown field.
BEGIN = '{"id":"x1","object":"chat.completion.chunk","created":5,"model":"m","odd":[1, 2],"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"obfuscation":"abc"}'
HELLO = '{"id":"x1","object":"chat.completion.chunk","created":5,"model":"m",  "choices":[{"index":0,"delta":{"content":"Hel\\u006co"},"finish_reason":null}],"obfuscation":"a"}'
STOP = '{"id":"x1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
BROKE = '{"error":{"message":"the server had an error","type":"server_error","param":null,"code":null}}'


def sse(*chunks):
    return "".join(f"data: {chunk}\n\n" for chunk in chunks)


def post(gateway, model, after="Hel", **request):
    """The lines of a streamed answer, as they arrived, and its headers. The vendor sends the rest of its answer only after a
    line with the text `after` has arrived."""
    for fake in gateway.fakes.values():
        fake.go.clear()
    body = json.dumps({"model": model, "messages": USER, "stream": True, **request}).encode()
    asked = urllib.request.Request(f"{gateway.url}/v1/chat/completions", body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        text = ""
        while line := answer.readline().decode():
            text += line
            if after in line:
                for fake in gateway.fakes.values():
                    fake.go.set()
        return text.split("\n\n")[:-1], answer.headers


def test_chunks_of_the_same_dialect_pass_byte_for_byte(gateway):
    gateway.fakes["openai"].script["same"] = Raw(sse(BEGIN, HELLO, STOP, "[DONE]"))
    lines, headers = post(gateway, "openai/same")
    assert lines[:2] == [f"data: {BEGIN}", f"data: {HELLO}"] and lines[-1] == "data: [DONE]"
    last = json.loads(lines[-2].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "stop" and last["id"] == "x1"
    assert set(last["sidetone"]) == {"route", "variant", "model", "endpoint", "attempts", "cost_usd"}
    assert last["sidetone"]["endpoint"] == "openai" and last["sidetone"]["attempts"] == 1
    assert len(lines) == 4
    assert headers["sidetone-endpoint"] == "openai" and headers["sidetone-attempts"] == "1"
    assert int(headers["sidetone-overhead-us"]) > 0 and headers["content-type"].startswith("text/event-stream")


def test_keep_alive_comments_are_sent(gateway):
    gateway.fakes["openai"].script["slow"] = Raw(sse(BEGIN, HELLO), sse(STOP, "[DONE]"))
    lines, _ = post(gateway, "openai/slow", after=": keep-alive")
    assert lines[:2] == [f"data: {BEGIN}", f"data: {HELLO}"] and lines[2] == ": keep-alive" and lines[-1] == "data: [DONE]"


def test_usage_comes_when_it_is_asked_for(gateway):
    for endpoint in ("openai", "anthropic", "google", "assemblyai"):
        gateway.fakes[endpoint].script["m"] = Reply(text="Hello there.", calls=[Call("f", {"a": 1})])
        lines, _ = post(gateway, f"{endpoint}/m")
        assert not any(json.loads(line[6:]).get("usage") for line in lines[:-1])
        lines, _ = post(gateway, f"{endpoint}/m", stream_options={"include_usage": True})
        chunks = [json.loads(line[6:]) for line in lines[:-1]]
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] >= 29 and "sidetone" in chunks[-1]
        assert [chunk for chunk in chunks if chunk.get("sidetone")] == chunks[-1:]
        assert len({chunk["id"] for chunk in chunks}) == 1 and all(chunk["id"] for chunk in chunks)
        assert [part["finish_reason"] for chunk in chunks for part in chunk["choices"] if part.get("finish_reason")] == ["tool_calls"]


def test_chunks_in_another_format_are_rewritten(gateway):
    """Calls in the choice, text in parts, no index: an OpenAI client would ignore them."""
    odd = [
        {"id": "x", "choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}}]},
        {"id": "x", "choices": [{"delta": {"content": [{"type": "text", "text": "so"}]}}]},
        {"id": "x", "choices": [{"delta": {}, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]}]},
        {"id": "x", "choices": [{"delta": {}, "finish_reason": "end_turn"}], "x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}},
    ]
    gateway.fakes["openai"].script["odd"] = Raw(sse(*map(json.dumps, odd), "[DONE]"))
    answer = gateway.ask("openai/odd", True)
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "so")
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert answer["choices"][0]["finish_reason"] == "tool_calls" and answer["usage"]["total_tokens"] == 3


@pytest.mark.parametrize("preamble", [
    sse('{"id":"","object":"","created":0,"model":"","choices":[],"prompt_filter_results":[{"prompt_index":0}]}'),
    ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n",
], ids=["azure", "openrouter"])
def test_preambles_of_other_gateways(gateway, preamble):
    gateway.fakes["openai"].script["preamble"] = Raw(preamble + sse(BEGIN, HELLO, STOP, "[DONE]"))
    lines, _ = post(gateway, "openai/preamble")
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    assert {chunk["id"] for chunk in chunks if chunk["choices"]} == {"x1"}
    assert gateway.ask("openai/preamble", True)["choices"][0]["message"]["content"] == "Hello"


CUTS = {
    "error event": Raw(sse(BEGIN, HELLO), sse(BROKE)),
    "an error on the choice": Raw(sse(BEGIN, HELLO), sse(
        '{"id":"x1","choices":[{"index":0,"delta":{},"finish_reason":"error","error":{"code":502,"message":"gone"}}]}')),
    "end of the body": Raw(sse(BEGIN, HELLO), ": nothing more\n\n"),
    "cut": Raw(sse(BEGIN, HELLO), ": nothing more\n\n", cut=True),
}


@pytest.mark.parametrize("how", CUTS)
def test_a_broken_stream_ends_in_an_error_and_no_done(gateway, how):
    lines, _ = post(gateway, alias(gateway, how))
    assert lines[:2] == [f"data: {BEGIN}", f"data: {HELLO}"] and len(lines) == 3
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert error["code"] in ("upstream_error", "interrupted") and error["attempts"][-1]["endpoint"] == "openai"


def alias(gateway, how):
    name = "broken-" + "".join(letter for letter in how if letter.isalpha())
    gateway.fakes["openai"].script[name] = CUTS[how]
    return f"openai/{name}"


@pytest.mark.parametrize("how", CUTS)
def test_how_clients_show_a_broken_stream(gateway, how):
    """Each client returns the words so far, then raises an error, so that a partial answer is not taken for a whole one."""
    model = alias(gateway, how)
    go = gateway.fakes["openai"].go
    litellm = need("litellm")
    langchain = need("langchain_openai")

    def plain():
        for chunk in gateway.client.chat.completions.create(model=model, messages=USER, stream=True):
            yield chunk.choices[0].delta.content

    def lite():
        where = {"api_base": f"{gateway.url}/v1", "api_key": "k", "max_retries": 0, "num_retries": 0}
        for chunk in litellm.completion(model=f"openai/{model}", messages=USER, stream=True, **where):
            yield chunk.choices[0].delta.content

    def chain():
        chat = langchain.ChatOpenAI(base_url=f"{gateway.url}/v1", api_key="k", model=model, max_retries=0)
        for chunk in chat.stream("hi"):
            yield chunk.content

    for client in (plain, lite, chain):
        seen = ""
        with pytest.raises(openai.APIError) as error:
            for text in client():
                seen += text or ""
                if seen:
                    go.set()
        assert seen == "Hello", client
        print(f"{client.__name__}: {type(error.value).__name__}: {str(error.value)[:120]}")
        go.clear()


def test_vendor_without_done_completes_and_a_cut_stream_fails(gateway):
    """Gemini and Anthropic send no `[DONE]`: their own end mark shows that the answer is whole."""
    begun = {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "Hel"}]}}], "responseId": "r", "modelVersion": "m"}
    gateway.fakes["google"].script["cut"] = Raw(f"data: {json.dumps(begun)}\r\n\r\n")
    lines, _ = post(gateway, "google/cut")
    assert json.loads(lines[-1][6:])["error"]["code"] == "interrupted"
    overloaded = 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    start = {"type": "message_start", "message": {"id": "m1", "model": "m", "content": [], "usage": {"input_tokens": 1}}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}
    gateway.fakes["anthropic"].script["cut"] = Raw("".join(f"data: {json.dumps(e)}\n\n" for e in (start, text)), overloaded)
    lines, _ = post(gateway, "anthropic/cut")
    assert json.loads(lines[-1][6:])["error"]["code"] == "upstream_error"
