// A typed client of the HTTP API.
//
//     import { createMsrClient } from "msr-client";
//     const msr = createMsrClient("http://127.0.0.1:8000");
//     console.log((await msr.recommend({ user_id: "user-00000", k: 5 })).items);
//
// Paths and bodies come from the OpenAPI document (schema.ts, made by `make typescript-client`).
// Every method returns the body of the response or throws: ProblemError for a problem document,
// ServerUnreachable for every other failure. Nothing is sent twice.

import createHttpClient from "openapi-fetch";

import { isProblem, ProblemError, ServerUnreachable } from "./errors.js";
import type { components, paths } from "./schema.js";

export { MsrError, ProblemError, ServerUnreachable, type Problem } from "./errors.js";

/** The bodies of the API by their names, as `Schemas["RecommendResponse"]`. */
export type Schemas = components["schemas"];

export interface MsrClientOptions {
  /** The key that `msr keys create` printed, if the server requires one. */
  apiKey?: string;
  /** Bounds each request, its response included. */
  timeoutMs?: number;
  /** Replaces the network. */
  fetch?: (request: Request) => Promise<Response>;
}

export type MsrClient = ReturnType<typeof createMsrClient>;

export function createMsrClient(baseUrl: string, options: MsrClientOptions = {}) {
  const { apiKey, timeoutMs = 30_000, fetch = globalThis.fetch } = options;
  const http = createHttpClient<paths>({
    baseUrl,
    headers: apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` },
    fetch: (request) => fetch(new Request(request, { signal: AbortSignal.timeout(timeoutMs) })),
  });
  const user = (user_id: string) => ({ params: { path: { user_id } } });
  const item = (item_id: string) => ({ params: { path: { item_id } } });
  const adapter = (name: string) => ({ params: { path: { name } } });
  return {
    /** The items the user would take next, best first. */
    recommend: (body: Schemas["RecommendRequest"]) => answer(http.POST("/recommend", { body })),
    /** Send what users did. With an `event_id` or a timestamp, an interaction counts once. */
    interact: (...interactions: Schemas["InteractionIn"][]) =>
      answer(http.POST("/interactions", { body: { interactions } })),
    /** The user's written preference. */
    preference: (id: string) => answer(http.GET("/users/{user_id}/preference", user(id))),
    /** Example users of the server's data. */
    personas: () => answer(http.GET("/personas")),
    /** Remove every trace of the user. */
    forget: (id: string) => answer(http.DELETE("/users/{user_id}", user(id))),
    /** Add or replace an item; `image` is the image file in base64. */
    putItem: (body: Schemas["ItemIn"]) => answer(http.PUT("/items", { body })),
    /** An item as the model sees it. */
    item: (id: string) => answer(http.GET("/items/{item_id}", item(id))),
    /** Remove an item from the catalogue. */
    deleteItem: (id: string) => answer(http.DELETE("/items/{item_id}", item(id))),
    /** All adapters, and which of them serve. */
    adapters: () => answer(http.GET("/adapters")),
    /** Score with this adapter from the next request on. */
    activateAdapter: (name: string) =>
      answer(http.POST("/adapters/{name}/activate", adapter(name))),
    /** Score with the previous adapter again. */
    rollBackAdapter: () => answer(http.POST("/adapters/rollback")),
    /** Score a share of the requests with a second adapter too. */
    setShadow: (body: Schemas["ShadowIn"]) => answer(http.PUT("/adapters/shadow", { body })),
    /** Stop the second adapter. */
    clearShadow: () => answer(http.DELETE("/adapters/shadow")),
    /** Split the users between adapters. */
    setExperiment: (body: Schemas["ExperimentIn"]) =>
      answer(http.PUT("/adapters/experiment", { body })),
    /** Score all users with the active adapter again. */
    endExperiment: () => answer(http.DELETE("/adapters/experiment")),
    /** The versions of the server's code and models. */
    version: () => answer(http.GET("/version")),
  };
}

/** The body of a response; a failure is thrown as an error. */
async function answer<Data>(
  pending: Promise<{ data?: Data; error?: unknown; response: Response }>,
): Promise<Data> {
  let settled;
  try {
    settled = await pending;
  } catch (cause) {
    throw new ServerUnreachable(`no response (${String(cause)})`, { cause });
  }
  const { data, error, response } = settled;
  // A response without a body, as to a DELETE, has no data.
  if (response.ok) return data as Data;
  if (!isProblem(error)) {
    throw new ServerUnreachable(
      `${response.url} answered ${response.status} with a body that is not a problem document; ` +
        "is this the address of the API?",
    );
  }
  const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  throw new ProblemError(error, Number.isNaN(after) ? undefined : after);
}
