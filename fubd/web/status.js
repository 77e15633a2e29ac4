// The status page: asks for the facts, shows them in words, and listens for what happens. Every text is set as text.

import { Changes } from "./changes.js";
import { Timeline } from "./timeline.js";
import { MODES, ago, count, duration, exact, moment, share, subscription, verdict, zone } from "./words.js";

const HEALTH_EVERY = 5_000;
const OVERVIEW_EVERY = 30_000;
const OVERVIEW_SOON = 1_000;
const ANSWER_WITHIN = 10_000;
const LISTEN_AGAIN = 5_000;
const HOUR = 3_600_000;

const at = (id) => document.getElementById(id);
const timeline = new Timeline(at("timeline"), at("readout"));
const changes = new Changes(at("change-list"), at("no-changes"), at("announcer"));

// Ages are counted on the server's clock, as the reader's may be wrong.
let ahead = 0;
const now = () => Date.now() + ahead;

// --- Ages that grow while the page stands -----------------------------------------------------------------------------

const ages = new Map();

function age(place, instant, otherwise, words = (told) => told) {
  ages.delete(place);
  if (!instant) {
    place.textContent = otherwise;
    place.removeAttribute("title");
    return;
  }
  place.title = exact(instant);
  ages.set(place, () => words(ago(instant, now())));
  place.textContent = ages.get(place)();
}

function growOlder() {
  for (const [place, words] of ages) {
    const told = words();
    if (place.textContent !== told) place.textContent = told;
  }
}

setInterval(growOlder, 1_000);

// --- What the answers say ---------------------------------------------------------------------------------------------

let health = null;

function showHealth(told) {
  // The picture of the modes follows at once.
  if (health && health.mode !== told.mode) askOverviewSoon();
  health = told;
  const known = MODES[health.mode] ?? { glyph: "?", name: health.mode };
  at("mode").dataset.mode = health.mode;
  at("mode-glyph").textContent = known.glyph;
  if (at("mode-name").textContent !== known.name) at("mode-name").textContent = known.name;
  at("mode-reason").textContent = health.reason;
  at("poll-interval").textContent = !health.poll_interval_seconds ? "–" : duration(health.poll_interval_seconds);
  at("coverage").textContent = health.coverage ? moment(health.coverage, now()) : "no complete poll yet";
  age(at("coverage-age"), health.coverage, "");
  for (const [name, source] of Object.entries(health.sources)) showSource(name, source);
  showSubscriptions(health.subscriptions, health.subscription_advice);
  showCompleteness(health.completeness);
  const unwell = Object.values(health.sources).some((source) => verdict(source.status).state === "stale");
  document.title = `${known.glyph} ${known.name}${unwell ? " · stale" : ""} · fubd`;
}

function showSource(name, source) {
  const card = at(`source-${name}`);
  if (!card) return;
  const field = (which) => card.querySelector(`[data-field="${which}"]`);
  const { state, text } = verdict(source.status);
  // Heard of late, and yet proven to leave changes out: a green mark beside a red one would only puzzle.
  const doubtful = name === "webhook" && state === "healthy" && health.mode === "failover";
  // Who has just begun has nothing to complain of.
  const unheard = health.mode === "starting" && source.last_heard === null;
  card.dataset.state = doubtful ? "doubtful" : unheard ? "unknown" : state;
  field("status").textContent = doubtful ? "Heard, but failing" : unheard ? "Not heard yet" : text;
  age(field("last_heard"), source.last_heard, "never");
  age(field("last_change"), source.last_change, "none yet");
  field("records_today").textContent = count(source.records_today);
}

function row(label, value, wrong) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const told = document.createElement("b");
  name.textContent = label;
  told.textContent = value;
  if (wrong) told.className = "off";
  item.append(name, " ", told);
  return item;
}

function showSubscriptions(subscriptions, advice) {
  const rows = Object.entries(subscriptions).map(([event, status]) => {
    const { glyph, text } = subscription(status);
    const item = row(event, `${glyph} ${text}`, glyph === "✗");
    if (advice?.[event]) {
      const what = document.createElement("p");
      what.className = "quiet small";
      what.textContent = advice[event];
      item.append(what);
    }
    return item;
  });
  at("subscriptions").replaceChildren(...rows);
  at("no-subscriptions").hidden = rows.length > 0;
}

function showCompleteness({ ratio, people, oldest }) {
  at("ratio").textContent = ratio === null ? "–" : share(ratio);
  const words = (told) => `of ${count(people)} people were as recorded when read again; the one read longest ago was read ${told}.`;
  if (ratio === null) age(at("ratio-words"), null, "No round of re-reading is complete yet.");
  else age(at("ratio-words"), oldest, `of ${count(people)} people were as recorded when read again.`, words);
}

function showBudget(api) {
  const known = api.limit !== null && api.remaining !== null && api.limit > 0;
  at("gauge").hidden = !known;
  at("budget").textContent = known
    ? `${count(api.remaining)} of ${count(api.limit)} calls left in ${duration(api.window_seconds)}`
    : "Not known before the first call.";
  if (known) {
    at("gauge").style.setProperty("--used", String(Math.min(1, Math.max(0, 1 - api.remaining / api.limit))));
    at("gauge").style.setProperty("--share", String(api.share));
  }
  at("budget-words").textContent = `fubd takes at most ${share(api.share)}; ${count(api.calls)} calls since it started.`;
}

function showModes(modes) {
  const items = [...modes].reverse().map((each) => {
    const item = document.createElement("li");
    const time = document.createElement("time");
    const words = document.createElement("span");
    const name = document.createElement("b");
    const known = MODES[each.mode] ?? { glyph: "?", name: each.mode };
    time.dateTime = each.since;
    time.title = exact(each.since);
    time.textContent = moment(each.since, now());
    name.textContent = `${known.glyph} ${known.name}`;
    words.append(name, `: ${each.reason}`);
    item.append(time, words);
    return item;
  });
  at("mode-changes").replaceChildren(...items);
}

// Up to where the list is whole: the stream goes on from there.
let safeId = 0;

function showOverview(overview) {
  safeId = overview.safe_id;
  timeline.show(overview);
  changes.replace(overview.recent, now());
  showModes(overview.modes);
  showBudget(overview.api);
  age(at("started"), overview.started_at, "–", () => `${duration((now() - new Date(overview.started_at).getTime()) / 1000)}`);
  at("pending").textContent = count(overview.pending);
  at("quarantined").textContent = count(overview.quarantined);
  at("version").textContent = overview.version;
}

// --- Asking -----------------------------------------------------------------------------------------------------------

// From the origin alone: an address with a password in it must not be fetched.
const address = (path) => new URL(path, window.location.origin);
const troubles = new Map();

function trouble(path, words) {
  const what = path.split("?")[0];
  if (words) troubles.set(what, words);
  else troubles.delete(what);
  const told = [...troubles.values()].join(" ");
  if (at("notice").textContent !== told) at("notice").textContent = told;
  at("notice").hidden = troubles.size === 0;
}

async function ask(path, show) {
  let words = null;
  try {
    const answer = await fetch(address(path), { cache: "no-store", signal: AbortSignal.timeout(ANSWER_WITHIN) });
    const document_ = await answer.json();
    if (answer.ok) show(document_);
    else words = `fubd runs, but ${document_.error}; what you see is what it knew last.`;
  } catch {
    words = "fubd does not answer; what you see is what it said last.";
  }
  trouble(path, words);
  return words === null;
}

let soon = null;

// How far back, in hours. A house that has been up for less than one shows that one, until its reader wants another.
let span = null;

function showSpan(hours) {
  span = hours;
  for (const each of at("spans").querySelectorAll("input")) each.checked = Number(each.value) === hours;
  at("span-words").textContent = hours === 1 ? "hour" : `${hours} hours`;
}

function hasOneHourAtMost({ change_counts: changeCounts, now: serverTime, started_at: startedAt }) {
  const hourAgo = new Date(serverTime).getTime() - HOUR;
  if (new Date(startedAt).getTime() < hourAgo) return false;
  const older = Math.floor((hourAgo - new Date(changeCounts.start).getTime()) / (changeCounts.bucket_seconds * 1000));
  return Object.values(changeCounts.by_source).every((counts) => counts.slice(0, older).every((count) => count === 0));
}

at("spans").addEventListener("change", (event) => {
  showSpan(Number(event.target.value));
  askOverview();
});

function askOverview() {
  clearTimeout(soon);
  soon = setTimeout(askOverview, OVERVIEW_EVERY);
  const asked = span;
  return ask(`/api/overview?hours=${asked ?? 24}`, (overview) => {
    if (asked !== span) return;
    if (span === null) {
      showSpan(hasOneHourAtMost(overview) ? 1 : 24);
      if (span === 1) askOverview();
    }
    ahead = new Date(overview.now).getTime() - Date.now();
    showOverview(overview);
    if (health) showHealth(health);
    growOlder();
  });
}

function askOverviewSoon() {
  clearTimeout(soon);
  soon = setTimeout(askOverview, OVERVIEW_SOON);
}

let later = null;

function askHealth() {
  clearTimeout(later);
  later = setTimeout(askHealth, HEALTH_EVERY);
  return ask("/health", showHealth);
}

// --- Listening --------------------------------------------------------------------------------------------------------

function link(state, words) {
  at("link").dataset.state = state;
  if (at("link-text").textContent !== words) at("link-text").textContent = words;
}

function listen() {
  const stream = new EventSource(address(`/api/stream?after=${safeId}`));
  const told = (how) => (event) => {
    changes[how](JSON.parse(event.data), now());
    askOverviewSoon();
  };
  stream.addEventListener("recorded", told("recorded"));
  stream.addEventListener("corrected", told("corrected"));
  stream.onopen = () => link("live", "live");
  stream.onerror = () => {
    link("lost", "reconnecting");
    if (stream.readyState !== EventSource.CLOSED) return;
    // Refused, not broken off: the browser does not come back by itself.
    setTimeout(listen, LISTEN_AGAIN);
  };
}

at("zone").textContent = zone();
askHealth();
askOverview().then(listen);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  askHealth();
  askOverviewSoon();
});
