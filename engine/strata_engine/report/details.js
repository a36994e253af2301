// One action: why it was done, how far back that goes, and all that is known of it.

const CHAIN_SHOWN = 25;

function reasonItem(reason, label, chip = reason.own) {
  const subject = reason.subject && reason.subject !== label ? el("code", { class: "subject" }, reason.subject) : null;
  const sides = reason.old !== null || reason.new !== null;
  return el(
    "div",
    { class: `reason${reason.own ? " own" : ""}` },
    el("div", {}, el("b", {}, REASONS[reason.code] ?? reason.code), " ", subject,
      chip ? el("span", { class: "chip root" }, "root cause") : null),
    sides ? el("div", { class: "sides" },
      el("del", {}, el("span", { class: "unseen" }, "before: "), reason.old ?? "(none)"),
      el("ins", {}, el("span", { class: "unseen" }, "now: "), reason.new ?? "(none)")) : null,
    el("code", { class: "code" }, reason.code),
  );
}

/** The way from an action to its root causes: each step once, under the first that it explains. */
function chain(index) {
  const under = new Map([[index, []]]);
  for (const number of under.keys()) {
    for (const above of step(number).above) {
      if (under.has(above)) continue;
      under.set(above, []);
      under.get(number).push(above);
    }
  }
  const found = [];
  const waiting = [[index, 0]];
  while (waiting.length) {
    const [number, depth] = waiting.pop();
    found.push({ number, depth });
    for (const above of under.get(number).reverse()) waiting.push([above, depth + 1]);
  }
  return found.slice(1);
}

function chainItem({ number, depth }) {
  const at = step(number);
  const own = at.reasons.filter((reason) => reason.own);
  return el("li", { style: { "--depth": Math.min(depth - 1, 8) } },
    number < actions.length ? link(at) : el("span", { class: "past" }, at.label, el("small", {}, ` in build ${at.run}`)),
    own.slice(0, 6).map((reason) => el("div", { class: "cause own" }, inWords(reason, at.label))));
}

/** The root causes on the way, each once. */
function causesOf(steps) {
  const found = new Map();
  for (const { number } of steps) {
    for (const reason of step(number).reasons) {
      const text = inWords(reason, step(number).label);
      const name = reason.code === "first-build" ? reason.code : text;
      if (reason.own && !found.has(name)) found.set(name, { ...reason, own: true, subject: reason.subject || step(number).label });
    }
  }
  return [...found.values()];
}

function fact(name, ...value) {
  return value.flat().length ? [el("dt", {}, name), el("dd", {}, ...value)] : [];
}

function copyable(text) {
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(copy.previousSibling);
      copy.textContent = "Selected";
    }
  }, { class: "small" });
  return [el("code", { class: "key" }, text), copy];
}

function links(title, indexes) {
  if (!indexes.length) return null;
  return el("details", { open: indexes.length <= 12 },
    el("summary", {}, `${title} (${indexes.length.toLocaleString("en")})`),
    folded(indexes.map((each) => actions[each]), 40, (each) => link(each), { class: "plain" }));
}

function texts(title, entries) {
  if (!entries.length) return null;
  return el("details", { open: entries.length <= 6 }, el("summary", {}, `${title} (${entries.length})`),
    folded(entries, 40, (each) => el("code", {}, each), { class: "plain" }));
}

function whyOf(action) {
  if (!action.reasons.length) {
    const told = {
      cached: "Its result was in the store already.",
      remote: "Its result was in a remote cache.",
      up_to_date: "Nothing that it depends on has changed: it was not done again.",
      outside: "This build was not asked for it, nor for anything that needs it.",
      unknown: "It was not done: it was up to date, or this build was not asked for it. The record does not say which.",
    };
    const because = action.because >= 0 ? actions[action.because] : null;
    if (because) return [el("p", {}, "It was not tried because of "), link(because)];
    return [el("p", {}, told[action.outcome] ?? "No reason was recorded.")];
  }
  const steps = chain(action.index);
  const shown = steps.slice(0, CHAIN_SHOWN);
  const causes = action.reasons.some((reason) => reason.own) ? [] : causesOf(steps);
  return [
    action.reasons.map((reason) => reasonItem(reason, action.label)),
    action.more ? el("p", { class: "soft" }, `and ${several(action.more, "reason")} more`) : null,
    causes.length && steps.length > 1 ? [el("h4", {}, causes.length > 1 ? "Root causes" : "Root cause"),
      folded(causes, 4, (reason) => reasonItem(reason, "", false), { class: "plain" })] : null,
    shown.length ? el("h4", {}, "How that came about") : null,
    shown.length ? el("ol", { class: "chain" }, shown.map(chainItem)) : null,
    steps.length > shown.length ? el("p", { class: "soft" }, `and ${several(steps.length - shown.length, "action")} more on the way`) : null,
  ];
}

function messageItem(message) {
  return el("div", { class: `message ${message.severity}` },
    el("pre", { tabindex: "0", "aria-label": `${message.severity} ${message.id}` }, message.text),
    message.output ? el("details", {}, el("summary", {}, "What it printed"), el("pre", { tabindex: "0" }, message.output)) : null);
}

function drawDetails(index) {
  const panel = $("details");
  panel.replaceChildren();
  document.body.classList.toggle("selected", index >= 0);
  if (index < 0) {
    panel.append(...[
      el("p", {}, "Choose an action, in the graph, the timeline or a list, to see why it was done."),
      el("p", { class: "soft" }, "Arrow keys go from action to action, Enter chooses, / searches, ? lists the keys."),
      data.critical.length ? el("h3", {}, `Critical path, ${duration(data.head.critical)}`) : null,
      data.critical.length ? folded(data.critical.map((each) => actions[each]), 14, (each) => el("span", { class: "pair" }, link(each), el("span", { class: "number" }, duration(each.seconds))), { class: "plain" }) : null,
    ].filter(Boolean));
    return;
  }
  const action = actions[index];
  const said = data.messages.filter((message) => message.label === action.label);
  panel.append(
    el("div", { class: "head" },
      el("h2", { id: "details-title", tabindex: "-1" }, action.label),
      button("Close", closeDetails, { class: "small", "aria-label": "Close the details", "aria-keyshortcuts": "Escape" })),
    el("p", { class: "badges" }, outcomeOf(action), el("span", { class: "chip" }, action.mnemonic),
      action.critical ? el("span", { class: "chip critical" }, "on the critical path") : null,
      action.cutOff ? el("span", { class: "chip" }, "came out as before: the change stopped here") : null),
    el("h3", {}, "Why"), ...whyOf(action).flat(Infinity).filter(Boolean),
    ...said.map(messageItem),
    el("dl", {},
      fact("Layer", data.groups[action.group]),
      action.seconds ? fact("Took", duration(action.seconds)) : [],
      action.bytes ? fact("Output", size(action.bytes)) : [],
      action.output ? fact("Content", el("code", {}, action.output)) : [],
      action.key ? fact("Key", copyable(action.key)) : []),
    ...[links("Needs", action.needs), links("Is there because of", action.deciders), links("Needed by", action.neededBy),
      links("Decides about", action.decides), texts("Reads", action.sources), texts("Put at", action.places)].filter(Boolean),
  );
  panel.scrollTop = 0;
}

function closeDetails() {
  const back = state.selected;
  select(-1);
  focusNode(back);
}

on("select", (index, { from }) => {
  const inside = $("details").contains(document.activeElement);
  drawDetails(index);
  // What was pressed inside is gone: whoever works with the keyboard goes on at the title.
  if (index >= 0 && (inside || from === "enter")) $("details-title").focus({ preventScroll: true });
});
