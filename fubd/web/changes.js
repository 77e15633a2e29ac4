// The list of the last changes. Names are inserted as text and in a bdi element, so that no character in them can reverse the line.

import { fubLink, personButton } from "./people.js";
import { ago, exact, moment } from "./words.js";

const MAX_ROWS = 20;

function element(name, className, ...children) {
  const created = document.createElement(name);
  if (className) created.className = className;
  created.append(...children);
  return created;
}

// An adopted table may have rows of other writers with any column empty.
const isolated = (text) => element("bdi", "", text ?? "–");
const visuallyHidden = (text) => element("span", "visually-hidden", text);

function person(row) {
  const name = [row.first_name, row.last_name].filter(Boolean).join(" ");
  const isKnown = /^\d+$/.test(row.person_id ?? "");
  const shown = isKnown ? [personButton(row.person_id, name), " "] : name ? [element("span", "name", isolated(name)), " "] : [];
  return element("span", "person", ...shown, fubLink(row.person_id));
}

function stages(row) {
  const to = isolated(row.stage_to);
  if (row.stage_from === null) return element("span", "move", to, element("span", "note", " first known stage"));
  const arrow = element("span", "arrow", " → ");
  arrow.setAttribute("aria-hidden", "true");
  return element("span", "move", isolated(row.stage_from), arrow, visuallyHidden(" to "), to);
}

function sourceOf(row) {
  const key = element("span", `key ${row.source === "polling" ? "polling" : "webhook"}`);
  key.setAttribute("aria-hidden", "true");
  const source = row.source ?? "unknown";
  const sources = row.confirmed_by ? `${source} + ${row.confirmed_by}` : source;
  const by = element("span", "by", key, sources);
  by.title = row.confirmed_by ? `first seen by ${source}, confirmed by ${row.confirmed_by}` : `first seen by ${source}`;
  return by;
}

function timeOf(row, now) {
  const time = element("time", "", (row.changed_after ? "≤ " : "") + moment(row.changed_at, now));
  time.dateTime = row.changed_at;
  time.title = row.changed_after
    ? `between ${exact(row.changed_after)} and ${exact(row.changed_at)}`
    : `${exact(row.changed_at)}, ${ago(row.changed_at, now)}`;
  return time;
}

/** Return whether the change itself differs, not only what is known about it. */
const isDifferent = (row, before) =>
  ["stage_from", "stage_to", "changed_at", "changed_after"].some((column) => row[column] !== before[column]);

export class Changes {
  #list;
  #emptyText;
  #announcer;
  #shown = new Map(); // id -> { row, item }
  #filter = {}; // column -> value
  #isExtended = false; // older rows were added, or a filter is set: the list is no longer the latest rows

  constructor(list, emptyText, announcer) {
    this.#list = list;
    this.#emptyText = emptyText;
    this.#announcer = announcer;
  }

  get rows() {
    return [...this.#list.children].map((item) => this.#shown.get(Number(item.dataset.id)).row);
  }

  get isExtended() {
    return this.#isExtended;
  }

  /** Show only rows with these values from now on: the given ones, newest first. */
  choose(filter, rows, now) {
    this.#filter = filter;
    this.#isExtended = Object.keys(filter).length > 0;
    this.replace(rows, now);
  }

  /** Add older rows at the end. */
  extend(rows, now) {
    this.#isExtended = true;
    for (const row of rows.filter(({ id }) => !this.#shown.has(id))) {
      const shown = this.#itemFor(undefined, row, now);
      this.#shown.set(row.id, shown);
      this.#list.append(shown.item);
    }
  }

  /** Show these rows, newest first, instead of the present ones. Items that did not change stay the same elements and keep their marks. */
  replace(rows, now) {
    const before = this.#shown;
    this.#shown = new Map();
    for (const row of this.#isExtended ? rows : rows.slice(0, MAX_ROWS)) this.#shown.set(row.id, this.#itemFor(before.get(row.id), row, now));
    let next = this.#list.firstElementChild;
    for (const { item } of this.#shown.values()) {
      if (item === next) next = next.nextElementSibling;
      else this.#list.insertBefore(item, next);
    }
    while (next) {
      const gone = next;
      next = next.nextElementSibling;
      gone.remove();
    }
    this.#emptyText.hidden = this.#shown.size > 0;
    this.#emptyText.textContent = this.#isExtended ? "No such change." : "No change recorded yet.";
  }

  recorded(row, now) {
    const before = this.#shown.get(row.id);
    if (!before && Object.entries(this.#filter).some(([column, value]) => row[column] !== value)) return;
    const shown = this.#itemFor(before, row, now);
    this.#shown.set(row.id, shown);
    if (before) return;
    shown.item.classList.add("fresh");
    this.#list.prepend(shown.item);
    if (!this.#isExtended && this.#shown.size > MAX_ROWS) this.#remove(this.#list.lastElementChild);
    this.#emptyText.hidden = true;
    this.#announcer.textContent = `New: ${shown.item.innerText}`;
  }

  corrected(row, now) {
    const before = this.#shown.get(row.id);
    if (before) this.#shown.set(row.id, this.#itemFor(before, row, now));
  }

  removed({ id }) {
    const shown = this.#shown.get(id);
    if (shown) this.#remove(shown.item);
  }

  #itemFor(before, row, now) {
    if (before && JSON.stringify(before.row) === JSON.stringify(row)) return before;
    const item = element("li", "change", timeOf(row, now), " ", person(row), " ", stages(row), " ", sourceOf(row));
    item.dataset.id = row.id;
    if (before) {
      if (before.item.classList.contains("corrected") || isDifferent(row, before.row)) {
        item.classList.add("corrected");
        item.querySelector(".move").append(element("span", "note", " corrected"));
      }
      if (isDifferent(row, before.row)) item.classList.add("fresh");
      before.item.replaceWith(item);
    }
    return { row, item };
  }

  #remove(item) {
    item.remove();
    this.#shown.delete(Number(item.dataset.id));
  }
}

const CSV_COLUMNS = [
  ...["id", "person_id", "first_name", "last_name", "stage_from", "stage_to", "changed_at", "changed_after", "source", "confirmed_by"],
  "assigned_user_name",
];
const NAMES = new Set(["first_name", "last_name"]);

/** Return rows as CSV. A text that a spreadsheet would take for a formula gets an apostrophe. */
export function toCsv(rows, isHidingNames) {
  const cell = (value) => {
    const text = String(value ?? "").replace(/[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu, " ");
    const safe = /^\s*[=+\-@＝＋－＠]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = rows.map((row) => CSV_COLUMNS.map((column) => cell(isHidingNames && NAMES.has(column) ? "" : row[column])).join(","));
  return [CSV_COLUMNS.join(","), ...lines, ""].join("\r\n");
}
