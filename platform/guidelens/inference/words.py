"""What the guide says: reasons of a recommendation and sentences of a step, in English and Chinese."""

from guidelens.schemas.steps import GuideStep

REASONS: dict[str, tuple[str, str]] = {
    "similar": ("similar to what you scanned", "与您扫描的商品相似"),
    "search": ("matches your search", "符合您的搜索"),
    "habit": ("often viewed by you", "您经常浏览"),
    "price": ("in your price range", "在您常看的价位"),
    "popular": ("popular now", "近期热门"),
    "category": ("from a category you look at", "来自您关注的类别"),
    "intent": ("fits what you are looking for", "符合您的需求"),
}

SAY: dict[GuideStep, tuple[str, str]] = {
    GuideStep.SHOW_INFO: ("Here is what to know about it.", "为您介绍这件商品。"),
    GuideStep.SHOW_3D: ("Turn it around and look at it from all sides.", "转动一下，从各个角度看看。"),
    GuideStep.PLACE_IN_ROOM: ("Place it in your room to see whether it fits.", "把它放进房间看看是否合适。"),
    GuideStep.TRY_ON: ("Try it on with your camera.", "打开摄像头试戴一下。"),
    GuideStep.COMPARE_SIMILAR: ("Here are similar products side by side.", "和相似的商品对比一下。"),
    GuideStep.SHOW_REVIEWS: ("See what others say about it.", "看看其他顾客的评价。"),
    GuideStep.SHOW_BUNDLE: ("These go well with it.", "这些与它很搭。"),
    GuideStep.OFFER_COUPON: ("There is a coupon for it today.", "今天有一张优惠券。"),
    GuideStep.ASK_PREFERENCE: ("What matters most to you here?", "您最看重哪一点？"),
    GuideStep.CALL_TO_CHECKOUT: ("Ready to take it?", "现在就带走它吗？"),
    GuideStep.HAND_TO_HUMAN: ("A colleague can help you on from here.", "可以为您转接人工顾问。"),
    GuideStep.STAY_QUIET: ("", ""),
}


def is_chinese(locale: str) -> bool:
    return locale.lower().startswith("zh")


def reason(key: str, locale: str) -> str:
    return REASONS[key][is_chinese(locale)]


def say(step: GuideStep, locale: str) -> str:
    """One sentence for people; empty for a silent step."""
    return SAY[step][is_chinese(locale)]
