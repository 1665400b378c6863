// The result of a per-turn analysis, in one word if it has a label. "Neutral" is not shown.
const note = ({ analysis, value: v }) => v?.label ? v.label !== "neutral" && v.label : `${analysis.replaceAll("_", " ")}: ${v?.text ?? JSON.stringify(v)}`;
let drawnCall = null;
const drawnTurns = new Map();
function drawTurn(c, t, before) {
  const same = before && before.speaker === t.speaker && t.start_ms - before.end_ms < 30000 && before.stream_id === t.stream_id;
  const notes = [t.rev ? "corrected" : null, ...Object.values(c.perTurn.get(t.turn) ?? {}).map(note)].filter(Boolean);
  const print = JSON.stringify([t.rev, t.text, t.speaker, same, notes]);
  const known = drawnTurns.get(t.turn);
  if (known?.print === print) return known.node;
  const who = el("span", { className: "who", textContent: t.speaker ?? "?" });
  const node = el("div", { className: `turn${same ? " same" : ""}` }, el("time", { textContent: clock(t.start_ms) }),
    el("div", {}, who, el("span", { className: "said", textContent: t.text }), ...notes.map(text => el("span", { className: "note" }, "  ", label(text)))));
  node.dataset.turn = t.turn;
  who.style.setProperty("--voice", voice(c, t.speaker));
  drawnTurns.set(t.turn, { print, node });
  return node;
}
function drawTranscript(c) {
  if (drawnCall !== c.id) { drawnTurns.clear(); turns.replaceChildren(); drawnCall = c.id; }
  const atEnd = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 90 || !turns.childElementCount;
  const all = [...c.turns.values()].filter(t => t.text).sort((a, b) => a.start_ms - b.start_ms || a.turn - b.turn).slice(-2000);
  const nodes = all.map((t, at) => [t.start_ms, drawTurn(c, t, all[at - 1])]);
  for (const g of c.gaps) nodes.push([g.to_ms - 0.5, el("div", { className: "gap", textContent: `speech was lost here (${g.cause.replaceAll("_", " ")}, ${((g.to_ms - g.from_ms) / 1000).toFixed(1)} s)` })]);
  if (c.gaps.length) nodes.sort((a, b) => a[0] - b[0]);
  const next = [...nodes.map(([, node]) => node), ...[...c.partials.values()].map(p => el("div", { className: "turn partial" }, el("time", { textContent: "…" }), el("div", {}, p.speaker == null ? null : el("span", { className: "who", textContent: p.speaker }), el("span", { className: "said", textContent: p.text }))))];
  // Existing elements stay in the page, so that selections and the scroll position are kept.
  next.forEach((node, at) => { if (turns.children[at] !== node) turns.insertBefore(node, turns.children[at] ?? null); });
  while (turns.childElementCount > next.length) turns.lastChild.remove();
  if (!next.length) turns.append(el("p", { className: "empty", textContent: c.status === "open" ? "Nothing has been said yet." : "Nothing was said." }));
  if (atEnd) turns.scrollTop = turns.scrollHeight;
  newest.hidden = atEnd;
}
function matches(c) {
  const wanted = find.value.trim().toLowerCase();
  return !wanted || `${c.id} ${JSON.stringify(c.meta)} ${c.status}`.toLowerCase().includes(wanted);
}
const ordered = () => [...calls.values()].filter(matches).sort((a, b) => (b.status === "open") - (a.status === "open") || b.begun - a.begun || (a.id < b.id ? -1 : 1)).slice(0, 300);
const named = c => Object.entries(c.meta ?? {}).map(([k, v]) => `${k}: ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", ");
function drawList() {
  const focused = document.activeElement?.dataset?.call;
  list.replaceChildren(...ordered().map(c => {
    const mood = c.insights.sentiment?.value?.overall?.label, alerted = gravest(c);
    const dot = el("span", { className: "dot" });
    dot.dataset.is = c.status;
    const button = el("button", { className: "call", onclick() { show(c.id); } }, dot, el("b", { textContent: c.id, title: c.id }), alerted ? el("span", { className: `tag ${alerted}`, textContent: alerted, title: `${c.alerts.size} open alerts` }) : mood && mood !== "neutral" ? label(mood) : null,
      el("small", { textContent: [c.status, `${c.turns.size || c.count || 0} turns`, named(c)].filter(Boolean).join(", ") }));
    button.dataset.call = c.id;
    button.setAttribute("aria-current", c.id === shown);
    return button;
  }), ...(earlier ? [el("button", { className: "call more", textContent: "more completed calls", onclick: readEarlier })] : []));
  if (focused) list.querySelector(`[data-call="${CSS.escape(focused)}"]`)?.focus();
}
function draw() {
  drawList();
  const open = [...calls.values()].filter(c => c.status === "open").length;
  $("#counts").textContent = `${open} open, ${calls.size - open} over`;
  document.title = open ? `(${open}) Sidetone` : "Sidetone";
  const c = calls.get(shown);
  $("#title").hidden = !c;
  if (!c) {
    turns.replaceChildren(el("div", { className: "empty" }, ...(calls.size
      ? [el("p", { textContent: "Choose a call from the list." })]
      : [el("p", { textContent: "No call yet: calls appear here as they begin." }), el("p", {}, "To see one, run ", el("code", { textContent: "sidetone replay call.jsonl" }))])));
    return;
  }
  $("#title h2").textContent = c.id;
  $("#title p").textContent = [c.status, `${c.turns.size || c.count || 0} turns`, c.heard ? clock(c.heard) : null, c.status === "completed" && c.cost !== undefined ? money(c.cost) : null, named(c)].filter(Boolean).join(" · ");
  drawTranscript(c);
  const names = [...new Set(["summary", "sentiment", "stats", ...Object.keys(c.insights).sort(), ...Object.keys(c.failures).sort()])].filter(name => c.insights[name] || c.failures[name]);
  const scrolled = aside.scrollTop, focused = document.activeElement?.getAttribute?.("aria-label");
  const warned = openAlerts(c).map(a => alertCard(c, a));
  aside.replaceChildren(...(warned.length ? [el("div", { className: "alerts", role: "status", ariaLabel: "Alerts" }, ...warned)] : []), ...names.map(name => card(c, name, c.insights[name], c.failures[name])));
  if (!names.length && !warned.length) aside.append(el("p", { className: "empty", textContent: c.turns.size ? "Insights appear during the call." : "No insights." }));
  aside.scrollTop = scrolled;
  if (focused) aside.querySelector(`button[aria-label="${CSS.escape(focused)}"]`)?.focus();
}
let due = false;
const redraw = () => { if (!due) { due = true; requestAnimationFrame(() => { due = false; draw(); }); } };

