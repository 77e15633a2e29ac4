// The present day in words: whether anything was missed, what holds fubd up, and how many people entered each stage.

import { changeCount, count, duration, moment } from "./words.js";

const STAGES_SHOWN = 8;

const total = (stages, name) => stages.reduce((sum, stage) => sum + stage[name], 0);

function answer(health, day, now) {
  const problems = health.problems?.length ?? 0;
  const until = health.coverage && `complete until ${moment(health.coverage, now)}`;
  if (problems) return [`${count(problems)} ${problems === 1 ? "problem needs" : "problems need"} attention`, until].filter(Boolean).join(", ");
  if (!health.coverage) return "Not known yet: the first complete poll is still to come";
  if (day.blind_seconds >= 1) return `Blind for ${duration(day.blind_seconds)} today: what came and went in that time is not recorded`;
  if (health.sources.polling?.status.startsWith("STALE")) return `Complete until ${moment(health.coverage, now)}`;
  const caught = total(day.stages, "polling_only");
  return caught ? `Nothing missed today: polling caught ${changeCount(caught)} that no webhook reported` : "Nothing missed today";
}

function entered(day) {
  // As the alerts do, it takes a stage of the settings in any case.
  const isSame = (one, other) => one.toLowerCase() === other.toLowerCase();
  const watched = day.stages.filter(({ stage }) => day.watched.some((name) => isSame(name, stage)));
  const missing = day.watched.filter((name) => !watched.some(({ stage }) => isSame(name, stage)));
  const shown = [...watched, ...missing.map((stage) => ({ stage, today: 0, yesterday: 0 }))];
  // Without any row before today nothing shows that yesterday was recorded at all.
  const hasPast = total(day.stages, "week") > total(day.stages, "today");
  const before = (number) => (hasPast ? ` (yesterday ${count(number)})` : "");
  if (!shown.length) return [`${changeCount(total(day.stages, "today"))}${before(total(day.stages, "yesterday"))}`];
  return shown.map(({ stage, today, yesterday }) => `${count(today)} entered ${stage}${before(yesterday)}`);
}

/** Return the first line of the page; `day` is null until it is known. */
export const headline = (health, day, now) => [answer(health, day, now), ...(day ? entered(day) : [])].join(" · ");

/** Return the rows of the table of stages, those with changes of the last seven days. */
export function stageRows(day) {
  return day.stages.slice(0, STAGES_SHOWN).map(({ stage, today, week }) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.append(Object.assign(document.createElement("bdi"), { textContent: stage }));
    row.append(name, ...[today, week].map((number) => Object.assign(document.createElement("td"), { textContent: count(number) })));
    return row;
  });
}

/** Return an item for each problem. */
export function problemItems(problems, now) {
  return problems.map(({ problem, since, text }) => {
    const item = document.createElement("li");
    const name = document.createElement("b");
    name.textContent = problem.replaceAll("_", " ");
    item.append(name, ` since ${moment(since, now)}: ${text}`);
    return item;
  });
}

/** Offer these values in a select, and keep the one that is selected. */
export function offer(select, values) {
  const offered = [...select.options].slice(1).map((option) => option.value);
  for (const value of values.filter((each) => !offered.includes(each))) select.append(new Option(value, value));
}
