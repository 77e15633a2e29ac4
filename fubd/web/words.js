// Values as words. Nothing here touches the page.

const LOCALE = undefined; // that of the browser
const integer = new Intl.NumberFormat(LOCALE);
const FORMATS = {
  clock: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  clockSeconds: { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
  day: { day: "numeric", month: "short" },
  date: { year: "numeric", month: "2-digit", day: "2-digit" },
  full: { dateStyle: "full", timeStyle: "long" },
};
let timeZone;
let formats = formatsOf(timeZone);

function formatsOf(zone) {
  const made = Object.entries(FORMATS).map(([name, options]) => [name, new Intl.DateTimeFormat(LOCALE, { ...options, timeZone: zone })]);
  return Object.fromEntries(made);
}

/** Write all times in this zone (FUBD_TIMEZONE). */
export function setZone(name) {
  if (name === timeZone) return;
  formats = formatsOf(name);
  timeZone = name;
}

const MODES = {
  starting: { glyph: "◌", name: "Starting" },
  steady: { glyph: "✓", name: "Steady" },
  watch: { glyph: "◔", name: "Watch" },
  failover: { glyph: "▲", name: "Failover" },
  recovering: { glyph: "↻", name: "Recovering" },
};

const SUBSCRIPTIONS = {
  active: { glyph: "✓", text: "active" },
  missing: { glyph: "✗", text: "missing" },
  disabled: { glyph: "✗", text: "disabled" },
  elsewhere: { glyph: "✗", text: "points elsewhere" },
  slots_taken: { glyph: "✗", text: "slots taken by others" },
  not_owner: { glyph: "?", text: "not the owner's key" },
  unmanaged: { glyph: "?", text: "no PUBLIC_URL" },
  unknown: { glyph: "?", text: "unknown" },
};

export const modeWords = (mode) => MODES[mode] ?? { glyph: "?", name: mode };
export const subscription = (status) => SUBSCRIPTIONS[status] ?? { glyph: "?", text: status };

export const zone = () => formats.clock.resolvedOptions().timeZone;
export const count = (number) => integer.format(number);
export const changeCount = (number) => (number === 1 ? "1 change" : `${count(number)} changes`);
export const exact = (instant) => formats.full.format(new Date(instant));
export const hourAndMinute = (instant) => formats.clock.format(new Date(instant));

/** Return the minutes since midnight. */
export function minutesOfDay(instant) {
  const parts = Object.fromEntries(formats.clock.formatToParts(new Date(instant)).map(({ type, value }) => [type, Number(value)]));
  return parts.hour * 60 + parts.minute;
}

/** Return the time of day, with the date if it is not today. */
export function moment(instant, now) {
  const then = new Date(instant);
  const isToday = formats.date.format(new Date(now)) === formats.date.format(then);
  return isToday ? formats.clockSeconds.format(then) : `${formats.day.format(then)}, ${formats.clock.format(then)}`;
}

/** Return a duration in its one or two largest units. */
export function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const rest = Math.max(0, Math.round(seconds));
  const index = units.findIndex(([, size]) => rest >= size);
  if (index < 0) return seconds > 0 && seconds < 1 ? `${Number(seconds.toFixed(2))} s` : "0 s";
  const [name, size] = units[index];
  const large = Math.floor(rest / size);
  if (index === units.length - 1 || large >= 10) return `${count(large)} ${name}`;
  const [smallName, smallSize] = units[index + 1];
  const small = Math.floor((rest % size) / smallSize);
  return small ? `${large} ${name} ${small} ${smallName}` : `${large} ${name}`;
}

export const ago = (instant, now) => {
  const seconds = (now - new Date(instant).getTime()) / 1000;
  if (seconds < 2) return "just now";
  // Above a minute, changing seconds would only distract.
  return `${duration(seconds < 60 ? seconds : Math.floor(seconds / 60) * 60)} ago`;
};

/** Return a ratio in percent, rounded down: 100 % only when nothing is missing. */
export function share(ratio) {
  if (ratio >= 1) return "100 %";
  return `${(Math.floor(ratio * 1e5) / 1e3).toLocaleString(LOCALE, { maximumFractionDigits: 3 })} %`;
}

/** Return the state and the text of `HEALTHY` or `STALE - what to check`. */
export function sourceStatus(status) {
  const [word, ...rest] = status.split(" - ");
  const state = { HEALTHY: "healthy", STALE: "stale" }[word] ?? "unknown";
  const name = word.charAt(0) + word.slice(1).toLowerCase();
  const advice = rest.join(" - ");
  return { state, text: advice ? `${name}: ${advice.charAt(0).toLowerCase()}${advice.slice(1)}` : name };
}
