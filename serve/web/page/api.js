// Talks to the server: guide requests, products, and events that are sent again until they are taken.

const products = new Map();

export function newId() {
  return crypto.randomUUID ? crypto.randomUUID() : Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

export class GuideError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export async function askGuide(fields, frame) {
  let body = JSON.stringify(fields);
  const headers = {};
  if (frame) {
    const form = new FormData();
    form.append("request", new Blob([body], { type: "application/json" }), "request.json");
    form.append("frame", frame, "frame.jpg");
    body = form;
  } else {
    headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch("/v1/guide", { method: "POST", body, headers });
  } catch {
    throw new GuideError("offline", "no connection");
  }
  const reply = await response.json().catch(() => ({ error: { code: "offline", message: `status ${response.status}` } }));
  if (!response.ok) throw new GuideError(reply.error.code, reply.error.message);
  return reply;
}

export async function product(id) {
  if (!products.has(id)) {
    const asked = fetch(`/v1/products/${encodeURIComponent(id)}`).then((response) => {
      if (!response.ok) throw new GuideError("not_found", id);
      return response.json();
    });
    asked.catch(() => products.delete(id));
    products.set(id, asked);
  }
  return products.get(id);
}

// Events wait here until the server has said that they are stored.
const MAX_WAITING = 400;
let waiting = [];
let sending = null;

export function post(event) {
  waiting.push({ event_id: newId(), event_ts: new Date().toISOString(), channel: "web", ...event });
  if (waiting.length > MAX_WAITING) waiting = waiting.slice(-MAX_WAITING);
}

export function flush() {
  sending ??= send().finally(() => (sending = null));
  return sending;
}

async function send() {
  while (waiting.length) {
    const batch = waiting.slice(0, 100);
    try {
      const response = await fetch("/v1/events", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ events: batch }) });
      if (response.status >= 500) return;
    } catch {
      return;
    }
    waiting = waiting.slice(batch.length);
  }
}

// The page goes away: one last attempt that outlives it. The ids make a second delivery harmless.
export function flushLast() {
  if (waiting.length) navigator.sendBeacon("/v1/events", new Blob([JSON.stringify({ events: waiting.slice(0, 100) })], { type: "text/plain" }));
}

setInterval(() => waiting.length && flush(), 2000);
