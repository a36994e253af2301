// The timeline: a row per worker slot, on a canvas, because thousands of spans are to be zoomed smoothly.

const time = {
  canvas: null, box: null, rows: [], from: 0, to: 1, end: 1, row: 22, gutter: 112, waiting: false, hover: null, current: null,
};

function startTimeline() {
  const spans = data.spans.map(([track, action, start, seconds, label]) => ({ track, action, start, seconds, label }));
  time.end = Math.max(data.head.seconds, ...spans.map((span) => span.start + span.seconds), 0.001);
  time.to = time.end;
  const critical = spans.filter((span) => actions[span.action]?.critical && data.tracks[span.track] !== "placing");
  time.rows = [{ name: "critical path", spans: critical }, ...data.tracks.map((name, at) => ({ name, spans: spans.filter((span) => span.track === at) }))];
  time.row = time.rows.length > 26 ? 15 : 24;
  time.canvas = el("canvas", { "aria-hidden": "true" });
  time.box = el("div", {
    class: "timeline", tabindex: "0", role: "application", "aria-roledescription": "timeline",
    "aria-label": "Timeline. Left and right go from action to action, up and down from worker to worker, plus and minus zoom, 0 shows all, Enter chooses.",
    on: { keydown: timeKey, pointerdown: timePress, pointermove: timeMove, pointerleave: hideTimeTip, wheel: timeWheel },
  }, time.canvas);
  const zoomed = (factor) => () => zoom(factor);
  return el("section", { id: "timeline", "aria-labelledby": "timeline-title" },
    el("div", { class: "title" }, el("h2", { id: "timeline-title" }, "Timeline"),
      el("div", { class: "tools" },
        button("+", zoomed(0.5), { "aria-label": "Zoom in" }), button("\u2212", zoomed(2), { "aria-label": "Zoom out" }),
        button("Fit", () => look(0, time.end)))),
    spans.length ? time.box : el("p", { class: "soft" }, data.head.idle
      ? "Nothing ran."
      : data.head.traced ? "Nothing was executed or placed." : "No trace of this build is kept: those of the last 20 builds that did something are."),
    spans.length ? el("p", { class: "soft" }, "A row is a worker slot. Framed bars are on the critical path; hatched ones failed. Drag to move, Ctrl and wheel to zoom.") : null);
}

const x = (at, width) => time.gutter + ((at - time.from) / (time.to - time.from)) * (width - time.gutter - 8);
const unX = (px, width) => time.from + ((px - time.gutter) / (width - time.gutter - 8)) * (time.to - time.from);

function drawTimeline(width = time.box.clientWidth) {
  if (!time.canvas?.isConnected) return;
  const height = 24 + time.rows.length * time.row + 4;
  const ratio = window.devicePixelRatio || 1;
  const { canvas } = time;
  time.gutter = width < 640 ? 76 : 112;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  const styles = getComputedStyle(document.documentElement);
  const colour = (name) => styles.getPropertyValue(`--${name}`).trim();
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = `12px ${styles.getPropertyValue("--sans")}`;
  pen.textBaseline = "middle";
  drawTicks(pen, width, height, colour);
  time.rows.forEach((row, at) => drawRow(pen, row, 24 + at * time.row, width, colour, at === 0));
}

function drawTicks(pen, width, height, colour) {
  const span = time.to - time.from;
  const wanted = (width - time.gutter) / 90;
  const power = 10 ** Math.floor(Math.log10(span / wanted));
  const pace = [1, 2, 5, 10].map((each) => each * power).find((each) => span / each <= wanted) ?? power * 10;
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("soft");
  pen.textAlign = "center";
  for (let tick = Math.ceil(time.from / pace) * pace; tick <= time.to + pace / 1e6; tick += pace) {
    const at = Math.round(x(tick, width)) + 0.5;
    pen.beginPath();
    pen.moveTo(at, 20);
    pen.lineTo(at, height);
    pen.stroke();
    const text = pace >= 1 ? `${Math.round(tick)} s` : `${tick.toFixed(Math.max(0, Math.ceil(-Math.log10(pace))))} s`;
    pen.fillText(text, Math.min(at, width - 18), 10);
  }
  pen.textAlign = "left";
}

function drawRow(pen, row, top, width, colour, first) {
  const tall = time.row - 4;
  pen.fillStyle = colour(first ? "ink" : "soft");
  pen.fillText(row.name, 2, top + time.row / 2, time.gutter - 8);
  pen.save();
  pen.beginPath();
  pen.rect(time.gutter, top, width - time.gutter, time.row);
  pen.clip();
  let last = -1;
  for (const span of row.spans) {
    const left = x(span.start, width);
    const wide = Math.max(1.5, x(span.start + span.seconds, width) - left);
    if (left > width || left + wide < time.gutter) continue;
    const action = actions[span.action];
    const special = span === time.hover || span === time.current || (action && action.index === state.selected);
    // Of what falls on one pixel, one is drawn.
    if (!special && left + wide <= last) continue;
    last = left + wide;
    drawSpan(pen, { span, action, left, wide, top: top + 2, tall, special, placing: row.name === "placing" }, colour);
  }
  pen.restore();
}

function drawSpan(pen, { span, action, left, wide, top, tall, special, placing }, colour) {
  const outcome = action && !placing ? action.outcome : "up_to_date";
  pen.globalAlpha = action && !matches(action.index) ? 0.15 : 1;
  pen.fillStyle = colour(outcome);
  const gap = wide > 5 ? 0.75 : 0;
  pen.fillRect(left, top, wide - gap, tall);
  if (outcome === "failed") hatch(pen, left, top, wide - gap, tall, colour("card"));
  if (action?.critical && !placing && wide > 3) {
    pen.lineWidth = 2;
    pen.strokeStyle = colour("critical");
    pen.strokeRect(left + 1, top + 1, wide - gap - 2, tall - 2);
  }
  if (special) {
    pen.lineWidth = 3;
    pen.strokeStyle = colour("accent");
    pen.strokeRect(left - 0.5, top - 0.5, Math.max(3, wide - gap + 1), tall + 1);
  }
  pen.lineWidth = 1;
  if (wide > 34 && tall > 10) {
    const start = Math.max(left, time.gutter);
    pen.save();
    pen.beginPath();
    pen.rect(start, top, left + wide - start - 5, tall);
    pen.clip();
    pen.fillStyle = colour("on-outcome");
    pen.fillText(action ? action.label : span.label, start + 6, top + tall / 2 + 0.5);
    pen.restore();
  }
  pen.globalAlpha = 1;
}

function hatch(pen, left, top, wide, tall, colour) {
  pen.save();
  pen.beginPath();
  pen.rect(left, top, wide, tall);
  pen.clip();
  pen.strokeStyle = colour;
  pen.globalAlpha *= 0.45;
  pen.lineWidth = 1.5;
  pen.beginPath();
  for (let at = left - tall; at < left + wide; at += 6) {
    pen.moveTo(at, top + tall);
    pen.lineTo(at + tall, top);
  }
  pen.stroke();
  pen.restore();
}

const redraw = () => {
  if (time.waiting) return;
  time.waiting = true;
  requestAnimationFrame(() => {
    time.waiting = false;
    drawTimeline();
  });
};

// -- going about in it ---------------------------------------------------------------------------------------------

function look(from, to) {
  const least = time.end / 5000;
  const span = Math.min(time.end, Math.max(least, to - from));
  time.from = Math.max(0, Math.min(from, time.end - span));
  time.to = time.from + span;
  redraw();
}

function zoom(factor, around = (time.from + time.to) / 2) {
  look(around - (around - time.from) * factor, around + (time.to - around) * factor);
}

function spanAt(event) {
  const box = time.canvas.getBoundingClientRect();
  const at = event.clientX - box.left;
  const row = time.rows[Math.floor((event.clientY - box.top - 24) / time.row)];
  if (!row || at < time.gutter) return null;
  const moment = unX(at, box.width);
  const near = (3 / (box.width - time.gutter)) * (time.to - time.from);
  let best = null;
  let least = near;
  for (const span of row.spans) {
    const away = Math.max(span.start - moment, moment - span.start - span.seconds, 0);
    if (away < least || (away === 0 && least > 0)) [best, least] = [span, away];
  }
  return best;
}

function timeMove(event) {
  const found = spanAt(event);
  if (found !== time.hover) {
    time.hover = found;
    redraw();
  }
  time.box.style.cursor = found ? "pointer" : "";
  if (found) showTip({ left: event.clientX, right: event.clientX, top: event.clientY - 8, bottom: event.clientY + 14 }, actions[found.action] ?? found, found);
  else hideTip();
}

function hideTimeTip() {
  time.hover = null;
  hideTip();
  redraw();
}

function timePress(event) {
  if (event.button !== 0) return;
  const [startX, from, to] = [event.clientX, time.from, time.to];
  let dragged = false;
  const move = (next) => {
    dragged ||= Math.abs(next.clientX - startX) > 4;
    const away = ((startX - next.clientX) / (time.box.clientWidth - time.gutter)) * (to - from);
    if (dragged) look(from + away, to + away);
  };
  const up = (last) => {
    removeEventListener("pointermove", move);
    removeEventListener("pointerup", up);
    const found = dragged ? null : spanAt(last);
    if (found) choose(found);
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", up);
}

function timeWheel(event) {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.25 : 0.8, unX(event.clientX - time.canvas.getBoundingClientRect().left, time.box.clientWidth));
}

function choose(span) {
  time.current = span;
  if (span.action >= 0) select(span.action, { from: "timeline" });
  redraw();
}

function timeKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const rows = time.rows.filter((row) => row.spans.length);
  let at = Math.max(0, rows.findIndex((row) => row.spans.includes(time.current)));
  const row = rows[at];
  const here = row.spans.indexOf(time.current);
  const go = (span) => {
    time.current = span;
    const width = time.to - time.from;
    if (span.start < time.from || span.start > time.to) look(span.start - width / 3, span.start + (2 * width) / 3);
    const name = actions[span.action]?.label ?? span.label;
    say(`${name}, at ${duration(span.start)} for ${duration(span.seconds)}`);
    redraw();
  };
  if (event.key === "ArrowRight") go(row.spans[Math.min(here + 1, row.spans.length - 1)]);
  else if (event.key === "ArrowLeft") go(row.spans[Math.max(here - 1, 0)]);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    at = Math.max(0, Math.min(rows.length - 1, at + (event.key === "ArrowDown" ? 1 : -1)));
    const moment = time.current?.start ?? 0;
    go(rows[at].spans.reduce((best, span) => (Math.abs(span.start - moment) < Math.abs(best.start - moment) ? span : best)));
  } else if (event.key === "+" || event.key === "=") zoom(0.5, time.current?.start);
  else if (event.key === "-") zoom(2, time.current?.start);
  else if (event.key === "0") look(0, time.end);
  else if (event.key === "Enter" && time.current) choose(time.current);
  else return;
  event.preventDefault();
}

on("select", redraw);
on("search", redraw);
on("theme", redraw);
