// Keeps the page as the stack is: transitions change the tree in place, everything else is fetched as the server
// renders it. Nothing here builds markup from data: text goes in as text.
"use strict";

const $ = (id) => document.getElementById(id);
const tree = $("tree"), tools = $("tools"), link = $("link"), say = $("say");
const kinds = document.body.dataset.kinds.split(" ").map((word) => word.split(":"));
const FLASH_MS = 1600, INCIDENTS_MAX = 50, PANELS_EVERY_MS = 2000;
let at = document.body.dataset.at;
let byPath = index();
let flashes = 0; // shown so far: for those who test this

function index() {
  const found = new Map();
  for (const el of tree.querySelectorAll("[data-path]")) found.set(el.dataset.path, el);
  return found;
}

// ---- the tree ----

const part = (el, name) => el.querySelector(".row ." + name);

// A crash of one child can restart hundreds: transitions are gathered, the last of each child counts, and the
// page is touched once per frame. Nothing here asks for a layout.
const pending = new Map();
let drawing = false;

function take(t) {
  const before = pending.get(t.path);
  pending.set(t.path, before && before.exit && !t.exit ? { ...t, exit: before.exit } : t);
  incident(t);
  if (drawing) return;
  drawing = true;
  document.hidden ? setTimeout(draw, 500) : requestAnimationFrame(draw); // a hidden page gets no frames
}

function draw() {
  drawing = false;
  let unknown = false;
  for (const t of pending.values()) unknown = !apply(t) || unknown;
  pending.clear();
  recount();
  if (unknown) refetchTree();
}

function apply(t) {
  const el = byPath.get(t.path);
  if (!el) return false;
  el.dataset.state = t.to;
  el.dataset.restarts = t.restarts;
  const ended = t.exit ? `${t.restarts} restarts; the last life ended: ${t.exit.reason}: ${t.exit.detail}` : "";
  const recovered = t.recovered_us != null ? micros(t.recovered_us) : "";
  if (el.matches(".cell")) {
    el.title = `${leaf(t.path)}: ${t.to}, life ${t.incarnation}` + (recovered && `, back in ${recovered}`);
  } else {
    part(el, "state").textContent = t.to === "running" ? "" : t.waiting_for ? "waiting for " + t.waiting_for : t.to;
    part(el, "life").textContent = t.incarnation > 1 ? "#" + t.incarnation : "";
    if (ended) {
      part(el, "life").title = ended;
      // The other faults end with the life they hit.
      for (const fault of el.querySelectorAll(".row .fault")) if (fault.textContent !== "slow") fault.remove();
    }
    if (recovered) part(el, "back").textContent = recovered;
  }
  if (ended || recovered) flash(el.querySelector(".row") || el);
  return true;
}

const scheme = matchMedia("(prefers-color-scheme: dark)"), calmly = matchMedia("(prefers-reduced-motion: reduce)");
let color;
const readColor = () => { color = getComputedStyle(document.documentElement).getPropertyValue("--flash"); };
readColor();
scheme.onchange = readColor;

function flash(el) {
  const calm = calmly.matches;
  const from = calm ? { outline: "2px solid " + color } : { backgroundColor: color, boxShadow: "0 0 0 3px " + color };
  el.animate(calm ? [from, from] : [from, {}], { duration: FLASH_MS, easing: "ease-out" });
  flashes++;
}

function recount() {
  let running = 0, other = 0, restarts = 0;
  for (const el of byPath.values()) {
    if (el.dataset.kind !== "worker") continue;
    restarts += Number(el.dataset.restarts);
    el.dataset.state === "running" ? running++ : other++;
  }
  for (const [id, n] of [["running", running], ["other", other], ["restarts", restarts]]) {
    $("n-" + id).textContent = $("n-" + id).dataset.n = n;
  }
  for (const cells of tree.querySelectorAll(".cells")) {
    let n = 0;
    for (const cell of cells.children) n += Number(cell.dataset.restarts);
    cells.previousElementSibling.querySelector(".sum-restarts").textContent = n + (n === 1 ? " restart" : " restarts");
  }
}

let fetching = false, again = false;
async function refetchTree() {
  again = fetching;
  if (fetching) return;
  fetching = true;
  try {
    const text = await (await fetch("/fragments/tree")).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").body.firstElementChild;
    tree.replaceChildren(...fresh.childNodes);
    byPath = index();
    hideTools();
    recount();
  } catch { /* the next snapshot tries again */ } finally {
    setTimeout(() => {
      fetching = false;
      if (again) refetchTree();
    }, 500);
  }
}

// ---- what happened ----

const down = new Map(); // path → the list's entry of a child that is not back yet
for (const li of $("incidents").children) if (li.querySelector(".down")) down.set(li.dataset.of, li);

function incident(t) {
  const open = down.get(t.path);
  if (t.to === "running" && open) {
    down.delete(t.path);
    open.querySelector(".back").textContent =
      t.recovered_us != null ? "back in " + micros(t.recovered_us) : "back as #" + t.incarnation;
  } else if (t.exit && !open && t.to !== "running" && !["normal", "shutdown"].includes(t.exit.reason)) {
    const li = document.createElement("li");
    li.dataset.of = t.path;
    const time = document.createElement("time");
    time.textContent = new Date(t.exit.at).toISOString().slice(11, 23);
    const what = span("what", t.path.split("/").slice(3).join("/") || t.path);
    what.title = t.path + "\n" + t.exit.detail;
    const back = span("back", "");
    back.append(span("down", "down"));
    li.append(time, " ", span("reason", t.exit.reason), " ", what, back);
    $("incidents").prepend(li);
    down.set(t.path, li);
    while ($("incidents").children.length > INCIDENTS_MAX) {
      const oldest = $("incidents").lastElementChild;
      if (down.get(oldest.dataset.of) === oldest) down.delete(oldest.dataset.of);
      oldest.remove();
    }
    flash(li);
  }
}

function span(name, text) {
  const el = document.createElement("span");
  el.className = name;
  el.textContent = text;
  return el;
}

function micros(us) {
  if (us < 1000) return us + " µs";
  if (us < 10000) return (us / 1000).toFixed(1) + " ms";
  if (us < 1e6) return Math.floor(us / 1000) + " ms";
  return (us / 1e6).toFixed(1) + " s";
}

const leaf = (path) => path.slice(path.lastIndexOf("/") + 1);

// ---- events ----

function follow() {
  const events = new EventSource("/v1/tree?last_event_id=" + encodeURIComponent(at));
  events.onopen = () => { link.textContent = "live"; link.className = "live"; };
  events.onerror = () => {
    link.textContent = "not connected, trying again";
    link.className = "lost";
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
  };
  events.addEventListener("snapshot", (e) => { at = e.lastEventId; refetchTree(); });
  events.addEventListener("transition", (e) => { at = e.lastEventId; take(JSON.parse(e.data)); });
}

// ---- breaking things ----

let chosen = null;

function showTools(el) {
  if (chosen === el) return;
  chosen = el;
  const level = el.dataset.level;
  const wanted = level === "node" ? ["node", "child"] : level === "instance" ? ["link", "child"] : ["child"];
  tools.replaceChildren(span("title", leaf(el.dataset.path) + (level === "worker" ? "" : level === "node" ? " (the process, or all in it)" : " and all below")));
  for (const [hits, kind] of kinds) {
    if (!wanted.includes(hits)) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = hits;
    button.textContent = kind;
    button.onclick = () => inject(el, hits, kind);
    tools.append(button);
  }
  tools.hidden = false;
  const box = (el.querySelector(".row") || el).getBoundingClientRect();
  const width = tools.offsetWidth, left = Math.min(box.left, innerWidth - width - 12);
  tools.style.left = Math.max(8, left) + scrollX + "px";
  tools.style.top = box.bottom + scrollY + "px";
  for (const old of tree.querySelectorAll(".chosen")) old.classList.remove("chosen");
  el.classList.add("chosen");
}

function hideTools() {
  tools.hidden = true;
  if (chosen) chosen.classList.remove("chosen");
  chosen = null;
}

async function inject(el, hits, kind) {
  const path = el.dataset.path;
  const target = hits === "child" && el.dataset.kind !== "worker" ? path + "/**" : path;
  const body = { target, kind, for_ms: Number($("for").value) };
  const answer = await send("POST", "/v1/faults", body);
  if (answer) tell(`${kind}: hit ${answer.matched.length} ${answer.matched.length === 1 ? "path" : "paths"}`);
  panels();
}

async function send(method, url, body) {
  try {
    const response = await fetch(url, {
      method,
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    const answer = text ? JSON.parse(text) : {};
    if (response.ok) return answer;
    tell(answer.detail || answer.title || "that did not work", true);
  } catch {
    tell("the console did not answer", true);
  }
  return null;
}

let telling;
function tell(text, bad = false) {
  say.textContent = text;
  say.className = bad ? "bad" : "";
  say.hidden = false;
  clearTimeout(telling);
  telling = setTimeout(() => { say.hidden = true; }, 4000);
}

tree.addEventListener("click", (e) => {
  const el = e.target.closest("[data-path]");
  el && el !== chosen ? showTools(el) : hideTools();
});
tree.addEventListener("keydown", (e) => {
  if (e.key !== "Enter" && e.key !== " ") return;
  const el = e.target.closest("[data-path]");
  if (!el) return;
  e.preventDefault();
  showTools(el);
  tools.querySelector("button").focus();
});
document.addEventListener("keydown", (e) => { if (e.key === "Escape") hideTools(); });
document.addEventListener("click", (e) => {
  if (!e.target.closest("#tree, #tools")) hideTools();
  const fault = e.target.closest(".clear") && e.target.closest("[data-fault]");
  if (fault) send("DELETE", "/v1/faults/" + fault.dataset.fault).then(panels);
});

// ---- the panels ----

const faultIds = () => [...document.querySelectorAll("[data-fault]")].map((li) => li.dataset.fault).join();

async function panels() {
  try {
    const text = await (await fetch("/fragments/panels")).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    const before = faultIds();
    for (const panel of [...fresh.children]) {
      const old = $(panel.dataset.panel);
      if (old.innerHTML !== panel.innerHTML) old.replaceChildren(...panel.childNodes);
    }
    if (faultIds() !== before) refetchTree(); // the tree shows who has a fault
  } catch { /* the event stream says that the console is away */ }
}

setInterval(() => { if (!document.hidden) panels(); }, PANELS_EVERY_MS);
document.body.classList.add("script");
link.textContent = "connecting";
follow();
