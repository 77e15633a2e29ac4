// The chart of the last 24 hours or the last hour: webhooks above the axis, polling below, the modes underneath. It is drawn at its real
// width, so that text keeps its size on a phone. Arrow keys and the pointer select a bucket, which is described in words.

import { count, hourAndMinute, minutesOfDay, modeWords } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HALF = 78; // pixels of the highest bar on each side
const TOP = 8;
const AXIS = TOP + HALF;
const BASE = AXIS + HALF;
const RIBBON = 22;
const HEIGHT = BASE + 8 + RIBBON + 24;
const RIGHT = 30;
const FIVE_MINUTES = 300_000;
const QUARTER = 900_000;
// What the ribbon says of a time in which fubd was not at work, the later one over the earlier one.
const ABSENT = {
  blind: { name: "blind", reason: "neither webhooks nor polls worked" },
  not_recording: { name: "not recording", reason: "the database was away, or the table refused the rows" },
  not_running: { name: "not running", reason: "fubd did not run" },
};
// Minutes between two time labels: for buckets of a quarter hour and for smaller ones, on a wide and on a narrow chart.
const LABEL_MINUTES = { quarters: { wide: 180, narrow: 360 }, minutes: { wide: 10, narrow: 15 } };

function shape(name, attributes, text) {
  const created = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  if (text !== undefined) created.textContent = text;
  return created;
}

export class Timeline {
  #container;
  #readout;
  #data = null;
  #selected = null;

  constructor(container, readout) {
    this.#container = container;
    this.#readout = readout;
    new ResizeObserver(() => this.#draw()).observe(container);
  }

  show(overview) {
    const { start, bucket_seconds: seconds, by_source: bySource } = overview.change_counts;
    const webhook = bySource.webhook ?? [];
    const polling = bySource.polling ?? [];
    this.#data = {
      start: new Date(start).getTime(),
      step: seconds * 1000,
      webhook,
      polling,
      buckets: Math.max(webhook.length, polling.length),
      modes: overview.modes.map((each) => ({ ...each, since: new Date(each.since).getTime() })),
      absent: absences(overview.day),
      now: new Date(overview.now).getTime(),
    };
    if (this.#selected !== null) this.#selected = Math.min(this.#selected, this.#data.buckets - 1);
    this.#draw();
  }

  #draw() {
    const width = Math.floor(this.#container.clientWidth);
    if (!this.#data || !this.#data.buckets || width <= RIGHT) return;
    const focused = this.#container.contains(document.activeElement);
    const svg = shape("svg", {
      viewBox: `0 0 ${width} ${HEIGHT}`,
      height: HEIGHT,
      role: "slider",
      tabindex: 0,
      "aria-label": `Changes per ${this.#data.step < QUARTER ? "minute" : "quarter hour"}. Use the arrow keys to move.`,
      "aria-valuemin": 0,
      "aria-valuemax": this.#data.buckets - 1,
    });
    const inner = width - RIGHT;
    svg.append(hatch());
    this.#drawScale(svg, inner);
    this.#drawHours(svg, inner);
    this.#drawBars(svg, inner);
    this.#drawModes(svg, inner);
    this.#drawAbsent(svg, inner);
    svg.append(shape("rect", { class: "cursor", y: TOP, height: HEIGHT - TOP - 24, width: inner / this.#data.buckets, visibility: "hidden" }));
    svg.addEventListener("keydown", (event) => this.#onKey(event));
    svg.addEventListener("pointermove", (event) => this.#onPointer(event, svg, inner));
    svg.addEventListener("pointerleave", () => this.#select(null));
    svg.addEventListener("blur", () => this.#select(null));
    this.#container.replaceChildren(svg);
    if (focused) svg.focus({ preventScroll: true });
    this.#select(this.#selected);
  }

  #highest() {
    return Math.max(1, ...this.#data.webhook, ...this.#data.polling);
  }

  #drawScale(svg, inner) {
    const highest = this.#highest();
    for (const [y, label] of [[TOP, count(highest)], [AXIS, "0"], [BASE, count(highest)]]) {
      svg.append(shape("line", { class: y === AXIS ? "axis" : "grid", x1: 0, x2: inner, y1: y + 0.5, y2: y + 0.5 }));
      svg.append(shape("text", { x: inner + 6, y: y + 4 }, label));
    }
  }

  #drawHours(svg, inner) {
    const { start, step, buckets } = this.#data;
    const end = start + step * buckets;
    const labelMinutes = LABEL_MINUTES[step < QUARTER ? "minutes" : "quarters"][inner > 560 ? "wide" : "narrow"];
    // Every zone's hours begin at a multiple of five minutes.
    const tick = new Date(Math.floor(start / FIVE_MINUTES) * FIVE_MINUTES);
    for (; tick.getTime() < end; tick.setTime(tick.getTime() + FIVE_MINUTES)) {
      const x = ((tick.getTime() - start) / (end - start)) * inner;
      if (minutesOfDay(tick) % labelMinutes || x < 0) continue;
      svg.append(shape("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: BASE }));
      const anchor = x < 20 ? "start" : x > inner - 20 ? "end" : "middle";
      svg.append(shape("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, hourAndMinute(tick)));
    }
  }

  #drawBars(svg, inner) {
    const { buckets, webhook, polling } = this.#data;
    const wide = inner / buckets;
    const bar = Math.max(1, wide - Math.min(2, wide / 4));
    const highest = this.#highest();
    for (let bucket = 0; bucket < buckets; bucket += 1) {
      const x = bucket * wide;
      const up = ((webhook[bucket] ?? 0) / highest) * HALF;
      const down = ((polling[bucket] ?? 0) / highest) * HALF;
      if (up) svg.append(shape("rect", { class: "webhook", x, width: bar, y: AXIS - up, height: up, rx: 1 }));
      if (down) svg.append(shape("rect", { class: "polling", x, width: bar, y: AXIS + 1, height: down, rx: 1 }));
    }
  }

  /** Return the modes with the times in which they were in force, without those of these kinds of absence. */
  #spans(kinds) {
    const { modes, start, step, buckets, now, absent } = this.#data;
    const end = start + step * buckets;
    const spans = modes.map((each, index) => ({ ...each, from: Math.max(each.since, start), to: Math.min(modes[index + 1]?.since ?? now, end) }));
    return absent.filter(({ kind }) => kinds.includes(kind)).reduce(subtract, spans).filter((each) => each.to > each.from);
  }

  #drawModes(svg, inner) {
    const { start, step, buckets } = this.#data;
    const scale = inner / (step * buckets);
    for (const span of this.#spans(Object.keys(ABSENT))) {
      const x = (span.from - start) * scale;
      const wide = Math.max(2, (span.to - span.from) * scale);
      const words = modeWords(span.mode);
      const group = shape("g", { class: "span", "data-mode": span.mode });
      group.append(shape("rect", { x: x + 0.5, y: BASE + 8.5, width: Math.max(1, wide - 1), height: RIBBON - 1, rx: 4 }));
      const text = wide > words.name.length * 7.5 + 24 ? `${words.glyph} ${words.name}` : wide > 15 ? words.glyph : "";
      if (text) group.append(shape("text", { x: x + wide / 2, y: BASE + 8 + 15, "text-anchor": "middle" }, text));
      group.append(shape("title", {}, `${words.name} since ${hourAndMinute(span.since)}: ${span.reason}`));
      svg.append(group);
    }
  }

  #drawAbsent(svg, inner) {
    const { start, step, buckets, absent } = this.#data;
    const end = start + step * buckets;
    const scale = inner / (end - start);
    for (const { kind, from, to } of absent.filter((each) => each.to > start && each.from < end)) {
      const x = (Math.max(from, start) - start) * scale;
      const wide = Math.max(2, (Math.min(to, end) - start) * scale - x);
      const { name, reason } = ABSENT[kind];
      const group = shape("g", { class: "absent", "data-kind": kind });
      group.append(shape("rect", { x, y: BASE + 8, width: wide, height: RIBBON, rx: 4 }));
      if (wide > name.length * 7.5) group.append(shape("text", { x: x + wide / 2, y: BASE + 8 + 15, "text-anchor": "middle" }, name));
      group.append(shape("title", {}, `${name} from ${hourAndMinute(from)} to ${hourAndMinute(to)}: ${reason}`));
      svg.append(group);
    }
  }

  #onKey(event) {
    const last = this.#data.buckets - 1;
    const bucket = this.#selected ?? last + 1;
    const target = {
      ArrowLeft: bucket - 1, ArrowDown: bucket - 1, ArrowRight: bucket + 1, ArrowUp: bucket + 1,
      PageDown: bucket - 4, PageUp: bucket + 4, Home: 0, End: last,
    }[event.key];
    if (event.key === "Escape") this.#select(null);
    if (target === undefined) return;
    event.preventDefault();
    this.#select(Math.min(last, Math.max(0, target)));
  }

  #onPointer(event, svg, inner) {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const bucket = Math.floor((x / inner) * this.#data.buckets);
    this.#select(bucket >= 0 && bucket < this.#data.buckets ? bucket : null);
  }

  #select(bucket) {
    this.#selected = bucket;
    const svg = this.#container.firstElementChild;
    const cursor = svg?.querySelector(".cursor");
    if (!cursor) return;
    const text = bucket === null ? this.#describeTotal() : this.#describe(bucket);
    cursor.setAttribute("visibility", bucket === null ? "hidden" : "visible");
    if (bucket !== null) cursor.setAttribute("x", bucket * Number(cursor.getAttribute("width")));
    svg.setAttribute("aria-valuenow", bucket ?? this.#data.buckets - 1);
    svg.setAttribute("aria-valuetext", text);
    this.#readout.textContent = text;
  }

  #describeTotal() {
    const sum = (list) => list.reduce((left, right) => left + right, 0);
    return `${count(sum(this.#data.webhook))} changes seen first by webhook, ${count(sum(this.#data.polling))} by polling.`;
  }

  #describe(bucket) {
    const { start, step, webhook, polling } = this.#data;
    const from = start + step * bucket;
    const modes = this.#spans(["not_running"]).filter((each) => each.from < from + step && each.to > from).map((each) => modeWords(each.mode).name);
    const text = `${hourAndMinute(from)}–${hourAndMinute(from + step)}: ${count(webhook[bucket] ?? 0)} by webhook, ${count(polling[bucket] ?? 0)} by polling`;
    const absent = this.#data.absent.filter((each) => each.from < from + step && each.to > from).map(({ kind }) => ABSENT[kind].name);
    modes.push(...new Set(absent));
    return modes.length ? `${text} · ${modes.join(", then ").toLowerCase()}` : text;
  }
}

function subtract(spans, { from, to }) {
  return spans.flatMap((each) => [{ ...each, to: Math.min(each.to, from) }, { ...each, from: Math.max(each.from, to) }]).filter((each) => each.to > each.from);
}

function absences({ blind, absences: others }) {
  const order = Object.keys(ABSENT);
  return [...blind.map((span) => ({ kind: "blind", ...span })), ...others]
    .map(({ kind, since, until }) => ({ kind, from: new Date(since).getTime(), to: new Date(until).getTime() }))
    .sort((left, right) => order.indexOf(left.kind) - order.indexOf(right.kind));
}

function hatch() {
  const defs = shape("defs", {});
  const pattern = shape("pattern", { id: "hatch", width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(shape("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 4 }));
  defs.append(pattern);
  return defs;
}
