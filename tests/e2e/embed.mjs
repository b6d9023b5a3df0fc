// Embeds photos in the page, and asks about the first one with "photos stay here"; prints what it saw as one JSON object.
//
//   node embed.mjs URL CHROMIUM PHOTO...

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(import.meta.dirname, "../../serve/web/package.json"));
const { chromium } = require("playwright-core");
const [url, executablePath, ...photos] = process.argv.slice(2);
const seen = { console: [], foreign: [], embeddings: [], asked: [] };

const browser = await chromium.launch({ executablePath, headless: true, args: ["--no-sandbox"] });
const page = await (await browser.newContext({ viewport: { width: 412, height: 915 } })).newPage();
page.setDefaultTimeout(60000);
page.on("console", (message) => message.type() === "error" && seen.console.push(message.text()));
page.on("pageerror", (error) => seen.console.push(String(error)));
page.on("request", (request) => {
  const target = new URL(request.url());
  if (!["blob:", "data:"].includes(target.protocol) && target.origin !== new URL(url).origin) seen.foreign.push(request.url());
  if (target.pathname === "/v1/guide") seen.asked.push({ type: request.headers()["content-type"], bytes: request.postDataBuffer()?.length ?? 0 });
});

try {
  await page.goto(url);
  for (const photo of photos) {
    const data = (await readFile(photo)).toString("base64");
    seen.embeddings.push(
      await page.evaluate(async (data) => {
        const { embed } = await import("/page/embedder.js");
        return embed(new Blob([Uint8Array.from(atob(data), (char) => char.charCodeAt(0))]));
      }, data),
    );
  }
  await page.locator("#device").click();
  seen.pressed = await page.locator("#device").getAttribute("aria-pressed");
  await page.locator("#choose").setInputFiles(photos[0]);
  await page.waitForSelector(".callout");
  seen.recognized = await page.locator(".callout strong").first().innerText();
} catch (error) {
  seen.broke = String(error);
}
console.log(JSON.stringify(seen));
await browser.close();
