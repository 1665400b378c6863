// Streams silence with the assemblyai package and prints every event as a line of JSON.
// stream.mjs SOCKET_URL [HTTP_URL]: with HTTP_URL, a token is fetched there and used instead of the key.
// AUDIO_SECONDS is how much to stream, as fast as it goes; without it, in real time, until the vendor ends the session,
// which is waited for in any case. LLM_GATEWAY is the parameter of that name.
import { AssemblyAI } from "assemblyai";

const [socketUrl, httpUrl] = process.argv.slice(2);
const seconds = process.env.AUDIO_SECONDS === undefined ? undefined : Number(process.env.AUDIO_SECONDS);
const out = (event, value) => console.log(JSON.stringify({ event, value }));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const client = new AssemblyAI({ apiKey: "k", streamingBaseUrl: httpUrl });
const options = {
  websocketBaseUrl: socketUrl.replace(/^ws:/, "wss:"),
  formatTurns: true,
  connectTimeout: 20000,
  sampleRate: 8000,
  encoding: "pcm_mulaw",
};
if (process.env.LLM_GATEWAY) options.llmGateway = JSON.parse(process.env.LLM_GATEWAY);
if (httpUrl) {
  options.token = await client.streaming.createTemporaryToken({ expires_in_seconds: 60 });
  out("token", options.token.length > 0);
} else {
  options.apiKey = "k";
}
const transcriber = client.streaming.transcriber(options);
if (socketUrl.startsWith("ws:")) {
  // The package speaks nothing but TLS; a vendor without it is only there for comparison.
  const secure = transcriber.connectionUrl.bind(transcriber);
  transcriber.connectionUrl = () => {
    const url = secure();
    url.protocol = "ws:";
    return url;
  };
}
for (const name of ["open", "turn", "speakerRevision", "heartbeat", "warning", "llmGatewayResponse", "error"]) {
  transcriber.on(name, (value) => out(name, value instanceof Error ? value.message : value));
}
const closed = new Promise((resolve) =>
  transcriber.on("close", (code, reason) => {
    out("close", [code, reason]);
    resolve();
  }),
);
await transcriber.connect();
let over = false;
closed.then(() => (over = true));
// Until the vendor says that it is over: who closes first gets no close event from the package.
if (seconds === undefined) {
  for (let chunk = 0; chunk < 600 && !over; chunk++) {
    try {
      transcriber.sendAudio(new Uint8Array(400).fill(0xff));
    } catch {
      break; // The session is over, and its close event on the way.
    }
    await sleep(50);
  }
} else {
  for (let second = 0; second < seconds; second++) {
    transcriber.sendAudio(new Uint8Array(8000).fill(0xff));
    if (second % 50 === 49) await sleep(0); // Lets events in.
  }
}
await Promise.race([closed, sleep(60000)]);
await transcriber.close();
process.exit(0);
