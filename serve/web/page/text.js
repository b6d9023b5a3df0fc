// Every word the page shows, in English and Chinese, and which of the two is on.

const WORDS = {
  en: {
    welcome_title: "Point it at something.",
    welcome_body: "Hold a product in front of the camera, choose a photo, or just type what you are after.",
    camera_on: "Turn the camera on",
    scan: "Scan",
    choose_photo: "Choose a photo",
    start_again: "Start again",
    search_hint: "Lighter, in red …",
    search_go: "Search",
    in_view: "In view",
    next_steps: "What to do next",
    for_you: "For you",
    for_anyone: "Popular right now",
    photos_sent: "Photos sent",
    photos_stay: "Photos stay here",
    photos_title: "Photos stay here: this device looks at the photo itself and sends numbers that say what it shows, never the photo. The first time it fetches the encoder for that.",
    personal_on: "Personal",
    personal_off: "Private",
    personal_title: "Personal: answers may use what the shop knows of you. Private: nothing the shop knows of you is read, and what you do here is kept under a one-off number.",
    sure: "sure",
    maybe: "or",
    unknown_title: "Not one of ours, as far as we can see",
    unknown_body: "Try another angle or more light. Below is what we would show you anyway.",
    no_camera: "No camera here, so choose a photo or type instead.",
    no_3d_size: "We do not know this product's dimensions, so here is its picture rather than a guess at its size.",
    no_3d_viewer: "The 3-D viewer is not installed on this server, so here is a picture. (npm ci in serve/web)",
    no_picture: "No picture of this product.",
    interest: "interest",
    did: "Done",
    skip: "Skip",
    plan_done: "That was all. Ask for something else whenever you like.",
    offline: "No answer from the guide. Check the connection and try again.",
    busy: "Many people are asking right now. Please try again in a moment.",
    without_frame: "Answered without looking at the picture: there was not enough time.",
    without_shopper_features: "Answered without what the shop knows of you: it could not be read in time.",
    baseline: "There was no time for more than what others took along with what you looked at.",
    popularity: "There was no time for more than what most people like.",
    no_guide_model: "This shop has no history yet: these are look-alikes and matches, not learned preferences.",
    release: "release",
    steps: {
      show_info: ["Read the facts", "Show facts"],
      show_3d: ["See it in 3-D", "Turn it around"],
      place_in_room: ["Place it in your room", "Place it"],
      try_on: ["Try it on", "Try it on"],
      compare_similar: ["Compare with similar ones", "Compare"],
      show_reviews: ["See what others say", "Show reviews"],
      show_bundle: ["See what goes with it", "Show set"],
      offer_coupon: ["A coupon for you", "Take it"],
      ask_preference: ["Tell us what matters to you", "Tell"],
      call_to_checkout: ["Put it in the basket", "Add to basket"],
      hand_to_human: ["Ask one of our people", "Call someone"],
      stay_quiet: ["Take your time", "Carry on"],
    },
  },
  zh: {
    welcome_title: "对准一件商品",
    welcome_body: "把商品放到镜头前，选一张照片，或者直接输入你想找的东西。",
    camera_on: "打开相机",
    scan: "扫描",
    choose_photo: "选择照片",
    start_again: "重新开始",
    search_hint: "想要轻一点、红色的……",
    search_go: "搜索",
    in_view: "当前商品",
    next_steps: "接下来",
    for_you: "为你推荐",
    for_anyone: "大家都喜欢",
    photos_sent: "上传照片",
    photos_stay: "照片不离开本机",
    photos_title: "照片不离开本机：由这台设备自己识别照片，只发送描述内容的数字，从不发送照片本身。首次使用时会下载识别模型。",
    personal_on: "个性化",
    personal_off: "无痕",
    personal_title: "个性化：回答会参考商店对你的了解。无痕：不读取商店对你的了解，你的操作只记在一个一次性编号下。",
    sure: "把握",
    maybe: "或者",
    unknown_title: "好像不是我们的商品",
    unknown_body: "换个角度或光线再试试。下面是我们仍想推荐给你的。",
    no_camera: "这里没有相机，可以选一张照片或直接输入。",
    no_3d_size: "我们不知道这件商品的尺寸，所以只显示图片，而不去猜它的大小。",
    no_3d_viewer: "此服务器未安装三维查看器，因此显示图片。（在 serve/web 中运行 npm ci）",
    no_picture: "这件商品没有图片。",
    interest: "兴趣",
    did: "完成",
    skip: "跳过",
    plan_done: "就是这些了。想看别的随时问我。",
    offline: "导购没有回应，请检查网络后重试。",
    busy: "现在咨询的人很多，请稍后再试。",
    without_frame: "时间不够，没来得及看图片就回答了。",
    without_shopper_features: "没能及时读取商店对你的了解。",
    baseline: "时间只够推荐其他顾客与您浏览的商品一起选择的商品。",
    popularity: "时间只够推荐大家最喜欢的商品。",
    no_guide_model: "这家店还没有历史记录：这些是相似和匹配的商品，不是学到的偏好。",
    release: "版本",
    steps: {
      show_info: ["看看商品信息", "查看信息"],
      show_3d: ["三维查看", "转一转"],
      place_in_room: ["放进你的房间", "放进房间"],
      try_on: ["试穿试戴", "试一试"],
      compare_similar: ["和相似的比一比", "对比"],
      show_reviews: ["看看别人怎么说", "看评价"],
      show_bundle: ["看看搭配", "看搭配"],
      offer_coupon: ["送你一张优惠券", "领取"],
      ask_preference: ["告诉我们你看重什么", "告诉我们"],
      call_to_checkout: ["放进购物篮", "加入购物篮"],
      hand_to_human: ["请店员帮忙", "呼叫店员"],
      stay_quiet: ["慢慢看", "继续"],
    },
  },
};

const FACTS_ZH = {
  colour: "颜色", color: "颜色", material: "材质", pattern: "图案", size: "尺码", shape: "形状", brand: "品牌", origin: "产地", care: "保养", ingredients: "配料", weight: "重量",
  warranty_years: "保修（年）", max_load_kg: "承重（千克）", battery_h: "续航（小时）", uv_class: "防紫外线", caffeine: "咖啡因", vegan: "纯素", sole: "鞋底", seats: "座位", carat: "克拉",
  max_watt: "最大瓦数", num_shades: "色数", water_resistance_m: "防水（米）", sugar_g_per_100ml: "糖（克/100毫升）", fibre_g_per_100g: "膳食纤维（克/100克）", nutrition: "营养", compatibility: "适配",
};

let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

export const locale = () => (language === "zh" ? "zh-CN" : "en");
export const word = (key) => WORDS[language][key];
export const stepWords = (step) => WORDS[language].steps[step] ?? [step, word("did")];
export const factName = (name) => (language === "zh" && FACTS_ZH[name]) || name.replaceAll("_", " ");
export const otherLanguage = () => (language === "zh" ? "English" : "中文");

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
}

export function price(product) {
  if (product.price_minor == null || !product.currency) return "";
  const format = new Intl.NumberFormat(locale(), { style: "currency", currency: product.currency });
  return format.format(product.price_minor / 10 ** format.resolvedOptions().maximumFractionDigits);
}

export function titleOf(product) {
  return language === "zh" && product.title_zh ? product.title_zh : product.title;
}

export function descriptionOf(product) {
  return language === "zh" && product.description_zh ? product.description_zh : product.description;
}
