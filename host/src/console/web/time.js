// Times as seen from now. They go on while they are shown, without a request.

import { h, text } from "./dom.js";
import { ago, span } from "./format.js";

const WORDS = { ago, lasts: (at, now) => span(Math.max(0, now - at)) };

function moving(time, as) {
  const at = typeof time === "number" ? time : Date.parse(time);
  if (Number.isNaN(at)) return "–";
  const iso = new Date(at).toISOString();
  // A screen reader does not read each step of it aloud.
  return h("time", { datetime: iso, title: iso, "aria-live": "off", "data-as": as }, WORDS[as](at, Date.now()));
}

/** `3m 2s ago`, or `in 5s`. */
export const age = (time) => moving(time, "ago");

/** How long something has lasted: `3m 2s`. */
export const lasting = (time) => moving(time, "lasts");

setInterval(() => {
  if (document.hidden) return;
  const now = Date.now();
  for (const one of document.querySelectorAll("time[data-as]")) text(one, WORDS[one.dataset.as](Date.parse(one.dateTime), now));
}, 1000);
