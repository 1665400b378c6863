// ---- Insights and alerts, as elements of the page.

const voices = ["#2c5cc5 #86aaff", "#a0410d #ffb185", "#14783c #71d49a", "#8a2d86 #ee9dea", "#7a5b00 #e3c267", "#00707a #66d3de"].map(pair => `light-dark(${pair.replace(" ", ", ")})`);
const voice = (c, speaker) => {
  c.speakers ??= new Map();
  if (!c.speakers.has(speaker)) c.speakers.set(speaker, voices[c.speakers.size % voices.length]);
  return c.speakers.get(speaker);
};
const label = text => el("span", { className: ["positive", "negative"].includes(text) ? text : "", textContent: text });

const isQuote = v => v !== null && typeof v === "object" && typeof v.quote === "string" && "turn" in v;
// A click on a quote shows its turn. A quote whose words are not in the turn has a note that says so.
function quoted(e, c) {
  const where = e.turn === null ? "no turn" : `turn ${e.turn}`;
  const node = el("button", { className: `evidence${e.unverified ? " unverified" : ""}`, title: e.unverified ? `These words are not in ${where}` : `“${e.quote}” (${where}); shows where it was said`, onclick() { reveal(c, e); } },
    el("q", { textContent: e.quote }), e.unverified ? " " : null, e.unverified ? el("span", { className: "tag warn", textContent: "not in the transcript" }) : null);
  return node;
}
// All quotes within a value, for values whose own view does not show them.
const quotesIn = v => v === null || typeof v !== "object" ? [] : [...(isQuote(v) ? [v] : []), ...Object.values(v).flatMap(quotesIn)];
function value(v, c) {
  if (isQuote(v)) {
    const { turn, quote, unverified, ...rest } = v;
    return el("div", {}, Object.keys(rest).length ? value(rest, c) : null, quoted(v, c));
  }
  if (v === null || typeof v !== "object") return label(typeof v === "number" ? String(Math.round(v * 100) / 100) : String(v));
  if (Array.isArray(v)) return v.length ? el("ul", {}, ...v.map(item => el("li", {}, value(item, c)))) : el("span", { className: "tag", textContent: "none" });
  // Ids are not shown: only programs need them.
  const fields = Object.entries(v).filter(([name, item]) => item !== null && name !== "id");
  if (fields.every(([, item]) => typeof item !== "object")) {
    return el("span", {}, ...fields.flatMap(([name, item], at) => [at ? " · " : "", name === "text" ? "" : el("span", { className: "note tag", textContent: name }), " ", value(item, c)]));
  }
  return el("div", {}, ...fields.map(([name, item]) => el(typeof item === "object" ? "div" : "p", {}, el("span", { className: "tag", textContent: name }), " ", value(item, c))));
}
function bar(name, { score, label: text }, colour) {
  const half = Math.min(Math.abs(score), 1) * 50, fill = el("i");
  Object.assign(fill.style, { left: `${score < 0 ? 50 - half : 50}%`, width: `${half}%` });
  const who = el("span", { textContent: name, title: name });
  if (colour) who.style.color = colour;
  return el("div", { className: `bar ${text}` }, who, el("span", { className: "scale" }, fill), el("span", { textContent: `${text} ${score > 0 ? "+" : ""}${score.toFixed(2)}` }));
}
// The score over the turns as a curve; the line in the middle is neutral.
function trend(points) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const part = (tag, props) => { const node = document.createElementNS(svg.namespaceURI, tag); for (const [k, v] of Object.entries(props)) node.setAttribute(k, v); svg.append(node); return node; };
  svg.setAttribute("class", "trend"); svg.setAttribute("viewBox", "0 0 100 40"); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Sentiment over the call: ${points.map(([turn, score]) => `turn ${turn}: ${score.toFixed(2)}`).join(", ")}`);
  const last = points.at(-1)[0], first = points[0][0], most = Math.max(0.25, ...points.map(([, score]) => Math.abs(score)));
  const at = ([turn, score]) => [((turn - first) / Math.max(last - first, 1) * 100).toFixed(2), (20 - score / most * 18).toFixed(2)];
  part("line", { x1: 0, x2: 100, y1: 20, y2: 20, stroke: "var(--line)", "vector-effect": "non-scaling-stroke" });
  part("polyline", { points: points.map(at).join(" "), fill: "none", stroke: "var(--accent)", "stroke-width": 2, "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke" });
  return svg;
}
const arrows = { improving: "↗ improving", worsening: "↘ worsening", stable: "→ stable" };
const tag = (text, title = "") => text == null || text === "" ? null : el("span", { className: "tag", textContent: text, title });
// One item of a list: its text, and its other fields beside it. A settled item is struck through.
const item = (text, settled, ...tags) => el("li", { className: `item${settled ? " settled" : ""}` }, el("span", { className: "what", textContent: text }), ...tags.filter(Boolean).flatMap(one => [" ", one]));
const items = (list, draw) => Array.isArray(list) ? list.length ? el("ul", {}, ...list.map(draw)) : el("p", {}, tag("none")) : null;
const seconds = ms => ms == null ? "–" : `${(ms / 1000).toFixed(1)} s`;
// The share of the time that each speaker talks, as one bar, and the other figures of each speaker.
function figures(v, c) {
  if (v.talk_ms === null || typeof v.talk_ms !== "object") return null;
  const speakers = Object.keys(v.talk_ms), total = Object.values(v.talk_ms).reduce((sum, ms) => sum + ms, 0);
  const share = speaker => total ? Math.round(v.talk_ms[speaker] / total * 100) : 0;
  const bar = el("div", { className: "share" }, ...speakers.map(speaker => {
    const part = el("i", { title: `${speaker} talks ${share(speaker)} % of the time` });
    part.style.flex = String(v.talk_ms[speaker]);
    part.style.setProperty("--voice", voice(c, speaker));
    return part;
  }));
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `Talk share: ${speakers.map(speaker => `${speaker} ${share(speaker)} %`).join(", ")}`);
  const row = speaker => {
    const node = el("tr", {}, el("th", { scope: "row", textContent: speaker }), ...[`${share(speaker)} %`, v.turns?.[speaker], v.interruptions?.[speaker], seconds(v.response_ms_p50?.[speaker])].map(text => el("td", { textContent: text ?? "–" })));
    node.firstChild.style.setProperty("--voice", voice(c, speaker));
    return node;
  };
  const heads = [["", ""], ["talk", "Share of the time in which somebody talks"], ["turns", "Turns"], ["interr.", "Interruptions: begins while another talks, and goes on after"], ["responds", "Median time until the speaker responds to another"]];
  return [bar, el("table", { className: "figures" }, el("thead", {}, el("tr", {}, ...heads.map(([text, title]) => el("th", { scope: "col", textContent: text, title })))), el("tbody", {}, ...speakers.map(row))),
    el("p", {}, tag(`silence ${seconds(v.silence_ms)}`), " ", tag(`overlap ${seconds(v.overlap_ms)}`), " ", tag(`longest turn ${seconds(v.longest_turn_ms)}`))];
}
const bodies = {
  stats: figures,
  action_items: v => [items(v.items, i => item(i.text, i.state !== "open", tag(i.owner, "who is to do it"), tag(i.due, "when"), i.state === "dropped" ? tag("dropped") : null))],
  questions: v => [items(v.questions, q => item(q.text, false, tag(q.asked_by, "who asked"), q.answer == null ? tag("open") : el("span", { textContent: q.answer })))],
  topics: v => [items(v.topics, t => item(t.label, false, tag(`turns ${t.from_turn} to ${t.to_turn}`), t.id === v.current ? tag("now") : null))],
  entities: v => [items(v.entities, e => item(e.text, false, tag(e.kind), tag(e.speaker, "who said it")))],
  speakers: v => [items(v.speakers, s => item(s.name ?? s.role ?? "unknown", false, tag(s.speaker, "the label"), s.name == null ? null : tag(s.role), tag(`${Math.round(s.confidence * 100)} %`, "how sure that is")))],
  next_best_action: v => "action" in v ? [el("p", { className: v.action == null ? "" : "headline", textContent: v.action ?? "nothing is called for" }), v.why == null ? null : el("p", { textContent: v.why })] : null,
  scorecard: v => [items(v.answers, a => item(a.question, false, el("span", { className: a.answer === "yes" ? "positive" : a.answer === "no" ? "negative" : "", textContent: a.answer?.replace("_", " ") }), el("span", { className: "note", textContent: a.reason })))],
  call_report: v => v.title == null ? null : [el("p", { className: "headline", textContent: v.title }), el("div", { className: "page", textContent: v.markdown })],
  summary: v => v.headline == null ? null : [el("p", { className: "headline", textContent: v.headline }), el("ul", {}, ...(v.points ?? []).map(p => el("li", {}, p.text, p.speaker == null ? null : " ", p.speaker == null ? null : el("span", { className: "tag", textContent: p.speaker })))), v.outcome == null ? null : el("p", {}, tag("outcome"), " ", v.outcome)],
  sentiment: (v, c) => {
    if (typeof v.overall?.score !== "number") return null;
    const points = [...c.scores].map(([turn, s]) => [turn, s.score]).sort((a, b) => a[0] - b[0]);
    return [bar("overall", v.overall), ...(v.speakers ?? []).map(s => bar(s.speaker, s, voice(c, s.speaker))), points.length > 1 ? trend(points) : null, el("p", {}, arrows[v.trend] ?? v.trend)];
  },
};
function body(name, i, c) {
  // A user's analysis can have the name of a built-in one and a value of another form.
  const drawn = (i.value !== null && typeof i.value === "object" ? bodies[name]?.(i.value, c) : null)?.filter(Boolean);
  return drawn?.length ? [...drawn, ...quotesIn(i.value).map(e => quoted(e, c))] : [value(i.value, c)];
}
function card(c, name, i, failure) {
  const again = el("button", { title: `Run ${name} now`, textContent: "↻", async onclick() { await run(c, name, this); } });
  again.setAttribute("aria-label", `Run ${name} now`);
  const top = el("header", {}, el("h3", { textContent: name.replaceAll("_", " ") }), i?.status === "final" ? el("span", { className: "tag", textContent: "final" }) : null,
    i?.degraded ? el("span", { className: "tag warn", textContent: "degraded", title: "Not made by a model of the route, but by the embedded provider, for example" }) : null, again);
  const p = i?.provenance;
  return el("section", { className: "card", ariaLabel: name }, top,
    ...(i ? body(name, i, c) : []),
    ...(i?.evidence ?? []).map(e => quoted(e, c)),
    failure && el("p", { className: "failed", textContent: `${failure.code}${failure.temporary ? ": will be tried again" : ""}${failure.message ? ` (${failure.message})` : ""}` }),
    i && el("div", { className: "meta", textContent: [`rev ${i.rev}`, `${i.covers.turns} turns`, i.behind_turns ? `${i.behind_turns} behind` : null, p.endpoint === p.model ? p.model : `${p.model} at ${p.endpoint}`, `${i.latency_ms.total} ms`, money(p.cost_usd)].filter(Boolean).join(" · ") }));
}
// Open alerts, the most severe first. A click on a quote shows its turn.
const gravity = ["critical", "warning", "info"];
function alertCard(c, a) {
  const node = el("section", { className: "alert" }, el("p", {}, el("span", { className: "level", textContent: a.severity }), el("b", { textContent: a.message })),
    a.quote != null && a.turn != null ? quoted(a, c) : null,
    el("div", { className: "meta", textContent: [a.rule, a.turn == null ? null : `turn ${a.turn}`, a.at ? `since ${new Date(a.at).toLocaleTimeString()}` : null].filter(Boolean).join(" · ") }));
  node.dataset.is = a.severity;
  return node;
}
const openAlerts = c => [...c.alerts.values()].sort((a, b) => gravity.indexOf(a.severity) - gravity.indexOf(b.severity) || (a.at < b.at ? -1 : 1));
const gravest = c => openAlerts(c)[0]?.severity;
async function run(c, name, button) {
  button.disabled = true;
  try {
    const answer = await fetch(`${base}v1/calls/${c.id}/analyses/${name}`, { method: "POST", headers: { ...headers(), "content-type": "application/json" } });
    if (!answer.ok) say("off", (await answer.json().catch(() => ({}))).detail ?? answer.statusText);
  } finally { button.disabled = false; }
}
// The position of a quote in a turn. Only letters and digits are compared, normalized and in lower case, as the daemon does.
const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const folded = text => text.replace(/\p{Default_Ignorable_Code_Point}/gu, "").normalize("NFKC").toUpperCase().toLowerCase().normalize("NFKC").replace(/[^\p{L}\p{N}\p{M}]/gu, "");
function places(text, quote) {
  let plain = "";
  const at = [], found = [];
  for (const { segment, index } of graphemes.segment(text)) {
    const part = folded(segment);
    plain += part;
    for (let unit = 0; unit < part.length; unit++) at.push([index, index + segment.length]);
  }
  let from = 0;
  for (const piece of quote.split(/…|⋯|\.{2,}/).map(folded).filter(Boolean)) {
    const start = plain.indexOf(piece, from);
    if (start < 0) return [];
    from = start + piece.length;
    found.push([at[start][0], at[from - 1][1]]);
  }
  return found;
}
function reveal(c, { turn, quote, unverified }) {
  pane("turns");
  draw(); // on a narrow screen this part of the page was hidden and not drawn before
  const node = turns.querySelector(`[data-turn="${turn}"]`);
  for (const other of turns.querySelectorAll(".shown")) other.classList.remove("shown");
  if (!node) return;
  node.classList.add("shown");
  const said = node.querySelector(".said"), text = c.turns.get(turn)?.text ?? "", parts = [];
  let from = 0;
  for (const [start, end] of unverified ? [] : places(text, quote)) {
    parts.push(text.slice(from, start), el("mark", { textContent: text.slice(start, end) }));
    from = end;
  }
  if (parts.length) said.replaceChildren(...parts, text.slice(from));
  node.scrollIntoView({ block: "center" });
}

