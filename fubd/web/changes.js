// The list of the last changes. Whatever a name holds, it is put in as text, and isolated, so that it cannot turn the line around.

import { ago, exact, moment } from "./words.js";

const MOST = 20;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// An older table may hold rows of other writers with anything left out.
const isolated = (text) => element("bdi", "", text ?? "–");
const unseen = (text) => element("span", "unseen", text);

function person(row) {
  const name = [row.first_name, row.last_name].filter(Boolean).join(" ");
  const id = element("span", "quiet", `person ${row.person_id ?? "unknown"}`);
  return element("span", "person", ...(name ? [isolated(name), " ", id] : [id]));
}

function move(row) {
  const to = isolated(row.stage_to);
  if (row.stage_from === null) return element("span", "move", to, element("span", "note", " first known stage"));
  const arrow = element("span", "arrow", " → ");
  arrow.setAttribute("aria-hidden", "true");
  return element("span", "move", isolated(row.stage_from), arrow, unseen(" to "), to);
}

function seenBy(row) {
  const key = element("span", `key ${row.source === "polling" ? "polling" : "webhook"}`);
  key.setAttribute("aria-hidden", "true");
  const source = row.source ?? "unknown";
  const told = row.confirmed_by ? `${source} + ${row.confirmed_by}` : source;
  const by = element("span", "by", key, told);
  by.title = row.confirmed_by ? `first seen by ${source}, confirmed by ${row.confirmed_by}` : `first seen by ${source}`;
  return by;
}

function when(row, now) {
  const time = element("time", "", moment(row.changed_at, now));
  time.dateTime = row.changed_at;
  time.title = row.changed_after
    ? `between ${exact(row.changed_after)} and ${exact(row.changed_at)}`
    : `${exact(row.changed_at)}, ${ago(row.changed_at, now)}`;
  return time;
}

/** Whether the change itself is another, not only better known. */
const isAnother = (row, before) => ["stage_from", "stage_to", "changed_at", "changed_after"].some((each) => row[each] !== before[each]);

export class Changes {
  #list;
  #none;
  #announcer;
  #shown = new Map(); // id -> { row, item }

  constructor(list, none, announcer) {
    this.#list = list;
    this.#none = none;
    this.#announcer = announcer;
  }

  /** Show these rows, newest first, in place of all. What stands already is not touched, so that it keeps its marks and its place. */
  replace(rows, now) {
    const before = this.#shown;
    this.#shown = new Map();
    for (const row of rows.slice(0, MOST)) this.#shown.set(row.id, this.#renewed(before.get(row.id), row, now));
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
    this.#none.hidden = this.#shown.size > 0;
    this.#none.textContent = "No change recorded yet.";
  }

  recorded(row, now) {
    const before = this.#shown.get(row.id);
    const shown = this.#renewed(before, row, now);
    this.#shown.set(row.id, shown);
    if (before) return;
    shown.item.classList.add("fresh");
    this.#list.prepend(shown.item);
    if (this.#shown.size > MOST) this.#forget(this.#list.lastElementChild);
    this.#none.hidden = true;
    this.#announcer.textContent = `New: ${shown.item.textContent}`;
  }

  corrected(row, now) {
    const before = this.#shown.get(row.id);
    if (before) this.#shown.set(row.id, this.#renewed(before, row, now));
  }

  #renewed(before, row, now) {
    if (before && JSON.stringify(before.row) === JSON.stringify(row)) return before;
    const item = element("li", "change", when(row, now), " ", person(row), " ", move(row), " ", seenBy(row));
    item.dataset.id = row.id;
    if (before) {
      if (before.item.classList.contains("corrected") || isAnother(row, before.row)) {
        item.classList.add("corrected");
        item.querySelector(".move").append(element("span", "note", " corrected"));
      }
      if (isAnother(row, before.row)) item.classList.add("fresh");
      before.item.replaceWith(item);
    }
    return { row, item };
  }

  #forget(item) {
    item.remove();
    this.#shown.delete(Number(item.dataset.id));
  }
}
