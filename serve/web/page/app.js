// The page: what is shown when, and which events go back. Sessions, slates and plans come from the server as they are.

import { askGuide, flush, flushLast, newId, post, product } from "./api.js";
import { closeCamera, frameOfFile, frameOfVideo, openCamera } from "./camera.js";
import { canEmbed, embed } from "./embedder.js";
import { factName, locale, otherLanguage, price, stepWords, switchLanguage, titleOf, word } from "./text.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => Object.assign(document.createElement(tag), { className: className ?? "", textContent: text ?? "" });

const shopper = new URLSearchParams(location.search).get("shopper");
const state = { session: newId(), personal: true, onDevice: false, frame: null, text: "", reply: null, done: 0, shown: -1, busy: false };

// Who the events are of: a named shopper, or this session only. Nothing is kept in the browser.
function who() {
  return state.personal && shopper ? { shopper_id: shopper } : { anonymous_id: state.session };
}

function report(event) {
  post({ session_id: state.session, device: device().name, ...who(), ...event });
}

function device() {
  const ar = Boolean(navigator.xr) || /android|iphone|ipad/i.test(navigator.userAgent);
  const front = Boolean(navigator.mediaDevices?.getUserMedia);
  return { ar, front_camera: front, name: ar ? (front ? "ar+front" : "ar") : "none" };
}

const viewer = new Viewer({ place: $("viewer"), about: $("about"), dims: $("dims"), report });

// Asking

async function ask() {
  if (state.busy) return;
  state.busy = true;
  $("stage").classList.add("scanning");
  notice("");
  const { ar, front_camera } = device();
  const fields = { session_id: state.session, locale: locale(), deadline_ms: 3000, num_recommendations: 8, regions: true, personalized: state.personal, device: { ar, front_camera } };
  if (state.text) fields.text = state.text;
  if (state.personal && shopper) fields.shopper_id = shopper;
  try {
    await flush();
    state.reply = await (state.frame && state.onDevice ? askWithEmbedding(fields) : askGuide(fields, state.frame));
    await show();
  } catch (error) {
    notice(error.code === "offline" ? word("offline") : error.code === "overloaded" ? word("busy") : error.message);
  } finally {
    state.busy = false;
    $("stage").classList.remove("scanning");
  }
}

// The encoder may be that of a release before: the answer then says that it lacks the frame, and the encoder is fetched again, once.
async function askWithEmbedding(fields, anew = false) {
  const reply = await askGuide({ ...fields, ...(await embed(state.frame, anew)) }, null);
  return reply.missing.includes("frame") && !anew ? askWithEmbedding(fields, true) : reply;
}

function newSession() {
  viewer.close();
  Object.assign(state, { session: newId(), reply: null, done: 0, shown: -1 });
}

async function scan(frame) {
  newSession();
  state.frame = frame;
  state.text = $("query").value.trim();
  const photo = $("photo");
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(frame);
  mode("photo");
  await ask();
}

// Showing

const mode = (name) => ($("stage").dataset.mode = name);

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function show() {
  const { reply } = state;
  showOverlay(reply);
  showSteps(reply);
  if (reply.degraded) notice(word(reply.degraded) ?? reply.degraded);
  $("footer").textContent = `${word("release")} ${reply.release} · ${Math.round(reply.timings_ms.total)} ms`;
  await showSlate(reply);
  const first = reply.in_catalogue ? reply.recognized[0]?.product_id : (viewer.product?.product_id ?? reply.slate[0]?.product_id);
  if (first && (reply.in_catalogue || !viewer.product)) await bringIntoView(first);
  else if (viewer.product) viewer.describe();
}

function showOverlay(reply) {
  const overlay = $("overlay");
  const regions = reply.regions ?? [];
  const shown = JSON.stringify([reply.in_catalogue, reply.recognized, regions, locale()]);
  if (overlay.dataset.shown === shown && overlay.childElementCount) return;
  overlay.dataset.shown = shown;
  overlay.replaceChildren();
  if (reply.in_catalogue === null) return;
  const best = reply.recognized[0];
  const card = make("div", `callout ${best ? "" : "unknown"}`);
  if (!best) {
    card.append(make("strong", "", word("unknown_title")), make("p", "", word("unknown_body")));
    overlay.append(card);
    return;
  }
  const head = make("div", "callout-head");
  const share = Math.round(best.confidence * 100);
  const ring = make("span", "ring", `${share}%`);
  ring.style.setProperty("--share", best.confidence);
  ring.title = `${share} % ${word("sure")}`;
  head.append(make("strong", "recognized-title", best.title), ring);
  const facts = make("dl", "facts");
  for (const [name, value] of Object.entries(best.facts).slice(0, 5)) {
    const pair = make("div");
    pair.append(make("dt", "", factName(name)), make("dd", "", shortened(value)));
    facts.append(pair);
  }
  card.append(head, facts);
  const others = reply.recognized.slice(1, 3).filter((each) => each.confidence >= 0.08);
  if (others.length) card.append(alternatives(others));
  if (regions.length) overlay.append(...regions.map(regionButton), card);
  else overlay.append(make("div", "pin"), card);
}

// Several products in one frame: the first is the one the answer is for, a tap brings another into view.
function regionButton(region, place) {
  const button = make("button", `region ${place ? "" : "picked"}`);
  button.type = "button";
  button.append(make("span", "", region.title));
  const [left, top, right, bottom] = onStage(region.box);
  Object.assign(button.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
  button.addEventListener("click", () => {
    for (const each of $("overlay").querySelectorAll(".region")) each.classList.toggle("picked", each === button);
    bringIntoView(region.product_id);
  });
  return button;
}

// The photo covers the stage, so a part of it may lie outside: shares of the photo to percent of the stage.
function onStage(box) {
  const { naturalWidth, naturalHeight } = $("photo");
  const { clientWidth, clientHeight } = $("stage");
  if (!naturalWidth) return box.map((share) => 100 * share);
  const scale = Math.max(clientWidth / naturalWidth, clientHeight / naturalHeight);
  const sizes = [(scale * naturalWidth) / clientWidth, (scale * naturalHeight) / clientHeight];
  return box.map((share, place) => 100 * Math.min(1, Math.max(0, 0.5 + (share - 0.5) * sizes[place % 2])));
}

function shortened(value) {
  const text = Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.length > 60 ? `${text.slice(0, 58)}…` : text;
}

function alternatives(others) {
  const row = make("div", "alternatives");
  row.append(make("span", "", word("maybe")));
  for (const each of others) {
    const button = make("button", "chip", each.title);
    button.type = "button";
    button.addEventListener("click", () => bringIntoView(each.product_id));
    row.append(button);
  }
  return row;
}

async function bringIntoView(id) {
  const found = await product(id).catch(() => null);
  if (!found) return;
  $("view-panel").hidden = false;
  viewer.show(found);
  for (const card of $("cards").children) card.classList.toggle("selected", card.dataset.product === id);
}

async function showSlate(reply) {
  const found = await Promise.all(reply.slate.map((item) => product(item.product_id).catch(() => null)));
  const cards = reply.slate.map((item, place) => slateCard(item, found[place]));
  $("cards").replaceChildren(...cards);
  $("slate-panel").hidden = !cards.length;
  document.querySelector("#slate-panel h2").textContent = word(reply.degraded === "popularity" ? "for_anyone" : "for_you");
}

function slateCard(item, known) {
  const card = make("button", "card");
  card.type = "button";
  card.dataset.product = item.product_id;
  card.append(pictureOf(known, item.title));
  const body = make("div", "card-body");
  body.append(make("strong", "card-title", known ? titleOf(known) : item.title));
  const line = make("div", "card-line");
  line.append(make("span", "price", price(item)));
  if (item.interest !== null) line.append(interestBar(item.interest));
  body.append(line);
  for (const reason of item.reasons.slice(0, 2)) body.append(make("span", "reason", reason));
  card.append(body);
  card.addEventListener("click", async () => {
    report({ type: "click", product_id: item.product_id, request_id: state.reply.request_id, position: item.position, propensity: item.propensity, release: state.reply.release });
    await bringIntoView(item.product_id);
    $("view-panel").scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
  return card;
}

function pictureOf(known, title) {
  if (!known?.image_url) return make("div", "no-picture", [...title][0]?.toUpperCase() ?? "?");
  return Object.assign(document.createElement("img"), { src: known.image_url, alt: "", loading: "lazy" });
}

function interestBar(interest) {
  const bar = make("span", "interest");
  bar.title = `${word("interest")} ${Math.round(interest * 100)} %`;
  bar.style.setProperty("--share", interest);
  bar.append(make("i"));
  return bar;
}

// The plan: only the first open step is on; what came of it goes back, and the rest is asked for again.

const ICONS = {
  show_info: "M12 8h.01M11 12h1v5h1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18", show_3d: "M12 3 4 7.5v9L12 21l8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9", place_in_room: "M4 20V9l8-5 8 5v11M9 20v-6h6v6",
  try_on: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8M5 21c0-4 3-7 7-7s7 3 7 7", compare_similar: "M8 4v16M16 4v16M4 8h8M12 16h8", show_reviews: "m12 4 2.4 5 5.6.7-4.1 3.8 1.1 5.5-5-2.8-5 2.8 1.1-5.5L4 9.7 9.600 9z",
  show_bundle: "M4 8h16v12H4zM4 12h16M12 8v12M12 8c-2-4-6-4-5-1s5 1 5 1 4 2 5-1-3-3-5 1", offer_coupon: "M4 8h16v3a2 2 0 0 0 0 4v3H4v-3a2 2 0 0 0 0-4zM14 8v10", ask_preference: "M4 5h16v11H9l-5 4z",
  call_to_checkout: "M4 5h2l2 10h9l2-7H7M10 19h.01M16 19h.01", hand_to_human: "M7 11V6a1.500 1.500 0 0 1 3 0v4-6a1.500 1.500 0 0 1 3 0v6-5a1.500 1.500 0 0 1 3 0v8c0 5-2 7-5 7-4 0-5-3-7-7-1-2 1-3 3-2z", stay_quiet: "M5 12h.01M12 12h.01M19 12h.01",
};

function icon(step) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[step] ?? ICONS.show_info);
  svg.append(path);
  return svg;
}

function showSteps(reply) {
  const items = reply.plan.map((planned, place) => stepItem(planned, place === 0));
  $("steps").replaceChildren(...items);
  $("plan-panel").hidden = !items.length && state.done === 0;
  if (!items.length && state.done > 0) $("steps").append(make("li", "plan-done", word("plan_done")));
  const first = reply.plan[0];
  if (!first || state.shown === state.done) return;
  state.shown = state.done;
  report({ type: "guide_step", step: first.step, step_index: state.done, step_propensity: first.propensity, request_id: reply.request_id, release: reply.release, ...about(first) });
}

const about = (planned) => (planned.product_id ? { product_id: planned.product_id } : {});

function stepItem(planned, isNext) {
  const item = make("li", isNext ? "step now" : "step");
  const [title, verb] = stepWords(planned.step);
  const mark = make("span", "step-icon");
  mark.append(icon(planned.step));
  const body = make("div", "step-body");
  body.append(make("strong", "", title));
  if (planned.say && planned.say !== title) body.append(make("p", "", planned.say));
  if (planned.with_product_ids?.length) body.append(together(planned.with_product_ids));
  item.dataset.step = planned.step;
  item.append(mark, body);
  if (isNext) {
    const actions = make("div", "step-actions");
    const go = make("button", "did", verb);
    const skip = make("button", "skip", word("skip"));
    go.type = skip.type = "button";
    go.addEventListener("click", () => act(planned));
    skip.addEventListener("click", () => settle(planned, "none"));
    actions.append(go, skip);
    body.append(actions);
  }
  return item;
}

function together(ids) {
  const row = make("div", "together");
  const buttons = ids.map((id) => [id, row.appendChild(make("button", "with"))]);
  for (const [id, button] of buttons) {
    button.type = "button";
    button.addEventListener("click", () => bringIntoView(id));
    product(id).then((found) => { button.textContent = titleOf(found); }, () => button.remove());
  }
  return row;
}

async function act(planned) {
  if (planned.product_id && planned.product_id !== viewer.product?.product_id) await bringIntoView(planned.product_id);
  const places = { show_info: "stage", show_3d: "view-panel", place_in_room: "view-panel", try_on: "view-panel", compare_similar: "slate-panel", show_bundle: "slate-panel" };
  if (places[planned.step]) $(places[planned.step]).scrollIntoView({ behavior: "smooth", block: "center" });
  if (planned.step === "place_in_room") viewer.enterRoom();
  if (planned.step === "call_to_checkout" && planned.product_id) {
    report({ type: "cart", product_id: planned.product_id, request_id: state.reply.request_id, release: state.reply.release });
    return settle(planned, "cart");
  }
  return settle(planned, "engaged");
}

async function settle(planned, outcome) {
  if (state.busy || planned !== state.reply.plan[0]) return;
  report({ type: "step_outcome", step: planned.step, step_index: state.done, outcome, request_id: state.reply.request_id, release: state.reply.release, ...about(planned) });
  state.done += 1;
  await ask();
}

// Controls

async function turnCameraOn() {
  const on = await openCamera($("video"));
  if (on) mode("camera");
  else notice(word("no_camera"));
  return on;
}

$("shutter").addEventListener("click", async () => {
  const video = $("video");
  if ($("stage").dataset.mode !== "camera") {
    if (await turnCameraOn()) $("overlay").replaceChildren();
    label();
    return;
  }
  const frame = await frameOfVideo(video);
  closeCamera(video);
  await scan(frame);
  label();
});

$("choose").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  closeCamera($("video"));
  const frame = await frameOfFile(file).catch(() => file);
  await scan(frame);
  label();
});

$("search").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("query").value.trim();
  if (!text) return;
  newSession();
  if ($("stage").dataset.mode !== "photo") state.frame = null;
  state.text = text;
  report({ type: "search", query: text });
  await ask();
});

$("again").addEventListener("click", () => {
  newSession();
  closeCamera($("video"));
  Object.assign(state, { frame: null, text: "" });
  $("query").value = "";
  $("overlay").replaceChildren();
  for (const panel of ["view-panel", "plan-panel", "slate-panel"]) $(panel).hidden = true;
  notice("");
  mode("idle");
  label();
});

$("language").addEventListener("click", async () => {
  switchLanguage();
  label();
  if (state.reply) await ask();
});

$("privacy").addEventListener("click", async () => {
  const asked = Boolean(state.reply);
  newSession();
  state.personal = !state.personal;
  label();
  if (asked) await ask();
});

$("device").addEventListener("click", () => {
  state.onDevice = !state.onDevice;
  label();
});

addEventListener("visibilitychange", () => document.visibilityState === "hidden" && flushLast());
addEventListener("pagehide", () => {
  viewer.close();
  flushLast();
});

function label() {
  document.documentElement.lang = locale();
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = word(element.dataset.text);
  $("language").textContent = otherLanguage();
  $("query").placeholder = word("search_hint");
  $("query").setAttribute("aria-label", word("search_go"));
  $("choose-label").title = word("choose_photo");
  $("choose").setAttribute("aria-label", word("choose_photo"));
  $("again").title = word("start_again");
  $("again").setAttribute("aria-label", word("start_again"));
  const shutter = word($("stage").dataset.mode === "camera" ? "scan" : "camera_on");
  $("shutter").title = shutter;
  $("shutter").setAttribute("aria-label", shutter);
  $("privacy").textContent = word(state.personal ? "personal_on" : "personal_off");
  $("privacy").setAttribute("aria-pressed", String(state.personal));
  $("privacy").title = word("personal_title");
  $("device").hidden = !canEmbed();
  $("device").textContent = word(state.onDevice ? "photos_stay" : "photos_sent");
  $("device").setAttribute("aria-pressed", String(state.onDevice));
  $("device").title = word("photos_title");
}

label();
