// Runs the release's image encoder beside the page. A blob in, its embeddings out, one after another as the encoder names them.

import * as ort from "/vendor/ort.wasm.min.mjs";
import { SIZE, encoderInput } from "./pixels.js";

ort.env.wasm.wasmPaths = "/vendor/";
ort.env.wasm.numThreads = 1; // more need cross-origin isolation

let session = null;

async function embed(blob) {
  session ??= ort.InferenceSession.create("/v1/encoder.onnx").catch((error) => {
    session = null;
    throw error;
  });
  const ready = await session;
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const images = new ort.Tensor("uint8", encoderInput(bitmap), [1, SIZE, SIZE, 3]);
  bitmap.close();
  const found = await ready.run({ images });
  return ready.outputNames.flatMap((name) => Array.from(found[name].data));
}

addEventListener("message", async ({ data: { id, blob } }) => {
  try {
    postMessage({ id, embedding: await embed(blob) });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
});
