// Figures and times, as people read them.

const numbers = new Intl.NumberFormat("en-US");

/** A count with all of its digits. */
export const whole = (n) => (n === null || n === undefined ? "–" : numbers.format(n));

export function count(n) {
  if (n === null || n === undefined) return "–";
  if (n < 100000) return whole(n);
  if (n < 1e6) return `${(n / 1000).toFixed(0)}k`;
  return n < 1e9 ? `${(n / 1e6).toFixed(1)}M` : `${(n / 1e9).toFixed(1)}G`;
}

export function rate(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return "–";
  if (n === 0) return "0";
  if (n < 10) return n.toFixed(1);
  return count(Math.round(n));
}

/** Microseconds. */
export function took(us) {
  if (us === null || us === undefined || Number.isNaN(us)) return "–";
  if (us < 1000) return `${us.toFixed(0)} µs`;
  if (us < 10000) return `${(us / 1000).toFixed(1)} ms`;
  if (us < 1e6) return `${(us / 1000).toFixed(0)} ms`;
  return us < 60e6 ? `${(us / 1e6).toFixed(1)} s` : `${(us / 60e6).toFixed(1)} min`;
}

/** Milliseconds, to the two largest units. */
export function span(ms) {
  const units = [["d", 86400000], ["h", 3600000], ["m", 60000], ["s", 1000]];
  const at = units.findIndex(([, size]) => ms >= size);
  if (at < 0) return "0s";
  const [name, size] = units[at];
  const first = `${Math.floor(ms / size)}${name}`;
  const next = units[at + 1];
  const rest = next ? Math.floor((ms % size) / next[1]) : 0;
  return rest ? `${first} ${rest}${next[0]}` : first;
}

/** A time as seen from now: `3m 2s ago`, `in 5s`. */
export function ago(time, now = Date.now()) {
  const at = typeof time === "number" ? time : Date.parse(time);
  if (Number.isNaN(at)) return "–";
  return at > now ? `in ${span(at - now)}` : `${span(now - at)} ago`;
}

/** A time of day; with its date if that is not today. */
export function clock(time) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "–";
  const iso = at.toISOString();
  return iso.slice(0, 10) === new Date().toISOString().slice(0, 10) ? `${iso.slice(11, 23)}Z` : `${iso.slice(0, 19).replace("T", " ")}Z`;
}

/** The beginning of a digest. */
export const digest = (text) => (text ?? "").replace(/^sha256:/, "").slice(0, 12);

export const plural = (n, one, more = `${one}s`) => `${whole(n)} ${n === 1 ? one : more}`;

/** A word as it fits a count. */
export const fits = (n, one, more) => (n === 1 ? one : more);

/** That nothing was left out of what was read. */
export function everything(n, one) {
  if (n === 0) return `There is no ${one}`;
  return n === 1 ? `The only ${one} was read` : `All ${plural(n, one)} were read`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  return n < 1048576 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / 1048576).toFixed(1)} MiB`;
}
