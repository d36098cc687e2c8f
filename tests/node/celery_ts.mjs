// Sends requests with npm's celery-ts, one after another, and prints what each `get` gave.
// usage: node celery_ts.mjs REDIS_URL QUEUE CALLS
// CALLS: a JSON array of {"args": [...], "kwargs": {...}, "expires_in_ms": ..., "eta_in_ms": ...}
// prints: a JSON array of results. This client does not tell a failure from an answer: `get`
// resolves with the stored result either way.
import { createClient } from "celery-ts";

const DEADLINE_MS = 60_000;
const [url, queue, calls] = process.argv.slice(2);
const client = createClient({ brokerUrl: url, resultBackend: url });
const task = client.createTask("reclane.recommend");
// It reads a failure only from its subscription: wait until that stands.
await client.backend.subscriber;

const after = (ms) => (ms === undefined ? undefined : new Date(Date.now() + ms));
const results = [];
for (const { args = [], kwargs = {}, expires_in_ms, eta_in_ms } of JSON.parse(calls)) {
  const sent = task.applyAsync({
    args,
    kwargs,
    queue,
    expires: after(expires_in_ms),
    eta: after(eta_in_ms),
  });
  results.push(await sent.get(DEADLINE_MS));
}
console.log(JSON.stringify(results));
process.exit(0); // its connection pool keeps the process alive
