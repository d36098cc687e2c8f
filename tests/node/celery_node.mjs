// Sends requests with npm's celery-node, one after another, and prints how each ended.
// usage: node celery_node.mjs REDIS_URL QUEUE CALLS
// CALLS: a JSON array of {"args": [...], "kwargs": {...}}
// prints: a JSON array of {"answer": ...} or {"status": "FAILURE" | "REVOKED", "failure": ...}
import celery from "celery-node";

const DEADLINE_MS = 60_000;
const [url, queue, calls] = process.argv.slice(2);
const client = celery.createClient(url, url, queue);
const task = client.createTask("reclane.recommend");

const outcomes = [];
for (const { args = [], kwargs = {} } of JSON.parse(calls)) {
  try {
    outcomes.push({ answer: await task.applyAsync(args, kwargs).get(DEADLINE_MS, 20) });
  } catch (error) {
    const { exc_type, exc_message, exc_module } = error; // what the client copies from the result
    outcomes.push({ status: error.message, failure: { exc_type, exc_message, exc_module } });
  }
}
await client.disconnect();
console.log(JSON.stringify(outcomes));
