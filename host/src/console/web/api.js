// Asking the console. What fails is thrown with the reason that it gave.

export const me = { session: null };

export class Failed extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function answered(path, options) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Failed(0, "The console does not answer: the host has ended, or the way to it is interrupted.");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    const failed = new Failed(answer.status, body.error ?? `The console answers ${answer.status}.`);
    if (answer.status === 401 && me.session) dispatchEvent(new Event("logged-out"));
    throw failed;
  }
  return answer;
}

const ask = async (path, options) => (await answered(path, options)).json().catch(() => ({}));

/** A path with a query; what is undefined or empty is left out. */
function asked(path, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const search = new URLSearchParams(given).toString();
  return search ? `${path}?${search}` : path;
}

/** A query. */
export const get = (path, query, signal) => ask(asked(path, query), { method: "GET", signal });

/** An order. */
export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (me.session) headers["X-Jetmesh-Csrf"] = me.session.csrf;
  return ask(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
}

/** An order with content behind it, whose answer is a JSON text a line: `took` is given each. */
export function postLines(path, parts, took, signal) {
  const headers = { "Content-Type": "application/octet-stream", "X-Jetmesh-Csrf": me.session.csrf };
  return lines(path, { method: "POST", headers, body: new Blob(parts), signal }, took);
}

/** The same of a query. */
export const getLines = (path, query, took, signal) => lines(asked(path, query), { method: "GET", signal }, took);

async function lines(path, options, took) {
  const answer = await answered(path, options);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const all = (rest + value).split("\n");
    rest = all.pop();
    for (const line of all) if (line) took(JSON.parse(line));
  }
}

/** A function that asks, and gives on only the answer to the newest question: one that was asked before can be answered later. */
export function newest(ask, took, failed) {
  let number = 0;
  return async () => {
    const own = ++number;
    try {
      const answer = await ask();
      if (own === number) took(answer);
    } catch (why) {
      if (own === number) failed(why);
    }
  };
}
