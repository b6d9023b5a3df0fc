"""The product families of the simulated shop: their words, try-on kinds, sizes and prices. Data only."""

from dataclasses import dataclass

from guidelens.schemas.catalog import TryOn


@dataclass(frozen=True)
class Family:
    """`dims_m` are median width, height and depth; `nouns` start with the canonical one, the rest are synonyms."""

    name: str
    vertical: str
    category: str
    nouns: tuple[str, ...]
    nouns_zh: tuple[str, ...]
    try_on: TryOn
    median_price_minor: int
    dims_m: tuple[float, float, float]
    materials: tuple[str, ...]
    fact: str


# Ordered so that the first eight already span all verticals.
FAMILIES: tuple[Family, ...] = (
    Family(
        "chair",
        "furniture",
        "furniture/chairs",
        ("chair", "seat"),
        ("椅子", "座椅"),
        "room",
        12900,
        (0.5, 0.9, 0.55),
        ("oak", "steel", "fabric", "leather"),
        "max_load_kg",
    ),
    Family(
        "sunglasses",
        "wearables",
        "wearables/sunglasses",
        ("sunglasses", "shades"),
        ("太阳镜", "墨镜"),
        "eyes",
        8900,
        (0.145, 0.05, 0.15),
        ("acetate", "metal", "titanium"),
        "uv_class",
    ),
    Family(
        "lipstick",
        "cosmetics",
        "cosmetics/lipsticks",
        ("lipstick", "lip colour"),
        ("口红", "唇膏"),
        "face",
        4900,
        (0.02, 0.08, 0.02),
        ("matte", "satin", "gloss"),
        "vegan",
    ),
    Family(
        "juice",
        "food",
        "food/juices",
        ("juice", "fruit drink"),
        ("果汁", "饮料"),
        "none",
        3200,
        (0.08, 0.26, 0.08),
        ("glass", "carton", "plastic"),
        "sugar_g_per_100ml",
    ),
    Family(
        "headphones",
        "electronics",
        "electronics/headphones",
        ("headphones", "headset"),
        ("耳机", "头戴耳机"),
        "none",
        14900,
        (0.18, 0.2, 0.08),
        ("plastic", "aluminium", "leather"),
        "battery_h",
    ),
    Family(
        "watch",
        "wearables",
        "wearables/watches",
        ("watch", "wristwatch"),
        ("手表", "腕表"),
        "wrist",
        16900,
        (0.042, 0.24, 0.012),
        ("steel", "leather", "rubber"),
        "water_resistance_m",
    ),
    Family(
        "lamp",
        "furniture",
        "furniture/lamps",
        ("lamp", "light"),
        ("台灯", "灯"),
        "room",
        7900,
        (0.3, 0.55, 0.3),
        ("brass", "steel", "paper", "oak"),
        "max_watt",
    ),
    Family("tea", "food", "food/teas", ("tea", "tea tin"), ("茶叶", "茶"), "none", 3900, (0.09, 0.12, 0.09), ("tin", "paper", "glass"), "caffeine"),
    Family(
        "sofa", "furniture", "furniture/sofas", ("sofa", "couch"), ("沙发", "长沙发"), "room", 29900, (1.9, 0.8, 0.9), ("fabric", "leather", "velvet"), "seats"
    ),
    Family(
        "shoe", "wearables", "wearables/shoes", ("sneaker", "shoe"), ("运动鞋", "鞋"), "foot", 9900, (0.11, 0.12, 0.29), ("leather", "canvas", "mesh"), "sole"
    ),
    Family(
        "eyeshadow",
        "cosmetics",
        "cosmetics/eyeshadows",
        ("eyeshadow palette", "eye palette"),
        ("眼影盘", "眼影"),
        "eyes",
        5900,
        (0.12, 0.015, 0.08),
        ("matte", "shimmer", "satin"),
        "num_shades",
    ),
    Family(
        "speaker",
        "electronics",
        "electronics/speakers",
        ("speaker", "loudspeaker"),
        ("音箱", "扬声器"),
        "none",
        12900,
        (0.12, 0.2, 0.12),
        ("plastic", "fabric", "aluminium"),
        "battery_h",
    ),
    Family(
        "jacket", "wearables", "wearables/jackets", ("jacket", "coat"), ("夹克", "外套"), "body", 15900, (0.55, 0.7, 0.1), ("cotton", "wool", "nylon"), "care"
    ),
    Family(
        "shelf",
        "furniture",
        "furniture/shelves",
        ("shelf", "bookcase"),
        ("书架", "架子"),
        "room",
        15900,
        (0.8, 1.6, 0.3),
        ("oak", "steel", "bamboo"),
        "max_load_kg",
    ),
    Family(
        "cereal",
        "food",
        "food/cereals",
        ("cereal", "muesli"),
        ("麦片", "谷物"),
        "none",
        3500,
        (0.19, 0.28, 0.06),
        ("carton", "paper", "plastic"),
        "fibre_g_per_100g",
    ),
    Family(
        "ring", "wearables", "wearables/rings", ("ring", "band"), ("戒指", "指环"), "hand", 19900, (0.02, 0.02, 0.006), ("gold", "silver", "titanium"), "carat"
    ),
)

COLOURS: tuple[tuple[str, str, tuple[int, int, int]], ...] = (
    ("red", "红色", (200, 40, 45)),
    ("orange", "橙色", (235, 130, 40)),
    ("yellow", "黄色", (240, 205, 70)),
    ("green", "绿色", (60, 145, 75)),
    ("teal", "青色", (40, 150, 150)),
    ("blue", "蓝色", (50, 95, 190)),
    ("purple", "紫色", (125, 70, 165)),
    ("pink", "粉色", (235, 140, 175)),
    ("brown", "棕色", (125, 85, 55)),
    ("black", "黑色", (45, 45, 50)),
    ("white", "白色", (235, 233, 228)),
    ("grey", "灰色", (145, 145, 150)),
)

MATERIALS_ZH: dict[str, str] = {
    "oak": "橡木", "steel": "钢", "fabric": "布艺", "leather": "皮革", "acetate": "板材", "metal": "金属", "titanium": "钛", "matte": "哑光", "satin": "缎面",
    "gloss": "亮光", "glass": "玻璃", "carton": "纸盒", "plastic": "塑料", "aluminium": "铝", "rubber": "橡胶", "brass": "黄铜", "paper": "纸", "tin": "铁罐",
    "velvet": "丝绒", "canvas": "帆布", "mesh": "网面", "shimmer": "珠光", "cotton": "棉", "wool": "羊毛", "nylon": "尼龙", "bamboo": "竹", "gold": "金", "silver": "银",
}  # fmt: skip

PATTERNS: tuple[tuple[str, str], ...] = (("plain", "纯色"), ("striped", "条纹"), ("dotted", "圆点"), ("checked", "格纹"), ("zigzag", "锯齿纹"))
SIZES: tuple[tuple[str, str], ...] = (("S", "小号"), ("M", "中号"), ("L", "大号"))
BRANDS: tuple[str, ...] = ("Alder", "Brisa", "Corvo", "Dune", "Elmo & Co", "Fjord", "Gala", "Hinode")

# Families that go together: bundles and outfits.
COMPLEMENTS: tuple[tuple[str, str], ...] = (
    ("chair", "lamp"), ("sofa", "lamp"), ("shelf", "speaker"), ("sofa", "shelf"), ("chair", "shelf"), ("sunglasses", "jacket"), ("watch", "ring"), ("shoe", "jacket"),
    ("lipstick", "eyeshadow"), ("lipstick", "ring"), ("juice", "cereal"), ("tea", "cereal"), ("headphones", "speaker"), ("watch", "jacket"), ("headphones", "shoe"),
)  # fmt: skip
