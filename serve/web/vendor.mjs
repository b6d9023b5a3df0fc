// Copies what the page loads at run time out of node_modules into vendor/, so that nothing is fetched from elsewhere.
import { copyFile, mkdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
await mkdir(join(here, "vendor"), { recursive: true });
const files = [
  "@google/model-viewer/dist/model-viewer.min.js",
  "onnxruntime-web/dist/ort.wasm.min.mjs",
  "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
  "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
];
for (const file of files) await copyFile(join(here, "node_modules", file), join(here, "vendor", basename(file)));
