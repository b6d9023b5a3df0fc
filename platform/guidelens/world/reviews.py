"""What shoppers write of products: ratings that follow hidden quality and taste, in English and Chinese."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from guidelens.world.latents import ProductLatents, ShopperLatents, philox
from guidelens.world.parameters import STYLE_DIM, WorldParameters
from guidelens.world.people import shopper_name

_SAYS = {
    "en": (
        ("Came apart within a week.", "Not what the pictures promise."),
        ("Feels cheaper than it looks.", "Would not buy it again."),
        ("It does its job.", "All right for the price."),
        ("Good, and as described.", "Happy with it so far."),
        ("Even better than I hoped.", "I bought a second one."),
    ),
    "zh": (
        ("用了一周就坏了。", "和图片不一样。"),
        ("做工一般，有点失望。", "不会再买了。"),
        ("还可以，够用。", "对得起这个价格。"),
        ("质量不错，和描述一致。", "目前很满意。"),
        ("比想象的还好！", "已经回购了。"),
    ),
}
_DAYS_BEFORE = 300.0


def write_reviews(
    products: ProductLatents, shoppers: ShopperLatents, product_ids: list[str], num_days: int, seed: int, parameters: WorldParameters, path: Path
) -> int:
    """Writes reviews.jsonl, product by product; returns how many. Popular products have more; a shopper reviews a product once."""
    start = datetime.fromisoformat(parameters.start_day).replace(tzinfo=UTC)
    written = 0
    with path.open("w", encoding="utf-8") as sink:
        for row in range(products.num):
            rng = philox(seed, "reviews", row)
            mean = parameters.people.reviews_a_product * np.exp(0.7 * products.popularity[row])
            who = rng.choice(shoppers.num, size=min(int(rng.poisson(mean)), shoppers.num), replace=False)
            liked = 3.6 + 0.8 * products.quality[row] + 0.4 * (shoppers.taste[who] @ products.style[row]) / np.sqrt(STYLE_DIM) + 0.7 * rng.normal(size=len(who))
            ratings = np.clip(np.round(liked), 1, 5).astype(np.int64)
            for number, (shopper, rating, draws) in enumerate(zip(who, ratings, rng.random((len(who), 4)), strict=True)):
                locale = "zh" if draws[0] < 0.5 else "en"
                when = start + timedelta(days=float(draws[1]) * (_DAYS_BEFORE + num_days) - _DAYS_BEFORE)
                record = {
                    "review_id": f"{product_ids[row]}-r{number:04d}",
                    "product_id": product_ids[row],
                    "shopper_id": shopper_name(int(shopper)),
                    "ts": when.isoformat(),
                    "rating": int(rating),
                    "text": _SAYS[locale][rating - 1][int(draws[2] * 2)] if draws[3] < 0.8 else "",
                    "locale": {"zh": "zh-CN", "en": "en"}[locale],
                }
                sink.write(json.dumps(record, ensure_ascii=False) + "\n")
            written += len(who)
    return written
