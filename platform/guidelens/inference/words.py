"""What the guide says: reasons of a recommendation and sentences of a step, in English and Chinese."""

from collections.abc import Sequence

from guidelens.inference.reranking.expert import ExpertRule
from guidelens.schemas.steps import GuideStep

MAX_REASONS = 3
REASONS: dict[str, tuple[str, str]] = {
    "pinned": ("chosen by the shop", "店家推荐"),
    "expert": ("suggested by the shop's experts", "店内专家推荐"),
    "looks_like_frame": ("looks like what you scanned", "与您扫描的商品相似"),
    "frame": ("fits what you scanned", "与您扫描的商品相配"),
    "query": ("matches your search", "符合您的搜索"),
    "looks_like_focus": ("similar to the product in view", "与您正在看的商品相似"),
    "focus": ("goes well with the product in view", "与您正在看的商品相配"),
    "same_visit": ("you looked at it before", "您之前看过"),
    "visit": ("because you looked at {title}", "因为您看过{title}"),
    "visits": ("like what you looked at lately", "与您最近浏览的商品相近"),
    "behaviour": ("fits how you have been shopping", "符合您近期的购物习惯"),
    "ar": ("fits what you tried in AR", "符合您的AR体验"),
    "profile": ("fits your profile", "符合您的资料"),
    "similar": ("similar to what you scanned", "与您扫描的商品相似"),
    "others_focus": ("taken by others beside the product in view", "其他顾客还选了它来搭配您正在看的商品"),
    "others_visits": ("taken by others who looked at what you did", "与您浏览相同商品的顾客也选了它"),
    "popular": ("liked by many shoppers", "受到许多顾客喜爱"),
    "discover": ("something else to discover", "换个口味看看"),
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


def reason(key: str, locale: str, title: str = "") -> str:
    """`title`: of the product that the reason names, where it names one."""
    return REASONS[key][is_chinese(locale)].format(title=title)


def say(step: GuideStep, locale: str) -> str:
    """One sentence for people; empty for a silent step."""
    return SAY[step][is_chinese(locale)]


def with_rules(experts: Sequence[Sequence[ExpertRule]], pinned_by: Sequence[str | None], locale: str) -> list[list[str]]:
    """Why the shop itself put each product there, whatever else speaks for it: it was pinned, or these expert rules raised it."""
    pinned = [[reason("pinned", locale)] if name is not None else [] for name in pinned_by]
    return [[*first, *dict.fromkeys(said_by(rule, locale) for rule in rules)][:MAX_REASONS] for first, rules in zip(pinned, experts, strict=True)]


def said_by(rule: ExpertRule, locale: str) -> str:
    """The rule's own reason, or the general words of experts where it gives none in this language."""
    own = rule.reason and (rule.reason.zh if is_chinese(locale) else rule.reason.en)
    return own or reason("expert", locale)
