// Who looks: the viewer's own credentials of NATS.

import { byId, h, put, text } from "./dom.js";
import { me, post } from "./api.js";

const WAYS = [
  ["user", "User and password"],
  ["token", "Token"],
  ["creds", "Credentials file"],
  ["nkey", "NKey seed"],
  ["nothing", "Without credentials"],
];

/** Tries what needs no person: the session of this browser, nothing at all, or the token of the address. Returns why a person is needed. */
export async function enter() {
  const { session, why } = await post("enter");
  me.session = session;
  const given = location.hash.match(/^#\/login\/(\w+)$/);
  if (!given) return why;
  // It is in no history of the browser.
  history.replaceState(null, "", "/#/now");
  me.session ??= await post("login", { way: "invitation", token: given[1] });
  return null;
}

/** The form; `then` when the viewer is in. */
export function form(why, then) {
  const fields = h("div", { class: "stack" });
  const problem = h("p", { class: "note bad hidden", role: "alert" });
  const say = (message) => {
    text(problem, message);
    problem.classList.toggle("hidden", !message);
  };
  const ways = h("select", { id: "way", onchange: () => show(ways.value) }, WAYS.map(([value, name]) => h("option", { value }, name)));
  const show = (way) => {
    put(fields, FIELDS[way]());
    fields.querySelector("input, textarea")?.focus();
  };
  const submit = h("button", { class: "main", type: "submit" }, "Log in");
  const send = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    say("");
    const values = Object.fromEntries([...fields.querySelectorAll("[name]")].map((one) => [one.name, one.value]));
    try {
      me.session = await post("login", { way: ways.value, ...values });
      put(fields);
      then();
    } catch (failed) {
      say(failed.message);
      submit.disabled = false;
    }
  };
  const node = h("form", { class: "card login", autocomplete: "off", onsubmit: send },
    h("h1", {}, "Log in"),
    h("p", { class: "soft" }, "With your credentials of NATS. The console asks and acts with these, and with no others; they leave this host only to NATS, and are not stored."),
    h("div", { class: "field" }, h("label", { for: "way" }, "How"), ways),
    fields, problem, h("div", { class: "line" }, submit));
  put(byId("main"), h("div", { class: "center" }, node));
  say(why);
  show("user");
}

const input = (name, label, type = "text") => h("div", { class: "field" },
  h("label", { for: `f-${name}` }, label),
  h("input", { id: `f-${name}`, name, type, autocomplete: "off", spellcheck: "false", required: true }));

const FIELDS = {
  user: () => [input("user", "User"), input("password", "Password", "password")],
  token: () => input("token", "Token", "password"),
  nkey: () => input("seed", "Seed (SU…)", "password"),
  nothing: () => h("p", { class: "soft" }, "The server decides whether it takes a connection without credentials."),
  creds: () => {
    const area = h("textarea", { id: "f-creds", name: "creds", spellcheck: "false", required: true, placeholder: "-----BEGIN NATS USER JWT-----" });
    const file = h("input", { id: "f-file", type: "file", accept: ".creds,text/plain", onchange: async () => { area.value = await file.files[0]?.text() ?? ""; } });
    return [h("div", { class: "field" }, h("label", { for: "f-file" }, "Choose the file"), file), h("div", { class: "field" }, h("label", { for: "f-creds" }, "or paste its content"), area)];
  },
};
