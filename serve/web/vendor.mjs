// Copies what the page loads at run time out of node_modules into vendor/, so that nothing is fetched from elsewhere.
import { copyFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
await mkdir(join(here, "vendor"), { recursive: true });
await copyFile(
  join(here, "node_modules/@google/model-viewer/dist/model-viewer.min.js"),
  join(here, "vendor/model-viewer.min.js"),
);
