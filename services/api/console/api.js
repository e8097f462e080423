// Calls of the HTTP API, with the key of the console's user. The key is kept as long as the tab.

const KEY = "msr-api-key";

/** An error that the server answered; status 0 if it did not answer. */
export class ApiError extends Error {
  constructor(status, problem, retrySeconds) {
    super(problem.detail ?? problem.title ?? "the server does not answer");
    this.status = status;
    this.type = problem.type ?? "";
    this.title = problem.title ?? "No answer";
    this.retrySeconds = retrySeconds;
  }
}

export function apiKey() {
  return sessionStorage.getItem(KEY);
}

export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Encode a path segment: ids may contain any character. */
export const segment = encodeURIComponent;

export function query(fields) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") given.append(name, each);
    }
  }
  return `?${given}`;
}

/** The answer as an object. Raises ApiError; a 401 also opens the shell's form for the key. */
export async function call(method, path, { body, signal } = {}) {
  const response = await ask(method, path, { body, signal });
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => call("GET", path, options);

/** The response, as soon as its headers are there. */
export async function ask(method, path, { body, signal, headers = {} } = {}) {
  const all = { ...headers };
  if (apiKey()) all.Authorization = `Bearer ${apiKey()}`;
  if (body !== undefined) all["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: all,
      signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { title: "The server does not answer" }, 2);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ title: `Status ${response.status}` }));
  const retrySeconds = Number(response.headers.get("Retry-After")) || null;
  if (response.status === 401) window.dispatchEvent(new CustomEvent("key-needed"));
  throw new ApiError(response.status, problem, retrySeconds);
}

/** The health as an object, for status 503 too. */
export async function health() {
  try {
    const response = await fetch("/health/ready");
    return await response.json();
  } catch {
    return { status: "unreachable", components: {} };
  }
}

/**
 * Follow a user's preference until `signal` aborts. Calls `onPreference(preference)` at every change,
 * `onForgotten()`, and `onLive(true or false)`. EventSource cannot send a key.
 */
export async function followPreference(userId, { onPreference, onForgotten, onLive, signal }) {
  const preference = `/users/${segment(userId)}/preference`;
  const deliver = async (response) => onPreference(await response.json());
  let lastId = null;
  while (!signal.aborted) {
    let pauseSeconds = 1;
    try {
      const headers = lastId === null ? {} : { "Last-Event-ID": lastId };
      const response = await ask("GET", `${preference}/events`, { signal, headers });
      onLive(true);
      for await (const event of events(response.body)) {
        if (event.id !== null) lastId = event.id;
        if (event.name === "preference") onPreference(JSON.parse(event.data));
        if (event.name === "forgotten") {
          onForgotten();
          return;
        }
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 404 || error.status === 401 || error.status === 403) {
        onLive(false);
        return;
      }
      pauseSeconds = error.retrySeconds ?? 2;
      // Too many streams are open: poll instead.
      if (error.status === 429) await ask("GET", preference, { signal }).then(deliver, () => null);
    }
    if (signal.aborted) return;
    onLive(false);
    await new Promise((resolve) => setTimeout(resolve, 1000 * pauseSeconds));
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    for (let end = buffer.indexOf("\n\n"); end >= 0; end = buffer.indexOf("\n\n")) {
      const event = { name: "", id: null, data: "" };
      for (const line of buffer.slice(0, end).split("\n")) {
        const [field, ...rest] = line.split(": ");
        if (field === "event") event.name = rest.join(": ");
        if (field === "id") event.id = rest.join(": ");
        if (field === "data") event.data += rest.join(": ");
      }
      buffer = buffer.slice(end + 2);
      yield event;
    }
  }
}
