"""Shared by the gateway's tests: one daemon, a fake server of each vendor behind it, and OpenAI's own client."""

import importlib
import json
import os
import re

import pytest
from conftest import Process


# litellm uses the list of prices in its package, and does not download one.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def need(name):
    """Imports a package of requirements-gateway.txt. If it is missing, the tests are skipped; in CI they fail."""
    return importlib.import_module(name) if os.environ.get("CI") == "true" else pytest.importorskip(name)


openai, *_ = map(need, ("openai", "anthropic", "google.genai"))
from fakes.anthropic_messages import Anthropic  # noqa: E402
from fakes.gemini import Gemini  # noqa: E402
from fakes.openai_chat import AssemblyAi, OpenAi  # noqa: E402

# For each endpoint: the fake server, the provider, the end of the base URL, and further keys of its section.
ENDPOINTS = {
    "openai": (OpenAi, "openai", "/v1", ""),
    "assemblyai": (AssemblyAi, "assemblyai", "/v1", ""),
    "anthropic": (Anthropic, "anthropic", "", ""),
    "anthropic_old": (Anthropic, "anthropic", "", 'api_version = "2023-06-01"\n'),
    "google": (Gemini, "google", "", ""),
}


class Gateway:
    """The daemon; `fakes` by endpoint."""

    def __init__(self, folder):
        self.fakes = {name: fake() for name, (fake, *_) in ENDPOINTS.items()}
        (folder / "key").write_text("vendor-key")
        config = f'[storage]\ndir = "{folder}/journal"\n'
        for name, (_, provider, path, more) in ENDPOINTS.items():
            config += (
                f'[endpoints.{name}]\nprovider = "{provider}"\nbase_url = "{self.fakes[name].url}{path}"\n'
                f'api_key = "file:{folder}/key"\n{more}'
                f'prices = [{{ model = "*", input = 1.0, cached = 0.1, output = 2.0 }}]\n'
            )
        config += '[models.fast]\ncandidates = ["openai/gpt-x"]\n[routes.live]\nvariants = [{ name = "a", model = "fast" }]\n'
        (folder / "sidetone.toml").write_text(config)
        self.process = Process("serve", "--config", folder / "sidetone.toml", "--listen", "127.0.0.1:0")
        self.url = self.process.url
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="k", max_retries=0)

    def stop(self):
        self.process.stop()
        for fake in self.fakes.values():
            fake.stop()

    def ask(self, model, stream, **request):
        """A completion as a dictionary, the same whether it was streamed."""
        request.setdefault("messages", [{"role": "user", "content": "hi"}])
        create = self.client.chat.completions.create
        if not stream:
            return create(model=model, **request).to_dict()
        chunks = create(model=model, stream=True, stream_options={"include_usage": True}, **request)
        return collect(chunk.to_dict() for chunk in chunks)


def collect(chunks):
    """Puts the chunks of a stream together into one completion, as an OpenAI client does."""
    whole = {"choices": [], "usage": None}
    for chunk in chunks:
        whole["usage"] = chunk.get("usage") or whole["usage"]
        whole["model"], whole["sidetone"] = chunk["model"], chunk.get("sidetone")
        for part in chunk["choices"]:
            while len(whole["choices"]) <= part["index"]:
                empty = {"role": "assistant", "content": None, "refusal": None}
                whole["choices"].append({"message": empty, "finish_reason": None, "logprobs": None})
            choice = whole["choices"][part["index"]]
            message = choice["message"]
            for key in ("content", "refusal", "reasoning_content"):
                if part["delta"].get(key):
                    message[key] = (message.get(key) or "") + part["delta"][key]
            for block in part["delta"].get("thinking_blocks", []):
                # `index` is the position in the list: OpenAI's own client requires it for lists in a stream.
                blocks = message.setdefault("thinking_blocks", [])
                assert block.pop("index") == len(blocks)
                blocks.append(block)
            for call in part["delta"].get("tool_calls", []):
                calls = message.setdefault("tool_calls", [])
                if call["index"] == len(calls):
                    calls.append({"id": call["id"], "type": call["type"], "function": {"name": "", "arguments": ""}})
                known = calls[call["index"]]["function"]
                known["name"] += call["function"].get("name") or ""
                known["arguments"] += call["function"].get("arguments") or ""
            if (part.get("logprobs") or {}).get("content"):
                choice["logprobs"] = choice["logprobs"] or {"content": []}
                choice["logprobs"]["content"] += part["logprobs"]["content"]
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
    return whole


def at(value, path):
    """The value at the path `a.0.b` of a document; ABSENT if the path does not exist."""
    for step in re.split(r"(?<!\\)\.", path):
        step = step.replace("\\.", ".")
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError):
            return ABSENT
    return value


ABSENT = "(absent)"


def check(document, expected):
    """Checks that every path of `expected` has the expected value, or matches it if it is a pattern."""
    found = {path: at(document, path) for path in expected}
    wrong = {path for path, value in expected.items() if not same(found[path], value)}
    assert not wrong, f"{sorted(wrong)} of {json.dumps(document, indent=1)[:4000]}"


def same(found, expected):
    if isinstance(expected, re.Pattern):
        return isinstance(found, str) and expected.fullmatch(found) is not None
    return found == expected


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    yield gateway
    gateway.stop()
