// The last 24 hours, or the last one, as a picture: webhooks above the line, polling below it, the modes underneath. Drawn at its real width, so that text
// keeps its size on a phone. Arrow keys and the pointer move over its parts; what is under the cursor is told in words.

import { MODES, count, hourAndMinute } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const HALF = 78; // pixels for each side's highest bar
const TOP = 8;
const AXIS = TOP + HALF;
const BASE = AXIS + HALF;
const RIBBON = 22;
const HEIGHT = BASE + 8 + RIBBON + 24;
const RIGHT = 30;
const FIVE_MINUTES = 300_000;
const QUARTER = 900_000;
// Between two times that are written out, in minutes of the reader's day: for buckets of a quarter hour and of less, if there is room.
const APART = { quarters: { wide: 180, narrow: 360 }, minutes: { wide: 10, narrow: 15 } };

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export class Timeline {
  #place;
  #readout;
  #data = null;
  #at = null;

  constructor(place, readout) {
    this.#place = place;
    this.#readout = readout;
    new ResizeObserver(() => this.#draw()).observe(place);
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
      now: new Date(overview.now).getTime(),
    };
    if (this.#at !== null) this.#at = Math.min(this.#at, this.#data.buckets - 1);
    this.#draw();
  }

  #draw() {
    const width = Math.floor(this.#place.clientWidth);
    if (!this.#data || !this.#data.buckets || width <= RIGHT) return;
    const focused = this.#place.contains(document.activeElement);
    const svg = shape("svg", {
      viewBox: `0 0 ${width} ${HEIGHT}`,
      height: HEIGHT,
      role: "slider",
      tabindex: 0,
      "aria-label": `Changes by ${this.#data.step < QUARTER ? "minute" : "quarter hour"}; the arrow keys move`,
      "aria-valuemin": 0,
      "aria-valuemax": this.#data.buckets - 1,
    });
    const inner = width - RIGHT;
    svg.append(hatch());
    this.#scale(svg, inner);
    this.#hours(svg, inner);
    this.#bars(svg, inner);
    this.#ribbon(svg, inner);
    svg.append(shape("rect", { class: "cursor", y: TOP, height: HEIGHT - TOP - 24, width: inner / this.#data.buckets, visibility: "hidden" }));
    svg.addEventListener("keydown", (event) => this.#key(event));
    svg.addEventListener("pointermove", (event) => this.#point(event, svg, inner));
    svg.addEventListener("pointerleave", () => this.#move(null));
    svg.addEventListener("blur", () => this.#move(null));
    this.#place.replaceChildren(svg);
    if (focused) svg.focus({ preventScroll: true });
    this.#move(this.#at);
  }

  #highest() {
    return Math.max(1, ...this.#data.webhook, ...this.#data.polling);
  }

  #scale(svg, inner) {
    const highest = this.#highest();
    for (const [y, label] of [[TOP, count(highest)], [AXIS, "0"], [BASE, count(highest)]]) {
      svg.append(shape("line", { class: y === AXIS ? "axis" : "grid", x1: 0, x2: inner, y1: y + 0.5, y2: y + 0.5 }));
      svg.append(shape("text", { x: inner + 6, y: y + 4 }, label));
    }
  }

  #hours(svg, inner) {
    const { start, step, buckets } = this.#data;
    const end = start + step * buckets;
    const apart = APART[step < QUARTER ? "minutes" : "quarters"][inner > 560 ? "wide" : "narrow"];
    const tick = new Date(start);
    tick.setMinutes(Math.floor(tick.getMinutes() / 5) * 5, 0, 0);
    for (; tick.getTime() < end; tick.setTime(tick.getTime() + FIVE_MINUTES)) {
      const x = ((tick.getTime() - start) / (end - start)) * inner;
      if ((tick.getHours() * 60 + tick.getMinutes()) % apart || x < 0) continue;
      svg.append(shape("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: BASE }));
      const anchor = x < 20 ? "start" : x > inner - 20 ? "end" : "middle";
      svg.append(shape("text", { x, y: HEIGHT - 6, "text-anchor": anchor }, hourAndMinute(tick)));
    }
  }

  #bars(svg, inner) {
    const { buckets, webhook, polling } = this.#data;
    const wide = inner / buckets;
    const bar = Math.max(1, wide - Math.min(2, wide / 4));
    const highest = this.#highest();
    for (let at = 0; at < buckets; at += 1) {
      const x = at * wide;
      const up = ((webhook[at] ?? 0) / highest) * HALF;
      const down = ((polling[at] ?? 0) / highest) * HALF;
      if (up) svg.append(shape("rect", { class: "webhook", x, width: bar, y: AXIS - up, height: up, rx: 1 }));
      if (down) svg.append(shape("rect", { class: "polling", x, width: bar, y: AXIS + 1, height: down, rx: 1 }));
    }
  }

  #spans() {
    const { modes, start, step, buckets, now } = this.#data;
    const end = start + step * buckets;
    return modes
      .map((each, at) => ({ ...each, from: Math.max(each.since, start), to: Math.min(modes[at + 1]?.since ?? now, end) }))
      .filter((each) => each.to > each.from);
  }

  #ribbon(svg, inner) {
    const { start, step, buckets } = this.#data;
    const scale = inner / (step * buckets);
    for (const span of this.#spans()) {
      const x = (span.from - start) * scale;
      const wide = Math.max(2, (span.to - span.from) * scale);
      const known = MODES[span.mode] ?? { glyph: "?", name: span.mode };
      const group = shape("g", { class: "span", "data-mode": span.mode });
      group.append(shape("rect", { x: x + 0.5, y: BASE + 8.5, width: Math.max(1, wide - 1), height: RIBBON - 1, rx: 4 }));
      const text = wide > known.name.length * 7.5 + 24 ? `${known.glyph} ${known.name}` : wide > 15 ? known.glyph : "";
      if (text) group.append(shape("text", { x: x + wide / 2, y: BASE + 8 + 15, "text-anchor": "middle" }, text));
      group.append(shape("title", {}, `${known.name} since ${hourAndMinute(span.since)}: ${span.reason}`));
      svg.append(group);
    }
  }

  #key(event) {
    const last = this.#data.buckets - 1;
    const at = this.#at ?? last + 1;
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageDown: at - 4, PageUp: at + 4, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.#move(null);
    if (to === undefined) return;
    event.preventDefault();
    this.#move(Math.min(last, Math.max(0, to)));
  }

  #point(event, svg, inner) {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const at = Math.floor((x / inner) * this.#data.buckets);
    this.#move(at >= 0 && at < this.#data.buckets ? at : null);
  }

  #move(at) {
    this.#at = at;
    const svg = this.#place.firstElementChild;
    const cursor = svg?.querySelector(".cursor");
    if (!cursor) return;
    const told = at === null ? this.#total() : this.#words(at);
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) cursor.setAttribute("x", at * Number(cursor.getAttribute("width")));
    svg.setAttribute("aria-valuenow", at ?? this.#data.buckets - 1);
    svg.setAttribute("aria-valuetext", told);
    this.#readout.textContent = told;
  }

  #total() {
    const sum = (list) => list.reduce((left, right) => left + right, 0);
    return `${count(sum(this.#data.webhook))} changes came first by webhook, ${count(sum(this.#data.polling))} by polling.`;
  }

  #words(at) {
    const { start, step, webhook, polling } = this.#data;
    const from = start + step * at;
    const modes = this.#spans().filter((each) => each.from < from + step && each.to > from).map((each) => MODES[each.mode]?.name ?? each.mode);
    const told = `${hourAndMinute(from)}–${hourAndMinute(from + step)}: ${count(webhook[at] ?? 0)} by webhook, ${count(polling[at] ?? 0)} by polling`;
    return modes.length ? `${told} · ${modes.join(", then ").toLowerCase()}` : told;
  }
}

function hatch() {
  const defs = shape("defs", {});
  const pattern = shape("pattern", { id: "hatch", width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(shape("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 4 }));
  defs.append(pattern);
  return defs;
}
