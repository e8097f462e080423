// What the client throws, all of it an MsrError.

import type { components } from "./schema.js";

/** A problem document (RFC 9457). */
export type Problem = components["schemas"]["Problem"];

/** Root of what the client throws. */
export class MsrError extends Error {
  override name = "MsrError";
}

/** No answer came, or one that is not this API's; `cause` says why. */
export class ServerUnreachable extends MsrError {
  override name = "ServerUnreachable";
}

/** The server answered with a problem document. */
export class ProblemError extends MsrError {
  override name = "ProblemError";

  constructor(
    readonly problem: Problem,
    /** When the server would like to be asked again, if it said so. */
    readonly retryAfterSeconds?: number,
  ) {
    super(`${problem.title}: ${problem.detail} (request ${problem.request_id})`);
  }

  /** Whether the problem is of a kind, such as "unknown-user". */
  is(kind: string): boolean {
    return this.problem.type === `/problems/${kind}`;
  }
}

/** Whether a body is a problem document. */
export function isProblem(body: unknown): body is Problem {
  if (typeof body !== "object" || body === null) return false;
  const fields = body as Record<string, unknown>;
  return ["type", "title", "detail", "request_id"].every((name) => typeof fields[name] === "string");
}
