// ---- Input of the reader: mouse, keyboard, links.

function pane(name) {
  document.body.dataset.pane = name;
  for (const button of document.querySelectorAll("#tabs button")) button.setAttribute("aria-pressed", button.dataset.pane === name);
}
function show(id) {
  shown = id;
  history.replaceState(null, "", `#${id}`);
  pane("turns");
  draw();
  turns.scrollTop = turns.scrollHeight;
  readPast(calls.get(id));
}
for (const button of document.querySelectorAll("#tabs button")) button.onclick = () => pane(button.dataset.pane);
find.oninput = redraw;
newest.onclick = () => { turns.scrollTop = turns.scrollHeight; newest.hidden = true; };
turns.onscroll = () => { newest.hidden = turns.scrollHeight - turns.scrollTop - turns.clientHeight < 90; };
document.onkeydown = event => {
  if (event.ctrlKey || event.metaKey || event.altKey || ask.open) return;
  if (event.target === find) { if (event.key === "Escape") { find.value = ""; find.blur(); redraw(); } return; }
  const step = { j: 1, k: -1 }[event.key] ?? (event.target.dataset?.call ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : undefined);
  if (event.key === "/") { event.preventDefault(); pane("calls"); find.focus(); }
  else if (step) {
    const all = ordered(), next = all[all.findIndex(c => c.id === shown) + step];
    if (next) { event.preventDefault(); show(next.id); list.querySelector(`[data-call="${CSS.escape(next.id)}"]`)?.focus(); }
  } else if (event.key === "End") newest.click();
};

// ---- The socket.

function say(is, text) { state.dataset.is = is; state.textContent = text; }
function askKey(why) {
  say("off", "a key is needed");
  $("#why").textContent = why;
  if (!ask.open) ask.showModal();
}
$("#ask form").onsubmit = () => {
  key = $("#ask input").value.trim();
  sessionStorage.setItem("sidetone.key", key);
  connect();
};
function connect() {
  say("wait", "connecting…");
  let refusal = "";
  const socket = new WebSocket(`${base.replace(/^http/, "ws")}v1/subscribe`, ["sidetone.v1", ...(key ? [`sidetone.key.${key}`] : [])]);
  socket.onmessage = ({ data }) => {
    const f = JSON.parse(data);
    cursor = f.cursor ?? cursor;
    if (f.type === "welcome") socket.send(JSON.stringify({ id: "1", type: "subscribe", calls: "*", include: ["turns", "partials"], ...(cursor && { resume: { cursor } }) }));
    else if (f.type === "subscribed") { wait = 500; say("live", "live"); if (earlier === "") readEarlier(); }
    else if (f.type === "reconnect") say("wait", "the daemon restarts; coming back");
    else if (f.type === "error") { refusal = f.message; say("off", f.message); }
    take(f);
    if (f.type === "snapshot" && f.call_id === shown) readPast(calls.get(shown));
    redraw();
  };
  socket.onclose = ({ code, reason }) => {
    for (const c of calls.values()) c.partials.clear();
    redraw();
    if (code === 4401 || code === 4403) return askKey(code === 4401 ? `This daemon requires a key with the scope “subscribe”. ${key ? "The given key is unknown." : ""}` : "This key lacks the scope “subscribe”.");
    const seconds = Math.ceil(wait / 1000);
    say("off", `${refusal || reason || "no connection"}; trying again in ${seconds} s`);
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 8000);
  };
}
shown = location.hash.slice(1) || null;
pane("turns");
draw();
connect();
