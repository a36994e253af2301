// The data, how it is said, and how elements are made of it: always by text, never by markup.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);

const OUTCOMES = {
  executed: { word: "executed", mark: "\u25cf" },
  failed: { word: "failed", mark: "\u2717" },
  skipped: { word: "skipped", mark: "\u2013" },
  cached: { word: "cached", mark: "\u25c6" },
  remote: { word: "remote", mark: "\u25b2" },
  up_to_date: { word: "up to date", mark: "\u2713" },
  outside: { word: "not asked for", mark: "\u25cb" },
  unknown: { word: "not done", mark: "\u25cb" },
};
const MOVED = new Set(["executed", "failed", "skipped", "cached", "remote"]);

const REASONS = {
  "first-build": "Never built here before",
  "definition-changed": "Made in another way",
  "rule-changed": "Strata makes this in another way",
  "tool-changed": "A tool has another version",
  "parameter-changed": "A setting changed",
  "env-changed": "An environment variable changed",
  "platform-changed": "Made for, or on, another platform",
  "input-changed": "An input changed",
  "input-added": "An input was added",
  "input-removed": "An input was removed",
  "upstream-changed": "The output of another action changed",
  "output-missing": "The output was not in its place",
  "output-tampered": "The output had been changed in its place",
  forced: "Asked for in any case",
  volatile: "Done in every build",
  "salt-changed": "The operator began a new epoch",
  "cache-entry-missing": "No cache had the result",
  "cache-entry-corrupt": "The cache's entry could not be believed",
  "cache-blob-lost": "The cache had lost the content",
  "cache-untrusted": "The cache that had it is not trusted",
  evicted: "The cache had dropped it",
  "previous-failed": "Failed the last time",
  "racy-input": "An input changed while it was read",
};

const why = ([code, subject, old, now, own]) => ({ code, subject, old, new: now, own });

const actions = data.actions.map((row, index) => {
  const [label, mnemonic, group, outcome, column, seconds, bytes, needs, deciders, key, output, cutOff, because] = row;
  const [sources, places, reasons, more, above] = row.slice(13);
  return {
    index, label, mnemonic, group, column, seconds, bytes, needs, deciders, key, output, cutOff, because, sources,
    places, more, above, reasons: reasons.map(why), outcome: data.outcomes[outcome], neededBy: [], decides: [],
    critical: false,
  };
});
for (const action of actions) {
  for (const other of action.needs) actions[other].neededBy.push(action.index);
  for (const other of action.deciders) actions[other].decides.push(action.index);
}
for (const index of data.critical) actions[index].critical = true;
const earlier = data.earlier.map(([label, run, started, reasons, above]) => {
  return { label, run, started, reasons: reasons.map(why), above };
});
const moved = (action) => MOVED.has(action.outcome);
const step = (number) => (number < actions.length ? actions[number] : earlier[number - actions.length]);
const upstream = (action) => [...new Set([...action.needs, ...action.deciders])];
const downstream = (action) => [...new Set([...action.neededBy, ...action.decides])];

// -- words ---------------------------------------------------------------------------------------------------------

function duration(seconds) {
  if (seconds < 0.0005) return "0 ms";
  if (seconds < 0.1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (bytes >= 999.95 && power < units.length - 1) {
    bytes /= 1000;
    power += 1;
  }
  return power ? `${bytes.toFixed(1)} ${units[power]}` : `${bytes} B`;
}

const percent = (part, whole) => (whole > 0 ? `${Math.round((100 * part) / whole)} %` : "–");
const several = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const short = (text) => text.replace(/\b([0-9a-f]{12})[0-9a-f]{20,}(\/\d+)?\b/g, "$1");

/** What an action is called within its layer and column. */
function inner(action) {
  const known = [`${data.groups[action.group]}/`, `${action.mnemonic.toLowerCase()}/`].find((each) => action.label.startsWith(each));
  return known ? action.label.slice(known.length) : action.label;
}

function ended(action) {
  const word = OUTCOMES[action.outcome].word;
  return action.outcome === "executed" || action.outcome === "failed" ? `${word} in ${duration(action.seconds)}` : word;
}

function inWords(reason, label) {
  const subject = reason.subject && reason.subject !== label ? ` ${reason.subject}` : "";
  // What changed inside is the other action's own story.
  if (reason.code === "upstream-changed" && !reason.own) return `${reason.code}${subject}`;
  const sides = reason.old === null && reason.new === null ? "" : `: ${reason.old ?? "(none)"} → ${reason.new ?? "(none)"}`;
  return short(`${reason.code}${subject}${sides}`);
}

// -- elements ------------------------------------------------------------------------------------------------------

/** Make an element. `class`, `on` (handlers) and `style` (custom properties too) are told apart from attributes. */
function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else if (name === "style") for (const [key, text] of Object.entries(value)) made.style.setProperty(key, text);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const button = (content, press, given = {}) => el("button", { type: "button", on: { click: press }, ...given }, content);
const mark = (outcome) => el("span", { class: `mark o-${outcome}`, "aria-hidden": "true" }, OUTCOMES[outcome].mark);
const outcomeOf = (action) => el("span", { class: "outcome" }, mark(action.outcome), ended(action));

/** A link to an action. */
function link(action, marked = true) {
  return button([marked ? mark(action.outcome) : null, el("span", {}, action.label)], () => select(action.index, { from: "link" }), {
    class: "link",
    title: ended(action),
  });
}

function bar(part, whole, given = {}) {
  const width = whole > 0 ? Math.max(0.4, (100 * part) / whole) : 0;
  return el("span", { class: "gauge", "aria-hidden": "true" }, el("span", { ...given, style: { width: `${width}%` } }));
}

/** A list that shows its first entries, and the others when asked. */
function folded(entries, most, render, given = {}) {
  const list = el("ul", given);
  const show = (from, to) => list.append(...entries.slice(from, to).map((entry) => el("li", {}, render(entry))));
  show(0, most);
  if (entries.length > most) {
    const rest = el("li", {}, button(`and ${(entries.length - most).toLocaleString("en")} more`, () => {
      rest.remove();
      show(most, entries.length);
      list.children[most]?.querySelector("button")?.focus();
    }, { class: "more" }));
    list.append(rest);
  }
  return list;
}

const say = (text) => {
  $("live").textContent = text;
};

// -- what is selected, and what is searched for --------------------------------------------------------------------

const state = { selected: -1, terms: [], matches: null, printing: false };
const listeners = { select: [], search: [], theme: [] };
const on = (what, listener) => listeners[what].push(listener);
const tell = (what, ...given) => listeners[what].forEach((listener) => listener(...given));

function select(index, given = {}) {
  state.selected = index;
  tell("select", index, given);
  if (index >= 0) say(`${actions[index].label}, ${ended(actions[index])}`);
}

let haystacks = null;
function haystack(action) {
  haystacks ??= actions.map((each) => {
    const reasons = each.reasons.map((reason) => `${reason.code} ${reason.subject}`).join(" ");
    return `${each.label} ${each.mnemonic} ${OUTCOMES[each.outcome].word} ${reasons}`.toLowerCase();
  });
  return haystacks[action.index];
}

function search(text) {
  state.terms = text.toLowerCase().split(/\s+/).filter(Boolean);
  state.matches = state.terms.length
    ? new Set(actions.filter((each) => state.terms.every((term) => haystack(each).includes(term))).map((e) => e.index))
    : null;
  tell("search");
}
const matches = (index) => state.matches === null || state.matches.has(index);
