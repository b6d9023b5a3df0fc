// Walks through the page as a shopper would, in a real Chromium whose camera shows a photo; prints what it saw as one JSON object.
//
//   node page.mjs URL CAMERA.y4m SCREENSHOTS/ CHROMIUM LOCALE

import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(import.meta.dirname, "../../serve/web/package.json"));
const { chromium } = require("playwright-core");
const [url, camera, shots, executablePath, locale] = process.argv.slice(2);
const args = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"];
if (camera !== "none") args.push(`--use-file-for-fake-video-capture=${camera}`);
const seen = { console: [], foreign: [], failed: [], posted: [] };

const browser = await chromium.launch({ executablePath, headless: true, args });
const context = await browser.newContext({ viewport: { width: 412, height: 915 }, deviceScaleFactor: Number(process.env.PAGE_SCALE ?? 1), locale, permissions: camera === "none" ? [] : ["camera"], isMobile: true, hasTouch: true });
const page = await context.newPage();
page.setDefaultTimeout(40000);
page.on("console", (message) => message.type() === "error" && seen.console.push(message.text()));
page.on("pageerror", (error) => seen.console.push(String(error)));
page.on("request", (request) => {
  const target = new URL(request.url());
  if (!["blob:", "data:"].includes(target.protocol) && target.origin !== new URL(url).origin) seen.foreign.push(request.url());
  if (target.pathname === "/v1/events" && request.method() === "POST") seen.posted.push(...JSON.parse(request.postData() ?? '{"events":[]}').events);
});
page.on("response", (response) => response.status() >= 400 && seen.failed.push(`${response.status()} ${response.url()}`));

const text = (selector) => page.locator(selector).first().innerText();
const settled = () => page.waitForFunction(() => !document.querySelector(".scanning"));
const shot = async (name) => {
  await page.evaluate(() => scrollTo({ top: 0, behavior: "instant" }));
  await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
};
const steps = () => page.locator(".step").evaluateAll((items) => items.map((item) => item.dataset.step));

try {
  await page.goto(url);
  await shot("1-welcome");
  if (camera === "none") {
    await page.locator("#query").fill(process.argv[7]);
    await page.locator(".go").click();
  } else {
    await page.locator("#shutter").click();
    await page.waitForFunction(() => document.querySelector("#video").videoWidth > 0);
    await page.waitForTimeout(500);
    await shot("2-camera");
    await page.locator("#shutter").click();
    await page.waitForSelector(".callout");
  }
  await page.waitForSelector(".card");
  await settled();
  seen.recognized = camera === "none" ? null : await text(".callout strong");
  seen.facts = await page.locator(".facts div").allInnerTexts();
  seen.cards = await page.locator(".card").evaluateAll((cards) => cards.map((card) => ({ product: card.dataset.product, title: card.querySelector(".card-title").textContent, price: card.querySelector(".price").textContent, reasons: card.querySelectorAll(".reason").length })));
  seen.steps = await steps();
  seen.viewer = (await page.locator("model-viewer").count()) > 0;
  seen.viewer_note = (await page.locator(".viewer-note").allInnerTexts()).join(" ");
  const loaded = () => page.waitForFunction(() => document.querySelector("model-viewer")?.loaded);
  if (seen.viewer) {
    await loaded();
    seen.model = await page.locator("model-viewer").getAttribute("src");
    seen.metres = await page.locator("model-viewer").evaluate((viewer) => { const size = viewer.getDimensions(); return [size.x, size.y, size.z]; });
    await page.waitForTimeout(800);
    const box = await page.locator("model-viewer").boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width / 2 + 90, box.y + box.height / 2 + 6, { steps: 8 });
    await page.mouse.up();
  }
  await shot("3-answer");
  const inView = await page.locator(".card.selected").evaluateAll((cards) => cards.map((card) => card.dataset.product));
  const other = page.locator(`.card:not(.selected)`).first();
  seen.tapped = await other.getAttribute("data-product");
  seen.before_tap = inView;
  await other.click();
  await page.waitForFunction((id) => document.querySelector(`.card.selected`)?.dataset.product === id, seen.tapped);
  seen.swapped_title = await text("#about h3");
  if (await page.locator("model-viewer").count()) {
    await loaded();
    seen.swapped_model = await page.locator("model-viewer").getAttribute("src");
  }
  await page.waitForTimeout(700);
  await shot("4-swapped");
  seen.outcomes = [];
  for (const button of [".step.now .did", ".step.now .skip"]) {
    if (!(await page.locator(button).count())) break;
    const before = await page.locator(".step.now").getAttribute("data-step");
    const answered = page.waitForResponse((response) => response.url().endsWith("/v1/guide"));
    await page.locator(button).click();
    await answered;
    await settled();
    seen.outcomes.push({ step: before, next: await steps() });
  }
  await shot("5-after-steps");
  await page.locator("#language").click();
  await settled();
  await page.waitForTimeout(400);
  await shot("6-other-language");
  seen.other_language = await text("#plan-panel h2");
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.waitForTimeout(600);
  await shot("7-laptop");
  await page.waitForTimeout(2500);
} catch (error) {
  seen.broke = String(error);
  await shot("broke").catch(() => {});
} finally {
  console.log(JSON.stringify(seen));
  await browser.close();
}
