// The page as a whole: its parts in order, search, keys, theme, tips, printing.

// -- tips ----------------------------------------------------------------------------------------------------------

function showTip(box, action, span) {
  const tip = $("tip");
  const lines = action.outcome
    ? [el("b", {}, action.label), el("span", {}, mark(action.outcome), ended(action))]
    : [el("b", {}, action.label)];
  if (span) lines.push(el("span", {}, `at ${duration(span.start)} for ${duration(span.seconds)}`));
  if (action.reasons?.length) lines.push(el("span", { class: "soft" }, inWords(action.reasons[0], action.label)));
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left, innerWidth - width - 8));
  const below = box.bottom + 8 + height < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? box.bottom + 8 : box.top - height - 8}px`;
}

function hideTip() {
  $("tip").hidden = true;
  if (state.selected < 0) drawEdges();
}

// -- theme ---------------------------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];

function kept(name, value) {
  // A file opened from a disk may have no storage.
  try {
    if (value !== undefined) localStorage.setItem(`strata-${name}`, value);
    return localStorage.getItem(`strata-${name}`);
  } catch {
    return null;
  }
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  $("theme").dataset.name = name;
  tell("theme");
}

function nextTheme() {
  const name = THEMES[(THEMES.indexOf($("theme").dataset.name) + 1) % THEMES.length];
  kept("theme", name);
  setTheme(name);
  say(`Theme: ${name}`);
}

// -- keys ----------------------------------------------------------------------------------------------------------

const KEYS = [
  ["/", "search"],
  ["Enter", "in the search: go to the first action found"],
  ["g, t, a", "go to the graph, the timeline, the actions"],
  ["← → ↑ ↓", "go from action to action"],
  ["Home, End", "the first and the last action"],
  ["Enter", "choose; once more: go into its details"],
  ["Esc", "back: close the details, empty the search"],
  ["+ − 0", "in the timeline: zoom, show all"],
  ["d", "light, dark, or as the system has it"],
  ["?", "these keys"],
];

function showKeys() {
  const dialog = $("keys");
  dialog.replaceChildren(el("h2", { id: "keys-title" }, "Keys"),
    el("dl", {}, KEYS.map(([keys, what]) => [el("dt", {}, keys.split(/(?<=,) | /).map((key) => el("kbd", {}, key.replace(",", "")))), el("dd", {}, what)])),
    button("Close", () => dialog.close()));
  dialog.showModal();
}

function goTo(id, inside) {
  const section = $(id);
  if (!section) return;
  section.scrollIntoView({ block: "start", behavior: "instant" });
  const target = inside?.() ?? section.querySelector("button, [tabindex='0']");
  target?.focus({ preventScroll: true });
}

function pageKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const typing = event.target.closest("input");
  if (event.key === "Escape") {
    if (typing && $("search").value) {
      $("search").value = "";
      searched();
    } else if (typing) $("search").blur();
    else if (state.selected >= 0) closeDetails();
    else if (state.matches) {
      $("search").value = "";
      searched();
    } else return;
  } else if (typing) {
    if (event.key !== "Enter" || !state.matches?.size) return;
    const first = [...state.matches].sort((a, b) => RANKS[actions[a].outcome] - RANKS[actions[b].outcome] || a - b)[0];
    select(first, { from: "search" });
    focusNode(first);
  } else if (event.key === "/") {
    $("search").focus();
    $("search").select();
  } else if (event.key === "?") showKeys();
  else if (event.key === "d") nextTheme();
  else if (event.key === "g") goTo("graph", () => graph.nodes.get(graph.current));
  else if (event.key === "t") goTo("timeline", () => (time.box?.isConnected ? time.box : null));
  else if (event.key === "a") goTo("actions", () => table.body.querySelector("button"));
  else return;
  event.preventDefault();
}

function searched() {
  search($("search").value);
  const count = state.matches?.size;
  $("found").textContent = count === undefined ? "" : `${count.toLocaleString("en")} found`;
}

// -- printing ------------------------------------------------------------------------------------------------------

const PAPER = 700;

function startPrinting() {
  let theme = null;
  addEventListener("beforeprint", () => {
    theme ??= $("theme").dataset.name;
    state.printing = true;
    document.documentElement.dataset.theme = "light";
    drawGraph(PAPER, true);
    drawTimeline(PAPER);
  });
  addEventListener("afterprint", () => {
    setTheme(theme ?? "auto");
    theme = null;
    state.printing = false;
    drawGraph();
    drawTimeline();
  });
}

// -- the parts, in order -------------------------------------------------------------------------------------------

const NAMES = {
  outcome: "Outcome", messages: "Failures and warnings", causes: "Root causes", graph: "Graph", timeline: "Timeline",
  slowest: "Slowest", whatif: "What if", sizes: "Sizes", actions: "Actions",
};

function start() {
  setTheme(THEMES.includes(kept("theme")) ? kept("theme") : "auto");
  $("theme").addEventListener("click", nextTheme);
  $("help").addEventListener("click", showKeys);
  $("search").addEventListener("input", searched);
  addEventListener("keydown", pageKey);
  startPrinting();
  fillOutcome();
  const sections = [messages(), causes(), startGraph(), startTimeline(), slowest(), whatIf(), sizes(), startTable()].filter(Boolean);
  $("main").append(...sections);
  $("sections").append(...["outcome", ...sections.map((section) => section.id)].map((id) => el("li", {}, el("a", { href: `#${id}` }, NAMES[id]))));
  drawDetails(-1);
  // What stands above is painted before the large parts are made.
  setTimeout(() => {
    drawGraph();
    drawTimeline();
    fillTable();
    const resized = new ResizeObserver(() => {
      // Paper has a width of its own, for which all has been drawn.
      if (state.printing) return;
      if (graph.scroller.clientWidth !== graph.width) drawGraph();
      redraw();
    });
    resized.observe(graph.scroller);
    if (time.box.isConnected) resized.observe(time.box);
    document.documentElement.dataset.ready = "true";
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => tell("theme"));
  addEventListener("scroll", () => $("tip").hidden || hideTip(), { passive: true });
}

start();
