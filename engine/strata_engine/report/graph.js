// The graph: a lane per layer, a column per depth. Few actions of a cell are cards, many are tiles, so that thousands
// fit. Every size is computed here: edges are drawn without measuring, and the browser lays out only what is in sight.

const CARD = { height: 28, gap: 5 };
const TILES = [
  { most: 6, card: true },
  { most: 24, size: 22, gap: 3 },
  { most: 160, size: 17, gap: 2 },
  { most: Infinity, size: 11, gap: 2 },
];
const LANE = { pad: 9, caption: 17, least: 54, gap: 5, between: 26, names: 22 };
const MOST_EDGES = 260;

const graph = {
  everything: true, folded: new Set(), places: new Map(), nodes: new Map(), current: -1, plane: null, edges: null,
  width: 0, head: 0, stacked: false, heads: [], scroller: null,
};

function startGraph() {
  const done = actions.filter(moved).length;
  graph.everything = done === 0 || actions.length <= 80 || done * 2 > actions.length;
  const scroller = el("div", {
    class: "graph", role: "group", tabindex: "-1",
    "aria-label": "The graph. Arrow keys go from action to action, Enter chooses one.",
    on: { keydown: graphKey, click: graphClick, pointerover: graphOver, pointerout: hideTip, focusin: graphFocus },
  });
  graph.scroller = scroller;
  const choose = (everything) => () => {
    graph.everything = everything;
    pressed();
    drawGraph();
  };
  const all = button(`Everything (${actions.length.toLocaleString("en")})`, choose(true));
  const only = button(`What was not up to date (${done.toLocaleString("en")})`, choose(false));
  const pressed = () => {
    all.setAttribute("aria-pressed", graph.everything);
    only.setAttribute("aria-pressed", !graph.everything);
  };
  only.disabled = done === 0;
  pressed();
  const fold = (close) => () => {
    graph.folded = new Set(close ? data.groups.keys() : []);
    drawGraph();
  };
  const used = new Set(actions.map((action) => action.outcome));
  const section = el("section", { id: "graph", "aria-labelledby": "graph-title" },
    el("div", { class: "title" }, el("h2", { id: "graph-title" }, "Graph"),
      el("div", { class: "tools" },
        el("span", { class: "switch", role: "group", "aria-label": "What is drawn" }, all, only),
        button("Fold all", fold(true)), button("Unfold all", fold(false)))),
    el("ul", { class: "legend", "aria-label": "Legend" },
      data.outcomes.filter((name) => used.has(name)).map((name) => el("li", {}, mark(name), OUTCOMES[name].word)),
      data.critical.length ? el("li", {}, el("span", { class: "mark-critical", "aria-hidden": "true" }), "on the critical path") : null),
    scroller,
    el("p", { class: "soft" }, "A row is a layer and stands below those it needs; in it, what is needed is left of what needs it. Of a chosen action, solid lines lead to what it needs, dashed ones to what needs it. ",
      data.head.whole ? "" : "The graph is that of the last build, and may have been another one in this build."));
  return section;
}

/** Give each column what its texts need, and what is left over to those that have most to show. */
function columnsOf(lanes, count, room) {
  const wants = Array.from({ length: count }, () => 92);
  const most = Array.from({ length: count }, () => 1);
  for (const lane of lanes) {
    for (const [at, cell] of lane.cells) {
      const longest = cell.length > TILES[0].most ? 12 : Math.max(...cell.map((action) => inner(action).length));
      wants[at] = Math.max(wants[at], Math.min(210, 34 + 6.6 * longest + (cell.some((action) => action.seconds) ? 46 : 0)));
      most[at] = Math.max(most[at], Math.min(400, cell.length));
    }
  }
  const left = room - wants.reduce((sum, each) => sum + each + LANE.between, 0);
  // Too narrow: texts are cut before one must scroll. Too wide: crowds get it.
  const few = wants.map((each) => Math.max(84, each + (left < 0 ? (left * (each - 84)) / wants.reduce((sum, one) => sum + one - 84, 1) : 0)));
  const all = most.reduce((sum, each) => sum + each - 1, 0);
  const widths = few.map((each, at) => each + (left > 0 && all ? Math.min(420, (left * (most[at] - 1)) / all) : 0));
  let x = 0;
  return widths.map((w) => {
    x += w + LANE.between;
    return { x: x - w - LANE.between, w: Math.floor(w) };
  });
}

/** Decide where everything is. */
function layOut(width, stacked) {
  const shown = actions.filter((action) => graph.everything || moved(action));
  const ranks = [...new Set(shown.map((action) => action.column))].sort((a, b) => a - b);
  const rank = new Map(ranks.map((column, at) => [column, at]));
  graph.stacked = stacked;
  const longest = Math.max(...data.groups.map((name) => name.length), 13);
  const head = graph.stacked ? 0 : Math.min(250, 66 + 8.4 * longest);
  graph.head = head;
  const lanes = data.groups.map((name, group) => ({ name, group, cells: new Map(), count: 0 }));
  const kinds = ranks.map(() => new Set());
  for (const action of shown) {
    const { cells } = lanes[action.group];
    const at = rank.get(action.column);
    if (!cells.has(at)) cells.set(at, []);
    cells.get(at).push(action);
    lanes[action.group].count += 1;
    kinds[at].add(action.mnemonic);
  }
  const used = lanes.filter((lane) => lane.count);
  const columns = columnsOf(used, ranks.length, width - head - 2 * LANE.pad + LANE.between);
  graph.places.clear();
  let top = LANE.names;
  for (const lane of used) {
    lane.top = top;
    lane.folded = graph.folded.has(lane.group);
    const above = graph.stacked ? 34 : 0;
    let height = graph.stacked ? 0 : LANE.least - 2 * LANE.pad;
    if (!lane.folded) {
      for (const [at, cell] of lane.cells) height = Math.max(height, placeCell(cell, { ...columns[at], x: head + LANE.pad + columns[at].x }, lane, above));
    }
    lane.height = lane.folded ? 40 : above + height + 2 * LANE.pad;
    top += lane.height + LANE.gap;
  }
  const names = columns.map((column, at) => ({ x: head + LANE.pad + column.x, w: column.w, text: [...kinds[at]].sort().join(", ") }));
  const last = columns[columns.length - 1] ?? { x: 0, w: 0 };
  return { lanes: used, names, width: Math.max(width, head + last.x + last.w + 2 * LANE.pad), height: Math.max(0, top - LANE.gap) };
}

const RANKS = { failed: 0, executed: 1, skipped: 2, remote: 3, cached: 4, up_to_date: 5, outside: 6, unknown: 7 };

function placeCell(cell, column, lane, above) {
  const form = TILES.find((each) => cell.length <= each.most);
  cell.sort((a, b) => RANKS[a.outcome] - RANKS[b.outcome] || (a.label < b.label ? -1 : 1));
  const left = column.x;
  const top = lane.top + above + LANE.pad;
  if (form.card) {
    cell.forEach((action, number) => {
      const y = top + number * (CARD.height + CARD.gap);
      graph.places.set(action.index, { x: left, y, w: column.w, h: CARD.height, card: true, lane });
    });
    return cell.length * (CARD.height + CARD.gap) - CARD.gap;
  }
  const pitch = form.size + form.gap;
  const row = Math.max(1, Math.floor((column.w + form.gap) / pitch));
  cell.forEach((action, number) => {
    const x = left + (number % row) * pitch;
    const y = top + LANE.caption + Math.floor(number / row) * pitch;
    graph.places.set(action.index, { x, y, w: form.size, h: form.size, dot: form.size < 14, small: form.size < 20, wide: column.w, lane });
  });
  return LANE.caption + Math.ceil(cell.length / row) * pitch - form.gap;
}

function drawGraph(width = graph.scroller.clientWidth, stacked = width < 640) {
  graph.width = width;
  const hadFocus = graph.scroller.contains(document.activeElement);
  const plan = layOut(width, stacked);
  graph.nodes.clear();
  const plane = el("div", { class: "plane", style: { width: `${plan.width}px`, height: `${plan.height}px`, "--head": `${graph.head - 8}px` } });
  plane.append(el("div", { class: "kinds", "aria-hidden": "true", style: { width: `${plan.width}px` } },
    plan.names.map(({ x, w, text }) => el("span", { style: { left: `${x}px`, width: `${w}px` }, title: text }, text))));
  for (const lane of plan.lanes) plane.append(drawLane(lane, plan));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "edges");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("width", plan.width);
  svg.setAttribute("height", plan.height);
  graph.edges = svg;
  graph.plane = plane;
  plane.append(svg);
  graph.scroller.classList.toggle("stacked", stacked);
  graph.scroller.classList.toggle("many", graph.places.size > 1500);
  graph.scroller.replaceChildren(plan.lanes.length ? plane : el("p", { class: "soft" }, "There is nothing to draw."));
  if (!graph.nodes.has(graph.current)) graph.current = graph.places.keys().next().value ?? -1;
  graph.nodes.get(graph.current)?.setAttribute("tabindex", "0");
  markNodes();
  drawEdges();
  if (hadFocus) focusNode(graph.current);
}

function drawLane(lane, plan) {
  const members = [...lane.cells.values()].flat();
  const counts = data.outcomes.map((name) => [name, members.filter((each) => each.outcome === name).length]).filter(([, n]) => n);
  const seconds = members.reduce((sum, each) => sum + each.seconds, 0);
  const toggle = button([el("span", { class: "arrow", "aria-hidden": "true" }, "\u25be"), el("span", { class: "name" }, lane.name)], () => {
    if (lane.folded) graph.folded.delete(lane.group);
    else graph.folded.add(lane.group);
    drawGraph();
    graph.heads[lane.group].focus();
  }, { class: "fold", "aria-expanded": String(!lane.folded), title: lane.name });
  graph.heads[lane.group] = toggle;
  const told = `${several(members.length, "action")}${seconds >= 0.0005 ? `, ${duration(seconds)}` : ""}`;
  const strip = el("span", { class: "strip", "aria-hidden": "true" }, counts.map(([name, count]) =>
    el("span", { class: `o-${name}`, style: { "flex-grow": count } })));
  const head = el("div", { class: "lane-head" }, toggle, el("small", {}, told), strip);
  const made = el("div", {
    class: `lane${lane.folded ? " is-folded" : ""}`, role: "group", "aria-label": `${lane.name}: ${told}`,
    style: { top: `${lane.top}px`, height: `${lane.height}px`, width: `${plan.width}px`, "contain-intrinsic-size": `${plan.width}px ${lane.height}px` },
  }, head);
  if (lane.folded) {
    made.append(el("span", { class: "folded" }, counts.map(([name, count]) => el("span", {}, mark(name), `${count} ${OUTCOMES[name].word}`))));
    return made;
  }
  for (const cell of lane.cells.values()) {
    const first = graph.places.get(cell[0].index);
    if (!first.card) made.append(captionOf(cell, first, lane));
    for (const action of cell) made.append(drawNode(action, lane));
  }
  return made;
}

function captionOf(cell, first, lane) {
  const kinds = new Map();
  for (const action of cell) kinds.set(action.mnemonic, (kinds.get(action.mnemonic) ?? 0) + 1);
  const text = [...kinds].sort((a, b) => b[1] - a[1]).map(([name, count]) => `${count} ${name}`).join(", ");
  return el("span", {
    class: "caption",
    style: { left: `${first.x}px`, top: `${first.y - lane.top - LANE.caption}px`, "max-width": `${first.wide}px` },
  }, text);
}

function drawNode(action, lane) {
  const { x, y, w, h, card, dot, small } = graph.places.get(action.index);
  const node = el("button", {
    type: "button", tabindex: "-1", "data-i": action.index,
    class: `node o-${action.outcome}${card ? " card" : dot ? " dot" : small ? " tile small-tile" : " tile"}${action.critical ? " critical" : ""}`,
    "aria-label": `${action.label}, ${ended(action)}${action.critical ? ", on the critical path" : ""}`,
    style: { left: `${x}px`, top: `${y - lane.top}px`, width: `${w}px`, height: `${h}px` },
  });
  if (card) {
    node.append(mark(action.outcome), el("span", { class: "name" }, inner(action)));
    // Where only one fits it is the name: the time is in the tip.
    const room = w - 80 >= Math.min(64, 6.6 * inner(action).length);
    if (action.seconds >= 0.0005 && room) node.append(el("span", { class: "took" }, duration(action.seconds)));
  } else if (!dot) node.append(OUTCOMES[action.outcome].mark);
  graph.nodes.set(action.index, node);
  return node;
}

// -- edges ---------------------------------------------------------------------------------------------------------

function drawEdges(hovered = -1) {
  if (!graph.edges) return;
  const focus = state.selected >= 0 ? state.selected : hovered;
  const paths = [];
  const add = (from, to, kind) => {
    const one = graph.places.get(from);
    const other = graph.places.get(to);
    if (!one || !other) return;
    const [y1, y2] = [one.y + one.h / 2, other.y + other.h / 2];
    const [x1, x2] = [one.x + one.w, other.x];
    if (x2 - x1 >= LANE.between - 4) {
      const bend = Math.min(80, (x2 - x1) / 2);
      paths.push([kind, `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`]);
    } else {
      // From row to row in the space left of the column, where no text is.
      const bend = 12 + Math.min(14, Math.abs(y2 - y1) / 40);
      const aside = Math.min(one.x, x2) - bend;
      paths.push([kind, `M${one.x} ${y1}C${aside} ${y1} ${aside} ${y2} ${x2} ${y2}`]);
    }
  };
  const pairs = [];
  for (const action of actions) {
    if (graph.places.has(action.index)) for (const other of upstream(action)) if (graph.places.has(other)) pairs.push([other, action.index]);
  }
  if (pairs.length <= MOST_EDGES) for (const [from, to] of pairs) add(from, to, "any");
  const path = data.critical;
  for (let at = 1; at < path.length; at += 1) add(path[at - 1], path[at], "critical");
  if (focus >= 0) {
    for (const other of upstream(actions[focus])) add(other, focus, "needs");
    for (const other of downstream(actions[focus])) add(focus, other, "needed");
  }
  const byKind = new Map();
  for (const [kind, d] of paths) byKind.set(kind, (byKind.get(kind) ?? "") + d);
  graph.edges.replaceChildren(...["any", "critical", "needs", "needed"].filter((kind) => byKind.has(kind)).map((kind) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "path");
    made.setAttribute("class", kind);
    made.setAttribute("d", byKind.get(kind));
    return made;
  }));
}

function markNodes() {
  const near = state.selected >= 0 ? new Set([...upstream(actions[state.selected]), ...downstream(actions[state.selected])]) : null;
  for (const [index, node] of graph.nodes) {
    node.classList.toggle("dim", !matches(index));
    node.classList.toggle("near", near !== null && near.has(index));
    const chosen = index === state.selected;
    node.classList.toggle("chosen", chosen);
    if (chosen) node.setAttribute("aria-current", "true");
    else if (node.hasAttribute("aria-current")) node.removeAttribute("aria-current");
  }
}

// -- going about in it ---------------------------------------------------------------------------------------------

function setCurrent(index) {
  graph.nodes.get(graph.current)?.setAttribute("tabindex", "-1");
  graph.current = index;
  graph.nodes.get(index)?.setAttribute("tabindex", "0");
}

function reveal(index) {
  const place = graph.places.get(index);
  const box = graph.scroller;
  if (!place) return;
  const left = graph.head;
  if (place.x - left < box.scrollLeft + 8) box.scrollLeft = place.x - left - 24;
  else if (place.x + place.w > box.scrollLeft + box.clientWidth - 8) box.scrollLeft = place.x + place.w - box.clientWidth + 24;
  if (place.y < box.scrollTop + LANE.names + 8) box.scrollTop = place.y - 40;
  else if (place.y + place.h > box.scrollTop + box.clientHeight - 8) box.scrollTop = place.y + place.h - box.clientHeight + 40;
}

function focusNode(index) {
  const node = graph.nodes.get(index);
  if (!node) return false;
  setCurrent(index);
  reveal(index);
  node.focus({ preventScroll: true });
  const box = node.getBoundingClientRect();
  if (box.top < 70 || box.bottom > innerHeight - 10) node.scrollIntoView({ block: "nearest", behavior: "instant" });
  return true;
}

/** The nearest action in a direction: what lies straight ahead comes before what lies aside. */
function neighbour(from, [dx, dy]) {
  const here = graph.places.get(from);
  const middle = (place) => [place.x + place.w / 2, place.y + place.h / 2];
  const [x, y] = middle(here);
  let best = -1;
  let least = Infinity;
  for (const [index, place] of graph.places) {
    if (index === from || !matches(index)) continue;
    const [px, py] = middle(place);
    const ahead = (px - x) * dx + (py - y) * dy;
    const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    if (ahead < 4) continue;
    const cost = ahead + aside * (dx ? 4 : 2.5);
    if (cost < least) [best, least] = [index, cost];
  }
  return best;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function graphKey(event) {
  const node = event.target.closest(".node");
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  const index = Number(node.dataset.i);
  const shown = [...graph.places.keys()].filter(matches);
  if (event.key in ARROWS) focusNode(neighbour(index, ARROWS[event.key]));
  else if (event.key === "Home") focusNode(shown[0]);
  else if (event.key === "End") focusNode(shown[shown.length - 1]);
  else if (event.key === "Enter" && state.selected === index) select(index, { from: "enter" });
  else return;
  event.preventDefault();
}

function graphClick(event) {
  const node = event.target.closest(".node");
  if (!node) return;
  setCurrent(Number(node.dataset.i));
  hideTip();
  select(Number(node.dataset.i), { from: "graph" });
}

function graphOver(event) {
  const node = event.target.closest(".node");
  if (!node) return;
  const action = actions[Number(node.dataset.i)];
  showTip(node.getBoundingClientRect(), action);
  if (state.selected < 0) drawEdges(action.index);
}

function graphFocus(event) {
  const node = event.target.closest(".node");
  if (!node) return;
  setCurrent(Number(node.dataset.i));
  if (node.matches(":focus-visible")) {
    if (node.classList.contains("card")) hideTip();
    else showTip(node.getBoundingClientRect(), actions[graph.current]);
    if (state.selected < 0) drawEdges(graph.current);
  }
}

on("select", (index, { from }) => {
  if (index >= 0 && from !== "graph" && graph.scroller) {
    if (!graph.places.has(index)) {
      graph.folded.delete(actions[index].group);
      graph.everything ||= !moved(actions[index]);
      for (const pressed of $("graph").querySelectorAll(".switch button")) {
        pressed.setAttribute("aria-pressed", String(pressed.matches(":first-child") === graph.everything));
      }
      drawGraph();
    }
    setCurrent(index);
    reveal(index);
  }
  markNodes();
  drawEdges();
  // On a small window the details cover what is below.
  if (index >= 0 && from === "graph") graph.nodes.get(index)?.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
});
on("search", markNodes);
