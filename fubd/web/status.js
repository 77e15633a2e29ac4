// The status page: loads the data, shows it in words, and follows the event stream. Every text is set as text, never as HTML.

import { Changes, toCsv } from "./changes.js";
import { Drawer, linkPeopleTo, Search } from "./people.js";
import { Timeline } from "./timeline.js";
import { headline, offer, problemItems, stageRows } from "./today.js";
import { ago, count, duration, exact, modeWords, moment, setZone, share, sourceStatus, subscription, zone } from "./words.js";

const HEALTH_INTERVAL_MS = 5_000;
const OVERVIEW_INTERVAL_MS = 30_000;
const OVERVIEW_SOON_MS = 1_000;
const REQUEST_TIMEOUT_MS = 10_000;
const RECONNECT_MS = 5_000;
const HOUR_MS = 3_600_000;

const byId = (id) => document.getElementById(id);
const timeline = new Timeline(byId("timeline"), byId("readout"));
const changes = new Changes(byId("change-list"), byId("no-changes"), byId("announcer"));

// Ages are counted on the server's clock, because the client's may be wrong.
let serverAheadMs = 0;
const now = () => Date.now() + serverAheadMs;

/** Set a text only if it changed, so that a screen reader announces it once. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- Ages that grow while the page is open ----------------------------------------------------------------------------

const ages = new Map();

function showAge(element, instant, fallback, toWords = (words) => words) {
  ages.delete(element);
  if (!instant) {
    element.textContent = fallback;
    element.removeAttribute("title");
    return;
  }
  element.title = exact(instant);
  ages.set(element, () => toWords(ago(instant, now())));
  element.textContent = ages.get(element)();
}

function updateAges() {
  for (const [element, toText] of ages) setText(element, toText());
}

setInterval(updateAges, 1_000);

// --- What the responses contain ---------------------------------------------------------------------------------------

let health = null;

function showHealth(response) {
  // The timeline shows the new mode at once.
  if (health && health.mode !== response.mode) loadOverviewSoon();
  health = response;
  const mode = modeWords(health.mode);
  byId("mode").dataset.mode = health.mode;
  byId("mode-glyph").textContent = mode.glyph;
  setText(byId("mode-name"), mode.name);
  byId("mode-reason").textContent = health.reason;
  byId("poll-interval").textContent = !health.poll_interval_seconds ? "–" : duration(health.poll_interval_seconds);
  byId("coverage").textContent = health.coverage ? moment(health.coverage, now()) : "no complete poll yet";
  showAge(byId("coverage-age"), health.coverage, "");
  for (const [name, source] of Object.entries(health.sources)) showSource(name, source);
  showSubscriptions(health.subscriptions, health.subscription_advice);
  showCompleteness(health.completeness);
  showDay();
  const isStale = Object.entries(health.sources).some(
    ([name, source]) => !isWaiting(name, source) && sourceStatus(source.status).state === "stale",
  );
  document.title = `${mode.glyph} ${mode.name}${isStale ? " · stale" : ""} · fubd`;
}

let day = null;

function showDay() {
  if (!health) return;
  const found = health.problems ?? [];
  byId("problems").replaceChildren(...problemItems(found, now()));
  byId("problems").hidden = found.length === 0;
  // While the database does not answer there is no day, but the problems are known.
  if (day || found.length) setText(byId("headline"), headline(health, day, now()));
  if (!day) return;
  byId("stage-counts").replaceChildren(...stageRows(day));
  byId("blind").textContent = day.blind_seconds === null ? "not known yet" : duration(day.blind_seconds);
  offer(byId("filter-stage"), day.stages.map(({ stage }) => stage));
  offer(byId("filter-agent"), day.agents);
}

/** Return whether a source was never heard and nothing is wrong: fubd has just started, or no webhook was due yet. */
function isWaiting(name, source) {
  return source.last_heard === null && (health.mode === "starting" || (name === "webhook" && health.mode !== "failover"));
}

function showSource(name, source) {
  const card = byId(`source-${name}`);
  if (!card) return;
  const field = (key) => card.querySelector(`[data-field="${key}"]`);
  const { state, text } = sourceStatus(source.status);
  // Webhooks arrive, but polling found changes without one: a plain green mark next to a red mode would confuse.
  const isDoubtful = name === "webhook" && state === "healthy" && health.mode === "failover";
  const waits = isWaiting(name, source);
  const waitingText = name === "webhook" ? "Waiting for the first webhook" : "Nothing received yet";
  card.dataset.state = isDoubtful ? "doubtful" : waits ? "unknown" : state;
  field("status").textContent = isDoubtful ? "Arriving, but some are missing" : waits ? waitingText : text;
  showAge(field("last_heard"), source.last_heard, "never");
  showAge(field("last_change"), source.last_change, "none yet");
  field("records_today").textContent = count(source.records_today);
}

function subscriptionItem(event, status, advice) {
  const { glyph, text } = subscription(status);
  const item = document.createElement("li");
  const name = document.createElement("span");
  const value = document.createElement("b");
  name.textContent = event;
  value.textContent = `${glyph} ${text}`;
  if (glyph === "✗") value.className = "off";
  item.append(name, " ", value);
  if (advice) {
    const paragraph = document.createElement("p");
    paragraph.className = "quiet small";
    paragraph.textContent = advice;
    item.append(paragraph);
  }
  return item;
}

function showSubscriptions(subscriptions, advice) {
  const items = Object.entries(subscriptions).map(([event, status]) => subscriptionItem(event, status, advice?.[event]));
  byId("subscriptions").replaceChildren(...items);
  byId("no-subscriptions").hidden = items.length > 0;
}

function showCompleteness({ ratio, people, oldest }) {
  const verified = `of ${count(people)} people had the recorded stage when read again`;
  byId("ratio").textContent = ratio === null ? "–" : share(ratio);
  if (ratio === null) showAge(byId("ratio-words"), null, "No verification round is complete yet.");
  else showAge(byId("ratio-words"), oldest, `${verified}.`, (age) => `${verified}. The oldest of these checks was ${age}.`);
}

function showBudget(api) {
  const isKnown = api.limit !== null && api.remaining !== null && api.limit > 0;
  byId("gauge").hidden = !isKnown;
  byId("budget").textContent = isKnown
    ? `${count(api.remaining)} of ${count(api.limit)} calls left in ${duration(api.window_seconds)}`
    : "Not known before the first call.";
  if (isKnown) {
    byId("gauge").style.setProperty("--used", String(Math.min(1, Math.max(0, 1 - api.remaining / api.limit))));
    byId("gauge").style.setProperty("--share", String(api.share));
  }
  byId("budget-words").textContent = `fubd uses at most ${share(api.share)}. ${count(api.calls)} calls since it started.`;
}

function showModes(modes) {
  const items = [...modes].reverse().map(({ mode, reason, since }) => {
    const item = document.createElement("li");
    const time = document.createElement("time");
    const text = document.createElement("span");
    const name = document.createElement("b");
    time.dateTime = since;
    time.title = exact(since);
    time.textContent = moment(since, now());
    name.textContent = `${modeWords(mode).glyph} ${modeWords(mode).name}`;
    text.append(name, `: ${reason}`);
    item.append(time, text);
    return item;
  });
  byId("mode-changes").replaceChildren(...items);
}

// The list is complete up to this row id: the event stream continues from it.
let safeId = 0;

function showOverview(overview) {
  safeId = overview.safe_id;
  day = overview.day;
  setZone(day.zone);
  linkPeopleTo(overview.people_url);
  byId("zone").textContent = zone();
  timeline.show(overview);
  if (!changes.isExtended) changes.replace(overview.recent, now());
  showDay();
  showModes(overview.modes);
  showBudget(overview.api);
  showAge(byId("started"), overview.started_at, "–", () => duration((now() - new Date(overview.started_at).getTime()) / 1000));
  byId("pending").textContent = count(overview.pending);
  byId("quarantined").textContent = count(overview.quarantined);
  byId("version").textContent = overview.version;
}

// --- Requests ---------------------------------------------------------------------------------------------------------

// Relative to the origin: the browser refuses to fetch an address that contains a password.
const address = (path) => new URL(path, window.location.origin);
const problems = new Map(); // path -> text

function showProblem(path, text) {
  if (text) problems.set(path, text);
  else problems.delete(path);
  setText(byId("notice"), [...new Set(problems.values())].join(" "));
  byId("notice").hidden = problems.size === 0;
}

async function load(path, show) {
  let problem = null;
  try {
    const response = await fetch(address(path), { cache: "no-store", signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    const body = await response.json();
    if (response.ok) show(body);
    else problem = `fubd is running, but ${body.error}. This page shows the last known state.`;
  } catch {
    problem = "fubd does not answer. This page shows the last known state.";
  }
  showProblem(path.split("?")[0], problem);
}

// The hours that the timeline shows; null until the first response: a daemon without older changes then starts with one hour.
let hours = null;

function selectHours(selected) {
  hours = selected;
  for (const input of byId("spans").querySelectorAll("input")) input.checked = Number(input.value) === selected;
}

function isEmptyBeforeLastHour({ change_counts: changeCounts, now: serverTime, started_at: startedAt }) {
  const hourAgo = new Date(serverTime).getTime() - HOUR_MS;
  if (new Date(startedAt).getTime() < hourAgo) return false;
  const older = Math.floor((hourAgo - new Date(changeCounts.start).getTime()) / (changeCounts.bucket_seconds * 1000));
  return Object.values(changeCounts.by_source).every((counts) => counts.slice(0, older).every((each) => each === 0));
}

byId("spans").addEventListener("change", (event) => {
  selectHours(Number(event.target.value));
  loadOverview();
});

let overviewTimer = null;

function loadOverview() {
  clearTimeout(overviewTimer);
  overviewTimer = setTimeout(loadOverview, OVERVIEW_INTERVAL_MS);
  const requested = hours;
  const shown = requested ?? 24;
  return load(`/api/overview?hours=${shown}`, (overview) => {
    if (requested !== hours) return;
    if (hours === null) {
      selectHours(isEmptyBeforeLastHour(overview) ? 1 : 24);
      if (hours === 1) loadOverview();
    }
    serverAheadMs = new Date(overview.now).getTime() - Date.now();
    byId("span-words").textContent = shown === 1 ? "hour" : `${shown} hours`;
    showOverview(overview);
    if (health) showHealth(health);
    updateAges();
  });
}

function loadOverviewSoon() {
  clearTimeout(overviewTimer);
  overviewTimer = setTimeout(loadOverview, OVERVIEW_SOON_MS);
}

let healthTimer = null;

function loadHealth() {
  clearTimeout(healthTimer);
  healthTimer = setTimeout(loadHealth, HEALTH_INTERVAL_MS);
  return load("/health", showHealth);
}

// --- The event stream -------------------------------------------------------------------------------------------------

function showConnection(state, text) {
  byId("connection").dataset.state = state;
  setText(byId("connection-text"), text);
}

function listen() {
  const stream = new EventSource(address(`/api/stream?after=${safeId}`));
  for (const kind of ["recorded", "corrected", "removed"]) {
    stream.addEventListener(kind, (event) => {
      changes[kind](JSON.parse(event.data), now());
      loadOverviewSoon();
    });
  }
  stream.onopen = () => showConnection("live", "live");
  stream.onerror = () => {
    showConnection("lost", "reconnecting");
    // The browser reconnects by itself after a broken connection, but not after a refusal.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, RECONNECT_MS);
  };
}

// --- What the reader chooses -------------------------------------------------------------------------------------------

const FILTERS = { stage_to: "stage", assigned_user_name: "agent", source: "source" }; // column -> parameter
const PAGE_ROWS = 50;

function chosenFilter() {
  const chosen = Object.entries(FILTERS).map(([column, parameter]) => [column, byId(`filter-${parameter}`).value]);
  return Object.fromEntries(chosen.filter(([, value]) => value));
}

function recentPath(filter, before) {
  const query = new URLSearchParams({ limit: PAGE_ROWS });
  for (const [column, value] of Object.entries(filter)) query.set(FILTERS[column], value);
  if (before) query.set("before", before);
  return `/api/recent?${query}`;
}

byId("filters").addEventListener("change", () => {
  const filter = chosenFilter();
  load(recentPath(filter), ({ changes: rows, next_before: next }) => {
    changes.choose(filter, rows, now());
    byId("older").hidden = next === null;
  });
});

byId("older").addEventListener("click", () =>
  load(recentPath(chosenFilter(), changes.rows.at(-1)?.id), ({ changes: rows, next_before: next }) => {
    changes.extend(rows, now());
    byId("older").hidden = next === null;
  }),
);

byId("csv").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([toCsv(changes.rows, byId("hide-names").checked)], { type: "text/csv" }));
  link.download = "stage-changes.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});

function hideNames(isHiding) {
  document.body.dataset.names = isHiding ? "hidden" : "shown";
}

byId("hide-names").checked = localStorage.getItem("hide-names") === "yes";
hideNames(byId("hide-names").checked);
byId("hide-names").addEventListener("change", ({ target }) => {
  localStorage.setItem("hide-names", target.checked ? "yes" : "no");
  hideNames(target.checked);
});
new Drawer(byId("drawer"), load, now);
new Search(byId("search"), byId("found"), load);

loadHealth();
loadOverview().then(listen);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  loadHealth();
  loadOverviewSoon();
});
