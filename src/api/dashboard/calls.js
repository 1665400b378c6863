const $ = selector => document.querySelector(selector);
const list = $("#list"), find = $("nav input"), turns = $("#turns"), aside = $("aside"), state = $("#state"), newest = $("#newest"), ask = $("#ask");
const base = location.href.replace(/[?#].*$/, "").replace(/\/?$/, "/");
const calls = new Map();
let shown = null, cursor = null, wait = 500, key = sessionStorage.getItem("sidetone.key") ?? "", earlier = "";

const el = (tag, props = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children.filter(child => child != null));
  return node;
};
const clock = ms => `${Math.floor(ms / 60000)}:${String(Math.floor(ms / 1000) % 60).padStart(2, "0")}`;
const money = usd => usd == null ? "cost unknown" : usd === 0 ? "no cost" : `$${usd.toFixed(usd < 0.1 ? 5 : 2)}`;
const headers = () => key ? { authorization: `Bearer ${key}` } : {};

// ---- The state of each call, computed from its events: live ones, and older ones that are loaded later.

const call = id => {
  if (!calls.has(id)) {
    calls.set(id, { id, status: "open", seq: 0, begun: Date.now(), meta: {}, turns: new Map(), partials: new Map(), insights: {}, alerts: new Map(), perTurn: new Map(), failures: {}, scores: new Map(), gaps: [], heard: 0, whole: false });
    shown ??= id;
  }
  return calls.get(id);
};
function insight(c, i) {
  if (i.turn != null) {
    if (!c.perTurn.has(i.turn)) c.perTurn.set(i.turn, {});
    const of = c.perTurn.get(i.turn);
    if (i.rev >= (of[i.analysis]?.rev ?? 0)) of[i.analysis] = i;
    return;
  }
  const score = i.value?.overall?.score;
  if (i.analysis === "sentiment" && typeof score === "number" && i.covers.to != null && i.rev >= (c.scores.get(i.covers.to)?.rev ?? 0)) c.scores.set(i.covers.to, { score, rev: i.rev });
  if (i.rev >= (c.insights[i.analysis]?.rev ?? 0)) { c.insights[i.analysis] = i; delete c.failures[i.analysis]; }
}
function insights(c, all) {
  for (const i of Object.values(all ?? {})) for (const one of i.turns ? Object.values(i.turns) : [i]) insight(c, one);
}
function alerts(c, open) {
  c.alerts = new Map((open ?? []).map(a => [a.id, a]));
}
function turn(c, t) {
  if (t.rev >= (c.turns.get(t.turn)?.rev ?? 0)) c.turns.set(t.turn, t);
  c.heard = Math.max(c.heard, t.end_ms);
}
const on = {
  snapshot(c, f) {
    c.status = f.state.status; c.meta = f.state.meta; c.turns = new Map(); c.partials.clear();
    for (const t of f.state.turns ?? []) turn(c, t);
    insights(c, f.state.insights);
    alerts(c, f.state.alerts);
    c.whole = false; c.seq = f.seq;
  },
  "call.started"(c, f) { c.meta = f.meta; c.begun = Date.parse(f.at); },
  "call.updated"(c, f) { c.meta = f.meta; },
  "call.completed"(c, f) { c.status = "completed"; c.cost = f.cost_usd; c.missing = f.missing; c.partials.clear(); },
  "call.failed"(c) { c.status = "failed"; c.partials.clear(); },
  "turn.final"(c, f) {
    turn(c, f.turn);
    // A final turn removes the partials of this turn and of earlier turns.
    if ((c.partials.get(f.turn.stream_id)?.turn_order ?? Infinity) <= f.turn.turn_order) c.partials.delete(f.turn.stream_id);
  },
  "turn.revised"(c, f) { turn(c, f.turn); },
  "stream.ended"(c, f) { c.partials.delete(f.stream_id); },
  "turn.partial"(c, f) { f.text ? c.partials.set(f.stream_id, f) : c.partials.delete(f.stream_id); },
  gap(c, f) { if (!c.gaps.some(g => g.seq === f.seq)) c.gaps.push(f); },
  "insight.updated"(c, f) { insight(c, f.insight); },
  "insight.failed"(c, f) { if (f.turn == null) c.failures[f.analysis] = f; },
  "alert.raised"(c, f) { c.alerts.set(f.alert.id, { ...f.alert, at: f.at }); },
  "alert.cleared"(c, f) { c.alerts.delete(f.alert.id); },
};
function take(f, isPast = false) {
  if (!f.call_id || !on[f.type]) return;
  const c = call(f.call_id);
  // An older event does not overwrite what a newer event has already set.
  if (isPast && f.seq <= c.seq && ["call.started", "call.updated", "insight.failed", "stream.ended", "alert.raised", "alert.cleared"].includes(f.type)) return;
  on[f.type](c, f);
  if (f.seq > c.seq) c.seq = f.seq;
}

async function get(path) {
  const answer = await fetch(base + path, { headers: headers() });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? answer.statusText);
  return answer.json();
}
// A snapshot has only the newest turns and insights. Older events are loaded when the call is selected.
async function readPast(c) {
  if (c.whole) return;
  c.whole = true;
  try {
    for (let after = 0, page = 0; after != null && page < 20; page++) {
      const events = await get(`v1/calls/${c.id}/events?after=${after}`);
      for (const f of events.events) take(f, true);
      after = events.next_after;
    }
  } catch { c.whole = false; }
  redraw();
}
async function readEarlier() {
  try {
    const page = await get(`v1/calls?state=completed&limit=100${earlier && `&after=${earlier}`}`);
    for (const known of page.calls) {
      if (calls.has(known.call_id)) continue;
      const none = shown == null, c = call(known.call_id);
      Object.assign(c, { status: known.state, meta: known.meta, begun: Date.parse(known.started_at), count: known.turns });
      insights(c, known.insights);
      alerts(c, known.alerts);
      if (none) shown = null;
    }
    earlier = page.next;
    if (calls.has(shown)) readPast(calls.get(shown));
  } catch { earlier = null; }
  redraw();
}

