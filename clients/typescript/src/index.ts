// A typed client of the HTTP API.
//
//     import { createMsrClient } from "msr-client";
//     const msr = createMsrClient("http://127.0.0.1:8000");
//     console.log((await msr.recommend({ user_id: "user-00000", k: 5 })).items);
//
// Paths and bodies come from the OpenAPI document (schema.ts, made by `make typescript-client`).
// Every method gives the answer or throws: ProblemError for a problem document, ServerUnreachable
// for whatever keeps an answer from coming. Nothing is sent twice.

import createHttpClient from "openapi-fetch";

import { isProblem, ProblemError, ServerUnreachable } from "./errors.js";
import type { components, paths } from "./schema.js";

export { MsrError, ProblemError, ServerUnreachable, type Problem } from "./errors.js";

/** The bodies of the API by their names, as `Schemas["RecommendResponse"]`. */
export type Schemas = components["schemas"];

export interface MsrClientOptions {
  /** Where the server asks for one, as `msr keys create` printed it. */
  apiKey?: string;
  /** Bounds each request, answer included. */
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
    /** Send what users did. Sent again it counts once if it bears an `event_id` or a timestamp. */
    interact: (...interactions: Schemas["InteractionIn"][]) =>
      answer(http.POST("/interactions", { body: { interactions } })),
    /** The user's written preference. */
    preference: (id: string) => answer(http.GET("/users/{user_id}/preference", user(id))),
    /** Users who are worth a look. */
    personas: () => answer(http.GET("/personas")),
    /** Remove every trace of the user. */
    forget: (id: string) => answer(http.DELETE("/users/{user_id}", user(id))),
    /** Add or replace an item; `image` is the picture's file in base64. */
    putItem: (body: Schemas["ItemIn"]) => answer(http.PUT("/items", { body })),
    /** An item as the model sees it. */
    item: (id: string) => answer(http.GET("/items/{item_id}", item(id))),
    /** Take an item out of the catalogue. */
    deleteItem: (id: string) => answer(http.DELETE("/items/{item_id}", item(id))),
    /** The adapters that there are, and which of them serve. */
    adapters: () => answer(http.GET("/adapters")),
    /** Let this adapter score from the next request on. */
    activateAdapter: (name: string) =>
      answer(http.POST("/adapters/{name}/activate", adapter(name))),
    /** Let the previous adapter score again. */
    rollBackAdapter: () => answer(http.POST("/adapters/rollback")),
    /** Let an adapter score a share of the requests along. */
    setShadow: (body: Schemas["ShadowIn"]) => answer(http.PUT("/adapters/shadow", { body })),
    /** Let no adapter score along. */
    clearShadow: () => answer(http.DELETE("/adapters/shadow")),
    /** Divide the users among adapters. */
    setExperiment: (body: Schemas["ExperimentIn"]) =>
      answer(http.PUT("/adapters/experiment", { body })),
    /** Let the active adapter score for everybody again. */
    endExperiment: () => answer(http.DELETE("/adapters/experiment")),
    /** What runs on the server. */
    version: () => answer(http.GET("/version")),
  };
}

/** The data of an answer, or what is thrown for it. */
async function answer<Data>(
  pending: Promise<{ data?: Data; error?: unknown; response: Response }>,
): Promise<Data> {
  let settled;
  try {
    settled = await pending;
  } catch (cause) {
    throw new ServerUnreachable(`no answer (${String(cause)})`, { cause });
  }
  const { data, error, response } = settled;
  // An answer without a body, as to a DELETE, has no data.
  if (response.ok) return data as Data;
  if (!isProblem(error)) {
    throw new ServerUnreachable(
      `${response.url} answered ${response.status} with what is no problem document; ` +
        "is this the API's address?",
    );
  }
  const after = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  throw new ProblemError(error, Number.isNaN(after) ? undefined : after);
}
