"""Google's Gemini API: `generateContent` and `streamGenerateContent`."""

import json
import re

from google.genai import types
from pydantic import ValidationError

from .server import Fake, Malformed, thirds

FIELDS = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent"}
SCHEMA = {
    "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems",
    "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required",
    "propertyOrdering",
}


def keywords(schema):
    """Every keyword of a schema, without the names of properties."""
    if isinstance(schema, list):
        for item in schema:
            yield from keywords(item)
    if isinstance(schema, dict):
        for key, value in schema.items():
            yield key
            if key in ("properties", "$defs"):
                for inner in value.values():
                    yield from keywords(inner)
            elif key != "enum":
                yield from keywords(value)


class Gemini(Fake):
    def read(self, path, headers, body):
        found = re.fullmatch(r"/v1(?:beta)?/models/([^/:]+):(generateContent|streamGenerateContent\?alt=sse)", path)
        if not found:
            raise Malformed(f"no such path: {path}")
        if not headers.get("x-goog-api-key"):
            raise Malformed("no key")
        if set(body) - FIELDS:
            raise Malformed(f'Invalid JSON payload received. Unknown name "{sorted(set(body) - FIELDS)[0]}"')
        try:
            for content in body["contents"]:
                types.Content.model_validate(content)
            for tool in body.get("tools", []):
                types.Tool.model_validate(tool)
            if "toolConfig" in body:
                types.ToolConfig.model_validate(body["toolConfig"])
            types.GenerationConfig.model_validate(body.get("generationConfig", {}))
        except ValidationError as error:
            raise Malformed(f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
        if any(not content.get("parts") for content in body["contents"]):
            raise Malformed("contents.parts must not be empty.")
        roles = [content["role"] for content in body["contents"]]
        if set(roles) - {"user", "model"}:
            raise Malformed("Please use a valid role: user, model.")
        schemas = [body.get("generationConfig", {}).get("responseJsonSchema", {})]
        for tool in body.get("tools", []):
            schemas += [each.get("parametersJsonSchema", {}) for each in tool.get("functionDeclarations", [])]
        for schema in schemas:
            for keyword in set(keywords(schema)) - SCHEMA:
                raise Malformed(f'Unknown name "{keyword}" at schema')
        return found.group(1), found.group(2) != "generateContent"

    def error(self, status, message):
        return {"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}

    def usage(self, reply):
        return reply.usage or {"promptTokenCount": 20, "cachedContentTokenCount": 4, "candidatesTokenCount": 6,
                               "thoughtsTokenCount": 3, "totalTokenCount": 29}

    def parts(self, reply, pieces):
        yield from ({"text": piece, "thought": True} for piece in pieces(reply.thinking))
        yield from ({"text": piece} for piece in pieces(reply.text))
        for call in reply.calls:
            inner = {"name": call.name, "args": call.arguments, **({"id": call.id} if call.id else {})}
            yield {"functionCall": inner, **({"thoughtSignature": call.signature} if call.signature else {})}

    def wrap(self, reply, model, body, parts, **more):
        candidate = {"content": {"role": "model", "parts": parts}, **more}
        count = body.get("generationConfig", {}).get("candidateCount") or 1
        return {"candidates": [{"index": index, **candidate} for index in range(count)], "modelVersion": model, "responseId": "resp1", "usageMetadata": self.usage(reply),
                **reply.more}

    def answer(self, reply, model, body):
        if "promptFeedback" in reply.more:
            return {**reply.more, "usageMetadata": {"promptTokenCount": 20, "totalTokenCount": 20}, "modelVersion": model,
                    "responseId": "resp1"}
        parts = list(self.parts(reply, lambda text: [text] if text else []))
        return self.wrap(reply, model, body, parts, finishReason=reply.finish or "STOP", safetyRatings=[])

    def events(self, reply, model, body):
        if "promptFeedback" in reply.more:
            yield f"data: {json.dumps(self.answer(reply, model, body))}\r\n\r\n"
            return
        parts = list(self.parts(reply, thirds)) or [{"text": ""}]
        for position, part in enumerate(parts):
            last = {"finishReason": reply.finish or "STOP"} if position == len(parts) - 1 else {}
            yield f"data: {json.dumps(self.wrap(reply, model, body, [part], **last))}\r\n\r\n"
