// A Node service that asks for recommendations, with nothing but node:http and celery-node.
//
//   npm install celery-node@0.5.9
//   RECLANE_REDIS_URL=redis://localhost:6379/0 PORT=8000 node node_app.mjs
//
//   curl localhost:8000/recommendations -d '{"query": "running shoes", "k": 3}'
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import celery from "celery-node";

const URL = process.env.RECLANE_REDIS_URL ?? "redis://localhost:6379/0";
const TASK = "reclane.recommend";
// How long a caller waits; the message expires then, so that no worker answers nobody.
const WAIT_MS = 1_000 * Number(process.env.RECOMMEND_TIMEOUT_S ?? 10);
const CONNECT_MS = 2_000;
const POLL_MS = 20; // celery-node reads the result again and again
const BODY_BYTES = 262_144;

const client = celery.createClient(URL, URL, "reclane.interactive");

// celery-node leaves some promises and connection errors to nobody; a lost Redis must not end us.
for (const { redis } of [client.broker, client.backend]) {
  redis.on("error", (error) => console.error("redis:", error.code ?? error.message));
}
process.on("unhandledRejection", (error) => console.error("celery-node:", error.message));

class HttpError extends Error {
  constructor(status, code, message, retry = false) {
    super(message);
    Object.assign(this, { status, code, retry });
  }
}

async function connected() {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("timeout")), CONNECT_MS);
  });
  try {
    await Promise.race([client.isReady(), late]);
  } catch {
    throw new HttpError(503, "broker_unavailable", "Redis cannot be reached", true);
  } finally {
    clearTimeout(timer);
  }
}

async function recommend(request) {
  await connected(); // else celery-node would keep the message to itself, without a word
  const id = randomUUID();
  const message = client.createTaskMessage(id, TASK, [request], {});
  message.headers.expires = new Date(Date.now() + WAIT_MS).toISOString();
  client.sendTaskMessage(TASK, message);
  try {
    return await client.asyncResult(id).get(WAIT_MS, POLL_MS);
  } catch (error) {
    throw explained(error);
  }
}

// What celery-node rejects with: an Error whose message is the state, with the result's fields.
function explained(error) {
  switch (error.message) {
    case "TIMEOUT":
      return new HttpError(504, "timeout", `no answer within ${WAIT_MS} ms`, true);
    case "REVOKED":
      return new HttpError(504, String(error.exc_message?.[0]), "the request was revoked");
    case "FAILURE": {
      const [message, code = "failed", retry = false] = error.exc_message ?? [];
      return new HttpError(code === "invalid_request" ? 422 : 502, code, message, retry);
    }
    default:
      return error;
  }
}

async function body(incoming) {
  const parts = [];
  let bytes = 0;
  for await (const part of incoming) {
    bytes += part.length;
    if (bytes > BODY_BYTES) throw new HttpError(413, "too_large", `limit ${BODY_BYTES} bytes`);
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf-8"));
  } catch {
    throw new HttpError(422, "invalid_request", "the body is not JSON");
  }
}

async function handle(incoming) {
  if (incoming.method !== "POST" || incoming.url !== "/recommendations") {
    throw new HttpError(404, "not_found", "POST /recommendations");
  }
  return recommend(await body(incoming));
}

const server = createServer(async (incoming, outgoing) => {
  const headers = { "content-type": "application/json" };
  let status = 200;
  let content;
  try {
    content = await handle(incoming);
  } catch (error) {
    status = error.status ?? 500;
    if (status === 503) headers["retry-after"] = "1";
    if (status === 500) console.error(error);
    const { code = "internal", message, retry = false } = error;
    content = { code, message: status === 500 ? "internal error" : message, retry };
  }
  outgoing.writeHead(status, headers).end(JSON.stringify(content));
});

server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => server.close(() => client.disconnect().then(() => process.exit(0))));
}
