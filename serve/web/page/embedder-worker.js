// Runs the release's image encoder beside the page. A blob in, its embeddings out, one after another as the encoder names them, and the encoder's name.

import * as ort from "/vendor/ort.wasm.min.mjs";
import { SIZE, encoderInput } from "./pixels.js";

ort.env.wasm.wasmPaths = "/vendor/";
ort.env.wasm.numThreads = 1; // more need cross-origin isolation

let loaded = null;

async function load() {
  const response = await fetch("/v1/encoder.onnx");
  if (!response.ok) throw new Error(`the encoder could not be fetched: status ${response.status}`);
  const session = await ort.InferenceSession.create(await response.arrayBuffer());
  return { session, encoder: response.headers.get("ETag").replaceAll('"', "") };
}

async function embed(blob, anew) {
  if (anew) loaded = null;
  loaded ??= load().catch((error) => {
    loaded = null;
    throw error;
  });
  const { session, encoder } = await loaded;
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const images = new ort.Tensor("uint8", encoderInput(bitmap), [1, SIZE, SIZE, 3]);
  bitmap.close();
  const found = await session.run({ images });
  return { image_encoder: encoder, image_embedding: session.outputNames.flatMap((name) => Array.from(found[name].data)) };
}

addEventListener("message", async ({ data: { id, blob, anew } }) => {
  try {
    postMessage({ id, fields: await embed(blob, anew) });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
});
