// One person: search by name or id, and the history with its evidence in a drawer.

import { exact, moment } from "./words.js";

let peopleUrl = ""; // what a person's id follows; unknown until the first overview

/** From now on links lead to people at this address. */
export function linkPeopleTo(url) {
  peopleUrl = url;
}

function element(name, className, ...children) {
  const created = document.createElement(name);
  if (className) created.className = className;
  created.append(...children);
  return created;
}

const isolated = (text) => element("bdi", "", text ?? "–");

/** Return a link to the person in Follow Up Boss; only the id where it is no number, or no address is known. */
export function fubLink(id) {
  const text = `person ${id ?? "unknown"}`;
  if (!peopleUrl || !/^\d+$/.test(id ?? "")) return element("span", "quiet", text);
  const link = element("a", "quiet", text);
  link.href = peopleUrl + id;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  link.title = "Open in Follow Up Boss";
  return link;
}

/** Return a button that opens the history of a person. */
export function personButton(id, name) {
  const label = name ? [element("span", "name", isolated(name)), element("span", "alias", "name hidden")] : ["history"];
  const button = element("button", "open-person", ...label);
  button.type = "button";
  button.dataset.person = id;
  return button;
}

/** The history of one person. `load(path, show)` requests JSON and reports a failure on the page. */
export class Drawer {
  #dialog;
  #load;
  #now;
  #opened = null; // id of the person

  constructor(dialog, load, now) {
    this.#dialog = dialog;
    this.#load = load;
    this.#now = now;
    document.addEventListener("click", (event) => {
      const button = event.target.closest(".open-person");
      if (button) this.open(button.dataset.person);
    });
    dialog.addEventListener("close", () => this.#returnFocus());
  }

  open(id) {
    this.#opened = id;
    this.#load(`/api/person?id=${encodeURIComponent(id)}`, (found) => {
      if (this.#opened === id) this.#show(found);
    });
  }

  #show({ person, rows, older_rows: older, without_a_row: without }) {
    const title = this.#dialog.querySelector("#drawer-title");
    const name = [person.first_name, person.last_name].filter(Boolean).join(" ");
    title.replaceChildren(element("span", "name", isolated(name || null)), " ", fubLink(String(person.id)));
    const facts = [`Stage: ${person.stage ?? "unknown"}`];
    if (person.verified_at) facts.push(`verified ${moment(person.verified_at, this.#now())}`);
    if (person.gone_at) facts.push(`deleted in Follow Up Boss ${moment(person.gone_at, this.#now())}`);
    if (older) facts.push(`${older} older rows are not shown`);
    this.#dialog.querySelector("#drawer-facts").textContent = facts.join(" · ");
    const items = rows.map((row) => this.#row(row));
    if (without.length) items.push(element("li", "", element("b", "", "No change of their own"), this.#evidence(without)));
    this.#dialog.querySelector("#drawer-rows").replaceChildren(...items);
    if (!this.#dialog.open) this.#dialog.showModal();
    title.focus();
  }

  /** The browser returns the focus to the button that opened the drawer; a list that changed meanwhile has another one, or none. */
  #returnFocus() {
    if (document.activeElement !== document.body) return;
    const button = document.querySelector(`.open-person[data-person="${CSS.escape(this.#opened)}"]`);
    (button ?? document.querySelector("#changes")).focus();
  }

  #row(row) {
    const time = element("time", "quiet", (row.changed_after ? "≤ " : "") + moment(row.changed_at, this.#now()));
    time.title = row.changed_after ? `between ${exact(row.changed_after)} and ${exact(row.changed_at)}` : exact(row.changed_at);
    const stages = row.stage_from == null ? [isolated(row.stage_to)] : [isolated(row.stage_from), " → ", isolated(row.stage_to)];
    const item = element("li", "", time, " ", element("b", "", ...stages), this.#evidence(row.evidence));
    for (const { corrected_at: at } of row.corrections) item.append(element("p", "quiet small", `corrected ${moment(at, this.#now())}`));
    return item;
  }

  #evidence(claims) {
    const items = claims.map(({ channel, kind, stage, at, why }) => {
      const what = kind === "entry" ? "entered" : "in";
      return element("li", "", `${channel}: ${what} `, isolated(stage), ` at ${moment(at, this.#now())}: ${why}`);
    });
    return element("ul", "evidence small", ...items);
  }
}

/** Search for people and list them. */
export class Search {
  #list;
  #text = "";

  constructor(form, list, load) {
    this.#list = list;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = form.querySelector("input").value.trim();
      this.#text = text;
      list.hidden = !text;
      if (!text) return;
      load(`/api/people?q=${encodeURIComponent(text)}`, ({ people }) => {
        if (this.#text === text) this.#show(people);
      });
    });
  }

  #show(people) {
    const items = people.map((person) => {
      const name = [person.first_name, person.last_name].filter(Boolean).join(" ");
      const id = String(person.id);
      return element("li", "", personButton(id, name), " ", fubLink(id), " ", element("span", "quiet", isolated(person.stage ?? "stage unknown")));
    });
    this.#list.replaceChildren(...(items.length ? items : [element("li", "quiet", "Nobody found.")]));
  }
}
