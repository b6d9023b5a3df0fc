// The product in view: its 3-D model in true metres where there is one, else its picture; reports how it is looked at.

import { descriptionOf, price, titleOf, word } from "./text.js";

const available = document.querySelector('meta[name="guidelens-viewer"]').content === "yes";
let loading = null;

function loadViewer() {
  // Decoders for compressed models would come from other hosts: our models need none.
  self.ModelViewerElement = { dracoDecoderLocation: "/vendor/", ktx2TranscoderLocation: "/vendor/", lottieLoaderLocation: "/vendor/" };
  loading ??= import("/vendor/model-viewer.min.js");
  return loading;
}

const centimetres = (metres) => {
  const value = metres * 100;
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(0) : value.toFixed(1);
};

export class Viewer {
  constructor({ place, about, dims, report }) {
    Object.assign(this, { place, about, dims, report });
    this.product = null;
    this.since = 0;
  }

  // Swaps the product in view; the view time of the one before is reported.
  show(product) {
    const same = this.product?.product_id === product.product_id;
    if (!same) this.close();
    this.product = product;
    this.describe();
    if (same) return;
    this.since = performance.now();
    this.report({ type: "ar_open", product_id: product.product_id });
    if (product.model_url && available) this.showModel(product);
    else this.showPicture(product, product.model_url ? "no_3d_viewer" : product.image_url ? "no_3d_size" : "no_picture");
  }

  close() {
    if (!this.product) return;
    const view_ms = Math.min(86_400_000, Math.round(performance.now() - this.since));
    this.report({ type: "ar_view", product_id: this.product.product_id, view_ms });
    this.product = null;
  }

  describe() {
    const { product } = this;
    const size = product.size;
    this.dims.textContent = size ? `${centimetres(size.width_m)} × ${centimetres(size.height_m)} × ${centimetres(size.depth_m)} cm` : "";
    const title = Object.assign(document.createElement("h3"), { textContent: titleOf(product) });
    const cost = Object.assign(document.createElement("span"), { className: "price", textContent: price(product) });
    const text = Object.assign(document.createElement("p"), { textContent: descriptionOf(product) });
    const head = document.createElement("div");
    head.className = "about-head";
    head.append(title, cost);
    this.about.replaceChildren(head, text);
    const note = this.place.querySelector(".viewer-note");
    if (note) note.textContent = word(note.dataset.why);
  }

  showModel(product) {
    loadViewer();
    const model = document.createElement("model-viewer");
    const settings = {
      src: product.model_url, alt: product.title, ar: "", "ar-modes": "webxr scene-viewer quick-look", "ar-scale": "fixed", "camera-controls": "", "touch-action": "pan-y",
      "shadow-intensity": "0.9", "shadow-softness": "0.8", exposure: "1.05", "environment-image": "neutral", "camera-orbit": "28deg 74deg auto", "interaction-prompt": "auto",
    };
    for (const [name, value] of Object.entries(settings)) model.setAttribute(name, value);
    if (product.image_url) model.setAttribute("poster", product.image_url);
    model.dataset.product = product.product_id;
    this.place.replaceChildren(model);
    this.watch(model, product.product_id);
  }

  showPicture(product, why) {
    const note = Object.assign(document.createElement("p"), { className: "viewer-note", textContent: word(why) });
    note.dataset.why = why;
    if (!product.image_url) {
      this.place.replaceChildren(note);
      return;
    }
    const picture = Object.assign(document.createElement("img"), { src: product.image_url, alt: product.title });
    this.place.replaceChildren(picture, note);
  }

  // One event a gesture: what the pointer did between going down and up.
  watch(model, product_id) {
    let before = null;
    const gesture = (name) => this.report({ type: "ar_gesture", product_id, gesture: name });
    model.addEventListener("pointerdown", () => (before = model.getCameraOrbit?.() ?? null));
    model.addEventListener("pointerup", () => {
      const after = model.getCameraOrbit?.();
      if (!before || !after) return;
      if (Math.abs(after.radius - before.radius) > 0.02 * before.radius) gesture("pinch");
      else if (Math.abs(after.theta - before.theta) + Math.abs(after.phi - before.phi) > 0.04) gesture("rotate");
      else gesture("tap");
      before = null;
    });
    let wheel = 0;
    model.addEventListener("wheel", () => {
      clearTimeout(wheel);
      wheel = setTimeout(() => gesture("pinch"), 250);
    }, { passive: true });
    model.addEventListener("ar-status", (event) => event.detail.status === "session-started" && gesture("walk_around"));
  }

  enterRoom() {
    const model = this.place.querySelector("model-viewer");
    if (model?.canActivateAR) model.activateAR();
  }
}
