// OpenAI's Node client at the gateway: everything that is asked of it, one line of JSON a result.
// gateway.mjs BASE_URL MODEL MODEL_CALLING MODEL_JSON REFUSING…: the last ones are models that refuse.
import OpenAI from "openai";

const [baseURL, model, calling, json, ...refusing] = process.argv.slice(2);
const out = (name, value) => console.log(JSON.stringify({ name, value }));
const client = new OpenAI({ baseURL, apiKey: "k", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const tools = ["weather", "time"].map((name) => ({
  type: "function",
  function: { name, parameters: { type: "object", properties: {} } },
}));

const whole = await client.chat.completions.create({ model, messages });
out("whole", { text: whole.choices[0].message.content, finish: whole.choices[0].finish_reason, usage: whole.usage });

let text = "";
let usage = null;
for await (const chunk of await client.chat.completions.create({
  model, messages, stream: true, stream_options: { include_usage: true },
})) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
out("stream", { text, usage });

const called = await client.chat.completions.create({ model: calling, messages, tools });
out("calls", called.choices[0].message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]));
const runner = client.chat.completions.stream({ model: calling, messages, tools });
const final = await runner.finalChatCompletion();
out("streamed calls", final.choices[0].message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]));

const schema = {
  type: "object", properties: { label: { type: "string" }, score: { type: "integer" } },
  required: ["label", "score"], additionalProperties: false,
};
const parsed = await client.chat.completions.parse({
  model: json, messages, response_format: { type: "json_schema", json_schema: { name: "mood", strict: true, schema } },
});
out("parsed", JSON.parse(parsed.choices[0].message.content));

for (const name of refusing) {
  try {
    await client.chat.completions.create({ model: name, messages });
    out("refused", null);
  } catch (error) {
    out("refused", [error.constructor.name, error.status, error.code]);
  }
}
out("models", (await client.models.list()).data.map((each) => each.id));
