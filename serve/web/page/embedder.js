// Embeds pictures on this device, so that none need be sent. The encoder is fetched with the first one.

const waiting = new Map();
let worker = null;
let last = 0;

export const canEmbed = () => document.querySelector('meta[name="guidelens-embedder"]').content === "yes" && "OffscreenCanvas" in window;

// A JPEG, PNG or WebP blob to `image_embedding` and `image_encoder` of a guide request. anew: fetch the encoder again, which a new release may have changed.
export function embed(blob, anew = false) {
  worker ??= started();
  return new Promise((resolve, reject) => {
    waiting.set(++last, { resolve, reject });
    worker.postMessage({ id: last, blob, anew });
  });
}

function started() {
  const made = new Worker("/page/embedder-worker.js", { type: "module" });
  made.addEventListener("message", ({ data: { id, fields, error } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new Error(error));
    else resolve(fields);
  });
  made.addEventListener("error", (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message || "the encoder could not be started"));
    waiting.clear();
    worker = null;
  });
  return made;
}
