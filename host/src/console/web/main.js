// Where it begins: log in, the frame around all screens, and which one is shown.

import { me, post } from "./api.js";
import { byId, h, put, s, text, look } from "./dom.js";
import { enter, form } from "./login.js";
import { live } from "./live.js";
import { now } from "./now.js";
import { letters } from "./letters.js";
import { letter } from "./letter.js";
import { where } from "./where.js";
import { waiting } from "./waiting.js";
import { modules } from "./modules.js";
import { state } from "./state.js";
import { audit } from "./audit.js";
import "./runs.js";

const SCREENS = [
  { path: "now", name: "Now", show: now, icon: "M3 12h4l3-8 4 16 3-8h4" },
  { path: "letters", name: "Dead letters", short: "Letters", show: letters, icon: "M3 6h18v12H3zM3 7l9 6 9-6" },
  { path: "where", name: "Where is it?", short: "Where", show: where, icon: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l5 5" },
  { path: "waiting", name: "Waiting", show: waiting, icon: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 7v5l3 3" },
  { path: "modules", name: "Modules", show: modules, icon: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9" },
  { path: "state", name: "State", show: state, icon: "M4 6c0-4 16-4 16 0v12c0 4-16 4-16 0zM4 6c0 4 16 4 16 0M4 12c0 4 16 4 16 0" },
  { path: "audit", name: "Audit", show: audit, icon: "M7 3h8l4 4v14H7zM15 3v4h4M10 12h6M10 16h6" },
  { path: "letter", of: "letters", name: "Dead letter", show: letter },
];

let leave = null;

function frame() {
  const pulse = h("span", { class: "dot" });
  const word = h("span", {}, "");
  live.addEventListener("sample", () => {
    look(pulse, `dot ${live.state === "live" ? (live.hosts.length ? "ok" : "bad") : "warn"}`);
    text(word, live.state === "live" ? (live.hosts.length ? "live" : "no host answers") : "not live");
    word.parentNode.title = live.why;
  });
  put(byId("bar"),
    h("a", { class: "brand", href: "#/now" }, h("img", { src: "/icon.svg", alt: "" }), me.session.mesh),
    h("span", { class: "where", title: "the addresses of NATS" }, me.session.nats),
    h("span", { class: "space" }),
    h("span", { class: "pulse", role: "status" }, pulse, word),
    h("span", { class: "who", title: `logged in as ${me.session.who}` }, me.session.who),
    h("button", { type: "button", class: "plain", onclick: logOut }, "Log out"));
  put(byId("rail"), SCREENS.filter((screen) => screen.icon).map((screen) => h("a", { href: `#/${screen.path}`, "data-path": screen.path },
    s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: screen.icon })),
    h("span", { class: "long" }, screen.name), h("span", { class: "short", "aria-hidden": "true" }, screen.short ?? screen.name),
    h("span", { class: "count hidden", "data-count": screen.path }))));
}

async function logOut() {
  await post("logout").catch(() => {});
  out("You are logged out.");
}

function out(why) {
  me.session = null;
  live.stop();
  leave?.();
  leave = null;
  put(byId("bar"));
  put(byId("rail"));
  put(byId("runs"));
  form(why, begin);
}

function route(moved) {
  if (!me.session) return;
  const [path, search] = location.hash.replace(/^#\//, "").split("?");
  const [name, ...rest] = path.split("/");
  const screen = SCREENS.find((one) => one.path === name) ?? SCREENS[0];
  leave?.();
  document.title = `${screen.name} · ${me.session.mesh}`;
  for (const link of byId("rail").children) {
    if (link.dataset.path === (screen.of ?? screen.path)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave = screen.show(byId("main"), rest.map(decodeURIComponent), Object.fromEntries(new URLSearchParams(search ?? ""))) ?? null;
  scrollTo(0, 0);
  // Who reads with a screen reader, or with the keyboard, is where the new screen begins.
  if (moved) byId("main").focus({ preventScroll: true });
}

function begin() {
  frame();
  live.start();
  route();
}

addEventListener("hashchange", () => route(true));
addEventListener("logged-out", () => out("The session has ended: log in again."));
addEventListener("dead", (event) => {
  const badge = document.querySelector("[data-count=letters]");
  if (!badge) return;
  text(badge, event.detail > 999 ? "999+" : event.detail);
  badge.classList.toggle("hidden", !event.detail);
});
byId("skip").addEventListener("click", () => byId("main").focus());

await enter().then((why) => (me.session ? begin() : form(why, begin)), (failed) => form(failed.message, begin));
