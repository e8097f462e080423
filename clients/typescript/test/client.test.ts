// Against a running API over the demo world, at MSR_URL; `make test-node` starts one.

import assert from "node:assert/strict";
import { before, test } from "node:test";

import {
  createMsrClient,
  MsrError,
  ProblemError,
  ServerUnreachable,
  type MsrClient,
  type Schemas,
} from "../src/index.js";

let msr: MsrClient;

before(() => {
  const url = process.env["MSR_URL"];
  assert.ok(url, "MSR_URL is the address of a running API");
  msr = createMsrClient(url, { timeoutMs: 120_000 });
});

test("a ranking comes as a typed answer", async () => {
  const answer: Schemas["RecommendResponse"] = await msr.recommend({ user_id: "user-00000", k: 5 });
  assert.deepEqual(
    answer.items.map((item) => item.rank),
    [1, 2, 3, 4, 5],
  );
});

test("interactions give versions until the user is forgotten", async () => {
  const user_id = "a/../b ?é";
  const taken = { user_id, item_id: "item-00000", timestamp_ms: 1 };
  assert.deepEqual((await msr.interact(taken, taken)).versions, { [user_id]: 1 });
  assert.equal((await msr.preference(user_id)).history_version, 1);
  assert.equal(await msr.forget(user_id), undefined);
  await assert.rejects(msr.preference(user_id), isProblem("unknown-user"));
});

test("an item is put, read and deleted", async () => {
  const put = await msr.putItem({ item_id: "new/one", title: "A fox" });
  assert.equal((await msr.item("new/one")).version, put.version);
  await msr.deleteItem("new/one");
  await assert.rejects(msr.item("new/one"), isProblem("unknown-item"));
});

test("adapters are listed and chosen", async () => {
  const { active, adapters } = await msr.adapters();
  assert.ok(adapters.some((each) => each.name === active));
  assert.equal((await msr.activateAdapter(active)).active, active);
  assert.equal((await msr.setShadow({ adapter: active, share: 0.5 })).shadow?.share, 0.5);
  assert.equal((await msr.clearShadow()).shadow, null);
  const arms = ["a", "b"].map((name) => ({ name, adapter: active }));
  assert.equal((await msr.setExperiment({ name: "a-or-a", arms })).experiment?.arms.length, 2);
  assert.equal((await msr.endExperiment()).experiment, null);
  await assert.rejects(msr.rollBackAdapter(), isProblem("adapter-refused"));
});

test("a request that does not fit is a problem that names the field", async () => {
  await assert.rejects(msr.recommend({ user_id: "u", k: 0 }), (error: unknown) => {
    assert.ok(error instanceof ProblemError);
    assert.equal(error.problem.status, 422);
    assert.equal(error.problem.errors?.[0]?.field, "body.k");
    return true;
  });
});

test("a server that is not there is unreachable", async () => {
  const nobody = createMsrClient("http://127.0.0.1:1");
  await assert.rejects(nobody.version(), ServerUnreachable);
});

for (const status of [200, 502]) {
  test(`an answer of something else is unreachable, also with status ${status}`, async () => {
    const page = createMsrClient("http://msr.test", {
      fetch: async () => new Response("<html>", { status }),
    });
    await assert.rejects(page.version(), ServerUnreachable);
  });
}

test("a request that takes too long is given up", async () => {
  // The signal's own timer keeps no process alive.
  const alive = setInterval(() => undefined, 1000);
  const slow = createMsrClient("http://msr.test", {
    timeoutMs: 1,
    fetch: ({ signal }) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
  });
  await assert.rejects(slow.version(), MsrError);
  clearInterval(alive);
});

test("the key is sent with every request, and a refusal says when to come back", async () => {
  const shown: (string | null)[] = [];
  const problem = {
    type: "/problems/rate-limited",
    title: "Too many requests",
    status: 429,
    detail: "the next fits in 3 s",
    instance: "/version",
    request_id: "5f0c1f4e8a7b4c55",
  };
  const keyed = createMsrClient("http://msr.test", {
    apiKey: "msr_1_s",
    fetch: async (request) => {
      shown.push(request.headers.get("Authorization"));
      return Response.json(problem, { status: 429, headers: { "Retry-After": "3" } });
    },
  });
  await assert.rejects(keyed.version(), (error: unknown) => {
    assert.ok(error instanceof ProblemError && error.is("rate-limited"));
    assert.equal(error.retryAfterSeconds, 3);
    return true;
  });
  assert.deepEqual(shown, ["Bearer msr_1_s"]);
});

function isProblem(kind: string): (error: unknown) => boolean {
  return (error) => error instanceof ProblemError && error.is(kind);
}
