// What is told in numbers and lists: the outcome, causes, what was slow, what if, sizes, messages, all actions.

const rest = (text) => el("p", { class: "soft" }, text);

function tile(name, value, note) {
  return el("div", { class: "figure" }, el("dt", {}, name), el("dd", {}, el("b", {}, value), note ? el("small", {}, note) : null));
}

function fillOutcome() {
  const { head } = data;
  const good = head.exit_code === 0;
  const stopped = head.exit_code === 130;
  const word = stopped ? "interrupted" : good ? (head.idle ? "nothing to do" : "done") : "failed";
  $("badge").append(mark(good ? (head.idle ? "up_to_date" : "executed") : stopped ? "skipped" : "failed"), word);
  $("badge").classList.add(good ? "good" : stopped ? "stopped" : "bad");
  $("outcome-title").replaceChildren(el("code", {}, `strata ${head.command.join(" ")}`));
  document.title = `${word}: strata ${head.command.join(" ")}`;
  const count = (name) => head.counts[name] ?? 0;
  const total = Object.values(head.counts).reduce((sum, each) => sum + each, 0);
  const hits = count("cached") + count("remote");
  const asked = hits + count("executed") + count("failed");
  const started = new Date(head.started);
  const when = Number.isNaN(started.getTime()) ? head.started : started.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
  const strip = el("div", { class: "strip tall", "aria-hidden": "true" });
  const shown = data.outcomes.filter(count);
  for (const name of shown) strip.append(el("span", { class: `o-${name}`, style: { "flex-grow": count(name) } }));
  const settings = Object.entries(head.settings).map(([name, value]) => `${name} ${value}`).join(", ");
  $("outcome").append(...[
    head.idle ? el("p", { class: "nothing" }, mark("up_to_date"), `Nothing had to be done: ${several(total, "action")} ${total === 1 ? "was" : "were"} up to date.`) : null,
    strip,
    el("ul", { class: "legend" }, shown.map((name) => el("li", {}, mark(name), `${count(name).toLocaleString("en")} ${OUTCOMES[name].word}`))),
    el("dl", { class: "figures" },
      tile("Took", duration(head.seconds), when),
      tile("Not done again", percent(count("up_to_date") + hits, total), `${(count("up_to_date") + hits).toLocaleString("en")} of ${several(total, "action")}`),
      tile("Cache rate", asked ? percent(hits, asked) : "–", asked ? `${hits.toLocaleString("en")} of ${asked.toLocaleString("en")} that were not up to date` : "nothing was asked of it"),
      tile("Critical path", duration(head.critical), `${several(data.critical.length, "action")}, ${percent(Math.min(head.critical, head.seconds), head.seconds)} of the time`),
      tile("Work", duration(head.busy), head.seconds > 0 ? `${(head.busy / head.seconds).toFixed(1)} at once on average` : ""),
    ),
    el("dl", { class: "facts" }, [
      ["Build", head.run], ["Started", head.started], ["Revision", head.revision.slice(0, 12)], ["Settings", settings],
      ["Strata", head.version], ["Machine", head.platform], ["Exit code", head.exit_code ? String(head.exit_code) : ""],
    ].filter(([, value]) => value).map(([name, value]) => el("div", {}, fact(name, value)))),
  ].filter(Boolean));
}

// -- causes --------------------------------------------------------------------------------------------------------

function causes() {
  if (!data.roots.length) return null;
  const roots = data.roots.map(([reason, labels, count, seconds]) => ({ reason: why(reason), labels, count, seconds }));
  const first = roots.filter((root) => root.reason.code === "first-build");
  const others = roots.filter((root) => root.reason.code !== "first-build");
  const most = Math.max(...roots.map((root) => root.seconds), 0.001);
  const byLabel = new Map(actions.map((action) => [action.label, action]));
  const named = (label) => (byLabel.has(label) ? link(byLabel.get(label)) : el("span", {}, label));
  const cost = (root) => el("div", { class: "cost" }, bar(root.seconds, most, { class: "cost-bar" }),
    `${several(root.count, "action")} ran because of it, ${duration(root.seconds)} together`);
  const item = (root) => el("div", { class: "rootcause" },
    reasonItem({ ...root.reason, own: false }, root.labels[0]), cost(root),
    el("div", { class: "reached" }, "It reached first ", folded(root.labels, 4, named, { class: "inline" })));
  const firstItem = (root) => el("div", { class: "rootcause first" }, folded(root.labels, 4, named, { class: "inline" }), cost(root));
  const parts = [];
  if (others.length) parts.push(folded(others, 10, item, { class: "plain causes" }));
  if (first.length) {
    const text = `${several(first.length + (others.length ? 0 : data.more_roots), "action")} had never been built here, and what needs them`;
    parts.push(el("details", { open: !others.length && first.length <= 6 }, el("summary", {}, text), folded(first, 12, firstItem, { class: "plain" })));
  }
  if (data.more_roots) parts.push(rest(`and ${several(data.more_roots, "root cause")} more, each with less`));
  return el("section", { id: "causes", "aria-labelledby": "causes-title" }, el("h2", { id: "causes-title" }, "Root causes"), ...parts);
}

function messages() {
  if (!data.messages.length) return null;
  const byLabel = new Map(actions.map((action) => [action.label, action]));
  const order = [...data.messages].sort((a, b) => (a.severity === "warning") - (b.severity === "warning"));
  return el("section", { id: "messages", "aria-labelledby": "messages-title" },
    el("h2", { id: "messages-title" }, "Failures and warnings"),
    folded(order, 8, (message) => [
      byLabel.has(message.label) ? link(byLabel.get(message.label)) : null, messageItem(message)].filter(Boolean), { class: "plain" }));
}

// -- slow, and what if ---------------------------------------------------------------------------------------------

function slowest() {
  const ran = actions.filter((action) => action.seconds >= 0.0005).sort((a, b) => b.seconds - a.seconds).slice(0, 10);
  if (!ran.length) return null;
  return el("section", { id: "slowest", "aria-labelledby": "slowest-title" },
    el("h2", { id: "slowest-title" }, "Slowest actions"),
    el("ol", { class: "bars" }, ran.map((action) => el("li", {},
      link(action), bar(action.seconds, ran[0].seconds, { class: `o-${action.outcome}` }),
      el("span", { class: "number" }, duration(action.seconds)),
      el("small", {}, action.critical ? "on the critical path" : "")))));
}

function whatIf() {
  const given = data.what_if;
  if (!given) return null;
  const byLabel = new Map(actions.map((action) => [action.label, action]));
  const most = Math.max(...given.others.map(([, seconds]) => seconds), 0.001);
  const now = given.workers[given.pool];
  const rows = given.others.filter(([count]) => count !== 0);
  if (now && !rows.some(([count]) => count === now)) rows.push([now, given.played]);
  rows.sort((a, b) => a[0] - b[0]);
  const crowd = el("ol", { class: "bars" }, [...rows, [0, given.unbounded]].map(([count, seconds]) => {
    const name = count === 0 ? "infinite workers" : `${count} ${given.pool} ${count === 1 ? "worker" : "workers"}`;
    const is = count !== 0 && count === now;
    return el("li", { class: is ? "now" : "" }, el("span", {}, name, is ? el("em", {}, " as it was") : null),
      bar(seconds, most, { class: "plain-bar" }), el("span", { class: "number" }, duration(seconds)), el("small", {}, ""));
  }));
  const saved = given.savings.map(([name, kind, takes, here, unbounded]) => el("tr", {},
    el("th", { scope: "row" }, !kind && byLabel.has(name) ? link(byLabel.get(name)) : kind ? `every ${name}` : name),
    el("td", {}, duration(takes)), el("td", {}, here === null ? "–" : duration(here)), el("td", {}, duration(unbounded))));
  return el("section", { id: "whatif", "aria-labelledby": "whatif-title" },
    el("h2", { id: "whatif-title" }, "What if"),
    el("div", { class: "halves" },
      el("div", {}, el("h3", {}, "there were more workers?"), crowd),
      el("div", {}, el("h3", {}, "results had been in a cache?"),
        saved.length ? el("div", { class: "wide" }, el("table", {},
          el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Result"), el("th", { scope: "col" }, "Takes"),
            el("th", { scope: "col" }, "Saves"), el("th", { scope: "col" }, "With infinite workers"))),
          el("tbody", {}, saved))) : rest("Nothing would have saved time."))),
    rest("The build played again by the scheduler's rules with the durations that were measured, as if nothing took longer because more ran at once."));
}

// -- sizes ---------------------------------------------------------------------------------------------------------

function sizes() {
  if (!data.weights.length) return null;
  const layers = data.weights.map(([group, bytes, parts, archives]) => ({ group, bytes, parts, archives }));
  const most = Math.max(...layers.map((layer) => layer.bytes), 1);
  const packages = new Map();
  for (const layer of layers) for (const [name, bytes] of layer.parts) {
    const known = packages.get(name) ?? { name, bytes: 0, layers: [] };
    known.bytes += bytes;
    known.layers.push(layer.group);
    packages.set(name, known);
  }
  const largest = [...packages.values()].sort((a, b) => b.bytes - a.bytes);
  const line = (name, bytes, top, note, more = note) => [el("span", { title: name }, name), bar(bytes, top, { class: "plain-bar" }),
    el("span", { class: "number" }, size(bytes)), el("small", { title: more }, note)];
  const layerItem = (layer) => {
    const note = layer.archives.length ? `${layer.archives.map(([, bytes]) => size(bytes)).join(", ")} archived` : "";
    const more = layer.archives.map(([name, bytes]) => `${name}: ${size(bytes)}`).join(", ");
    if (!layer.parts.length) return el("div", { class: "line" }, line(layer.group, layer.bytes, most, note, more));
    const parts = [...layer.parts].sort((a, b) => b[1] - a[1]);
    return el("details", {}, el("summary", { class: "line" }, line(layer.group, layer.bytes, most, note, more)),
      folded(parts, 15, ([name, bytes]) => el("div", { class: "line" }, line(name, bytes, parts[0][1], percent(bytes, layer.bytes))), { class: "plain inside" }));
  };
  const both = [el("div", {}, el("h3", {}, "Layers"), folded(layers, 25, layerItem, { class: "plain sizes" }))];
  if (largest.length) both.push(el("div", {}, el("h3", {}, "Packages"), folded(largest, 12, (each) =>
    el("div", { class: "line" }, line(each.name, each.bytes, largest[0].bytes, each.layers.length > 1 ? `in ${each.layers.length} layers` : each.layers[0], each.layers.join(", "))), { class: "plain sizes" })));
  return el("section", { id: "sizes", "aria-labelledby": "sizes-title" },
    el("h2", { id: "sizes-title" }, "Sizes"), el("div", { class: "halves" }, both));
}

// -- all actions ---------------------------------------------------------------------------------------------------

const table = { by: "seconds", down: true, hidden: new Set(), shown: 50, body: null, count: null };

const COLUMNS = [
  ["outcome", "Outcome", (action) => RANKS[action.outcome], (action) => el("span", { class: "outcome" }, mark(action.outcome), OUTCOMES[action.outcome].word)],
  ["label", "Action", (action) => action.label, (action) => link(action, false)],
  ["mnemonic", "Kind", (action) => action.mnemonic, (action) => action.mnemonic],
  ["why", "Why", (action) => action.reasons[0]?.code ?? "", (action) => (action.reasons.length ? inWords(action.reasons[0], action.label) : "")],
  ["seconds", "Seconds", (action) => action.seconds, (action) => (action.seconds >= 0.0005 ? duration(action.seconds) : "")],
  ["bytes", "Size", (action) => action.bytes, (action) => (action.bytes ? size(action.bytes) : "")],
];

function startTable() {
  const counts = data.outcomes.map((name) => [name, actions.filter((each) => each.outcome === name).length]).filter(([, n]) => n);
  const chips = counts.length < 2 ? [] : counts.map(([name, count]) => {
    const chip = button([mark(name), `${count.toLocaleString("en")} ${OUTCOMES[name].word}`], () => {
      if (table.hidden.has(name)) table.hidden.delete(name);
      else table.hidden.add(name);
      chip.setAttribute("aria-pressed", String(!table.hidden.has(name)));
      fillTable();
    }, { "aria-pressed": "true" });
    return chip;
  });
  const headers = COLUMNS.map(([name, title]) => el("th", { scope: "col", "data-by": name, class: `c-${name}` }, button(title, () => {
    table.down = table.by === name ? !table.down : name === "seconds" || name === "bytes";
    table.by = name;
    fillTable();
  })));
  table.body = el("tbody", { on: { keydown: tableKey } });
  table.count = el("p", { class: "soft" });
  return el("section", { id: "actions", "aria-labelledby": "actions-title" },
    el("div", { class: "title" }, el("h2", { id: "actions-title" }, "Actions"), el("div", { class: "tools chips", role: "group", "aria-label": "Outcomes shown" }, chips)),
    el("div", { class: "wide" }, el("table", { class: "actions" }, el("thead", {}, el("tr", {}, headers)), table.body)), table.count);
}

function fillTable() {
  const [, , value] = COLUMNS.find(([name]) => name === table.by);
  const sign = table.down ? -1 : 1;
  const rows = actions.filter((action) => matches(action.index) && !table.hidden.has(action.outcome));
  const keys = new Map(rows.map((action) => [action, value(action)]));
  rows.sort((a, b) => {
    const [one, other] = [keys.get(a), keys.get(b)];
    return (one < other ? -sign : one > other ? sign : 0) || RANKS[a.outcome] - RANKS[b.outcome] || a.index - b.index;
  });
  for (const header of $("actions").querySelectorAll("th[data-by]")) {
    header.setAttribute("aria-sort", header.dataset.by === table.by ? (table.down ? "descending" : "ascending") : "none");
  }
  const shown = rows.slice(0, table.shown);
  table.body.replaceChildren(...shown.map((action) => el("tr", { "data-i": action.index, class: action.index === state.selected ? "chosen" : "" },
    COLUMNS.map(([name, , , cell]) => el("td", { class: `c-${name}` }, cell(action))))));
  table.count.replaceChildren(`${shown.length.toLocaleString("en")} of ${several(rows.length, "action")}`);
  if (rows.length > shown.length) table.count.append(" ", button("Show 400 more", () => {
    table.shown += 400;
    fillTable();
  }, { class: "more" }));
}

function tableKey(event) {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const row = event.target.closest("tr");
  const next = event.key === "ArrowDown" ? row?.nextElementSibling : row?.previousElementSibling;
  next?.querySelector("button")?.focus();
  event.preventDefault();
}

on("select", (index) => {
  for (const row of table.body?.children ?? []) row.classList.toggle("chosen", Number(row.dataset.i) === index);
});
on("search", () => {
  table.shown = 50;
  if (table.body) fillTable();
});
