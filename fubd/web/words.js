// Values as words. Nothing here touches the page.

const LOCALE = undefined; // the reader's own
const whole = new Intl.NumberFormat(LOCALE);
const clock = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const clockSeconds = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(LOCALE, { dateStyle: "full", timeStyle: "long" });

export const MODES = {
  starting: { glyph: "◌", name: "Starting" },
  steady: { glyph: "✓", name: "Steady" },
  watch: { glyph: "◔", name: "Watch" },
  failover: { glyph: "▲", name: "Failover" },
  recovering: { glyph: "↻", name: "Recovering" },
};

// What the keeper found of our webhook for an event; without a right it cannot tell.
const SUBSCRIPTIONS = {
  active: { glyph: "✓", text: "active" },
  missing: { glyph: "✗", text: "missing" },
  disabled: { glyph: "✗", text: "disabled" },
  elsewhere: { glyph: "✗", text: "points elsewhere" },
  slots_taken: { glyph: "✗", text: "places taken by others" },
  not_owner: { glyph: "?", text: "not the owner's key" },
  unmanaged: { glyph: "?", text: "no PUBLIC_URL" },
  unknown: { glyph: "?", text: "not known" },
};

export const subscription = (status) => SUBSCRIPTIONS[status] ?? { glyph: "?", text: status };

export const zone = () => new Intl.DateTimeFormat(LOCALE).resolvedOptions().timeZone;
export const count = (number) => whole.format(number);
export const exact = (instant) => full.format(new Date(instant));
export const hourAndMinute = (instant) => clock.format(new Date(instant));

/** The clock time, with the day where it is not today's. */
export function moment(instant, now) {
  const then = new Date(instant);
  const today = new Date(now).toDateString() === then.toDateString();
  return today ? clockSeconds.format(then) : `${day.format(then)}, ${clock.format(then)}`;
}

/** A length of time in its one or two largest units. */
export function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const rest = Math.max(0, Math.round(seconds));
  const at = units.findIndex(([, size]) => rest >= size);
  if (at < 0) return seconds > 0 && seconds < 1 ? `${Number(seconds.toFixed(2))} s` : "0 s";
  const [name, size] = units[at];
  const large = Math.floor(rest / size);
  if (at === units.length - 1 || large >= 10) return `${count(large)} ${name}`;
  const [smallName, smallSize] = units[at + 1];
  const small = Math.floor((rest % size) / smallSize);
  return small ? `${large} ${name} ${small} ${smallName}` : `${large} ${name}`;
}

export const ago = (instant, now) => {
  const seconds = (now - new Date(instant).getTime()) / 1000;
  if (seconds < 2) return "just now";
  // Beyond a minute, seconds would only make the page restless.
  return `${duration(seconds < 60 ? seconds : Math.floor(seconds / 60) * 60)} ago`;
};

/** A share in percent, never rounded up to a whole that it is not. */
export function share(ratio) {
  if (ratio >= 1) return "100 %";
  return `${(Math.floor(ratio * 1e5) / 1e3).toLocaleString(LOCALE, { maximumFractionDigits: 3 })} %`;
}

/** `HEALTHY`, or `STALE - what to check`. */
export function verdict(status) {
  const [word, ...advice] = status.split(" - ");
  const state = { HEALTHY: "healthy", STALE: "stale" }[word] ?? "unknown";
  const named = word.charAt(0) + word.slice(1).toLowerCase();
  const what = advice.join(" - ");
  return { state, text: what ? `${named}: ${what.charAt(0).toLowerCase()}${what.slice(1)}` : named };
}
