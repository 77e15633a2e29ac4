// The list of the last changes. Whatever a name holds, it is put in as text, and isolated, so that it cannot turn the line around.

import { ago, exact, moment } from "./words.js";

const MOST = 20;

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const isolated = (text) => element("bdi", "", text);
const unseen = (text) => element("span", "unseen", text);

function person(row) {
  const name = [row.first_name, row.last_name].filter(Boolean).join(" ");
  const id = element("span", "quiet", `person ${row.person_id}`);
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
  const told = row.confirmed_by ? `${row.source} + ${row.confirmed_by}` : row.source;
  const by = element("span", "by", key, told);
  by.title = row.confirmed_by ? `first seen by ${row.source}, confirmed by ${row.confirmed_by}` : `first seen by ${row.source}`;
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

export class Changes {
  #list;
  #none;
  #announcer;
  #rows = new Map();

  constructor(list, none, announcer) {
    this.#list = list;
    this.#none = none;
    this.#announcer = announcer;
  }

  /** Show these rows, newest first, in place of all. */
  replace(rows, now) {
    const kept = this.#rows;
    this.#rows = new Map();
    for (const row of rows.slice(0, MOST)) {
      const item = this.#item(row, now);
      // A mark that a row has got since it came stays with it.
      for (const mark of ["fresh", "corrected"]) if (kept.get(row.id)?.classList.contains(mark)) this.#mark(item, mark);
      this.#rows.set(row.id, item);
    }
    this.#list.replaceChildren(...this.#rows.values());
    this.#none.hidden = this.#rows.size > 0;
  }

  recorded(row, now) {
    const item = this.#item(row, now);
    this.#mark(item, "fresh");
    const old = this.#rows.get(row.id);
    if (old) old.replaceWith(item);
    else this.#list.prepend(item);
    this.#rows.set(row.id, item);
    if (this.#rows.size > MOST) this.#forget(Math.min(...this.#rows.keys()));
    this.#none.hidden = true;
    this.#announcer.textContent = `New: ${item.textContent}`;
  }

  corrected(row, now) {
    const old = this.#rows.get(row.id);
    if (!old) return;
    const item = this.#item(row, now);
    this.#mark(item, "fresh");
    this.#mark(item, "corrected");
    old.replaceWith(item);
    this.#rows.set(row.id, item);
  }

  #item(row, now) {
    const item = element("li", "change", when(row, now), " ", person(row), " ", move(row), " ", seenBy(row));
    item.dataset.id = row.id;
    return item;
  }

  #mark(item, mark) {
    item.classList.add(mark);
    if (mark === "corrected") item.querySelector(".move").append(element("span", "note", " corrected"));
  }

  #forget(id) {
    this.#rows.get(id).remove();
    this.#rows.delete(id);
  }
}
