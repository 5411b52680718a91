// What goes on: a sample a second, of which the last five minutes are kept, as rates.

import { me } from "./api.js";

const SECONDS = 300;
/** Quantiles are those of the runs in this time. */
const WINDOW = 15;

/** Numbers of the last five minutes; the newest is the last. */
class Ring {
  constructor() {
    this.values = new Float32Array(SECONDS).fill(NaN);
    this.at = 0;
  }
  add(value) {
    this.values[this.at] = value;
    this.at = (this.at + 1) % SECONDS;
  }
  get last() {
    return this.values[(this.at + SECONDS - 1) % SECONDS];
  }
  list() {
    return [...this.values.subarray(this.at), ...this.values.subarray(0, this.at)];
  }
}

class Handler {
  constructor() {
    this.raw = [];
    this.rate = new Ring();
    this.failed = new Ring();
    this.p50 = this.p99 = NaN;
  }
  take(sample, at) {
    const before = this.raw.at(-1);
    if (before?.at === at) return;
    this.raw.push({ at, ...sample });
    if (this.raw.length > WINDOW) this.raw.shift();
    this.now = sample;
    const seconds = before ? (at - before.at) / 1000 : 0;
    // A host that has started again counts from zero.
    const per = (key) => (before && seconds > 0 && sample[key] >= before[key] ? (sample[key] - before[key]) / seconds : NaN);
    this.rate.add(per("done"));
    const [retried, dead] = [per("retried"), per("dead")];
    this.failed.add(retried + dead);
    [this.p50, this.p99] = quantiles(this.raw[0].runs, sample.runs, [0.5, 0.99]);
  }
}

/** What these shares of the runs between two samples took at most, in microseconds, within a bucket by rule of three. */
export function quantiles(before, after, shares) {
  const bounds = Object.keys(after).map(Number).sort((a, b) => a - b);
  const counts = bounds.map((bound) => Math.max(0, after[bound] - (before[bound] ?? 0)));
  const all = counts.reduce((sum, n) => sum + n, 0);
  return shares.map((share) => {
    if (all === 0) return NaN;
    let below = 0;
    for (let at = 0; at < bounds.length; at++) {
      if (below + counts[at] >= share * all) {
        const to = Math.min(bounds[at], 120e6);
        const from = at === 0 ? to / 2 : Math.min(bounds[at - 1], to);
        return from + ((to - from) * (share * all - below)) / Math.max(1, counts[at]);
      }
      below += counts[at];
    }
    return NaN;
  });
}

class Live extends EventTarget {
  handlers = new Map();
  rate = new Ring();
  failed = new Ring();
  hosts = [];
  state = "waits";
  why = "";

  start() {
    this.stop();
    const source = new EventSource("/api/live");
    source.addEventListener("sample", (event) => this.take(JSON.parse(event.data)));
    source.addEventListener("trouble", (event) => this.trouble(JSON.parse(event.data).error));
    source.addEventListener("progress", (event) => this.dispatchEvent(new CustomEvent("progress", { detail: JSON.parse(event.data) })));
    source.onerror = () => {
      this.trouble("The console does not answer.");
      // A stream that was refused is not begun again by the browser.
      if (source.readyState === EventSource.CLOSED && this.source === source) {
        setTimeout(() => me.session && this.source === source && this.start(), 3000);
      }
    };
    this.source = source;
  }

  stop() {
    this.source?.close();
    this.source = null;
  }

  take(sample) {
    this.hosts = sample.hosts;
    this.state = sample.unknown ? "unknown" : "live";
    this.why = sample.unknown ?? "";
    for (const name of this.handlers.keys()) if (!(name in sample.handlers)) this.handlers.delete(name);
    let [rate, failed] = sample.unknown ? [NaN, NaN] : [0, 0];
    for (const [name, one] of Object.entries(sample.handlers)) {
      let handler = this.handlers.get(name);
      if (!handler) this.handlers.set(name, (handler = new Handler()));
      handler.take(one, sample.at);
      rate += handler.rate.last || 0;
      failed += handler.failed.last || 0;
    }
    this.rate.add(rate);
    this.failed.add(failed);
    this.dispatchEvent(new Event("sample"));
  }

  trouble(why) {
    this.state = "trouble";
    this.why = why;
    this.dispatchEvent(new Event("sample"));
  }
}

export const live = new Live();

// A page that is not seen asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (!me.session) return;
  if (document.hidden) live.stop();
  else live.start();
});
