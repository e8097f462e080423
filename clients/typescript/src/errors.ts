// The errors that the client throws; each is an MsrError.

import type { components } from "./schema.js";

/** A problem document (RFC 9457). */
export type Problem = components["schemas"]["Problem"];

/** Root of the errors of the client. */
export class MsrError extends Error {
  override name = "MsrError";
}

/** No response came, or one that is not of this API; `cause` says why. */
export class ServerUnreachable extends MsrError {
  override name = "ServerUnreachable";
}

/** The server answered with a problem document. */
export class ProblemError extends MsrError {
  override name = "ProblemError";

  constructor(
    readonly problem: Problem,
    /** How long the server asks to wait, if it does. */
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
