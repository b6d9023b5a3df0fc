"""A product's 3-D model in true metres, made from its outer dimensions, the kind of thing it is, its colour and material.

A model is a handful of simple parts; its bounding box is exactly the product's size, it stands on y = 0 and faces +z, as
glTF and model-viewer expect. Without dimensions there is no model: a guessed size would be dishonest.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import trimesh
from trimesh.visual.material import PBRMaterial

from serve.catalogue import Size

Shape = Literal["box", "cylinder", "cone", "sphere", "ring", "wheel"]
Tone = Literal["body", "accent", "dark", "metal"]


@dataclass(frozen=True, slots=True)
class Part:
    """A simple shape that fills the box around `centre` with sides `extent`, both in shares of the product's box (y up from 0)."""

    shape: Shape
    centre: tuple[float, float, float]
    extent: tuple[float, float, float]
    tone: Tone = "body"


def _legs(top: float, inset: float = 0.06, thick: float = 0.08, tone: Tone = "accent") -> tuple[Part, ...]:
    places = [(x, z) for x in (-0.5 + inset, 0.5 - inset) for z in (-0.5 + inset, 0.5 - inset)]
    return tuple(Part("box", (x, top / 2, z), (thick, top, thick), tone) for x, z in places)


_FAMILIES: dict[str, tuple[Part, ...]] = {
    "box": (Part("box", (0, 0.5, 0), (1, 1, 1)), Part("box", (0, 0.62, 0.497), (0.8, 0.34, 0.012), "accent")),
    "carton": (Part("box", (0, 0.42, 0), (1, 0.84, 1)), Part("box", (0, 0.91, 0), (0.9, 0.14, 0.3), "accent"), Part("cylinder", (0, 0.97, 0), (0.3, 0.06, 0.3), "dark")),
    "bottle": (
        Part("cylinder", (0, 0.31, 0), (1, 0.62, 1)),
        Part("cone", (0, 0.74, 0), (0.99, 0.24, 0.99)),
        Part("cylinder", (0, 0.8, 0), (0.36, 0.26, 0.36)),
        Part("cylinder", (0, 0.95, 0), (0.44, 0.1, 0.44), "dark"),
        Part("cylinder", (0, 0.32, 0), (1.01, 0.3, 1.01), "accent"),
    ),
    "tin": (Part("cylinder", (0, 0.42, 0), (0.97, 0.84, 0.97)), Part("cylinder", (0, 0.92, 0), (1, 0.16, 1), "metal"), Part("cylinder", (0, 0.42, 0), (0.98, 0.5, 0.98), "accent")),
    "jar": (Part("cylinder", (0, 0.4, 0), (1, 0.8, 1)), Part("cylinder", (0, 0.9, 0), (0.9, 0.2, 0.9), "metal")),
    "pot": (Part("cylinder", (0, 0.46, 0), (0.9, 0.92, 0.9)), Part("cylinder", (0, 0.96, 0), (1, 0.08, 1), "accent")),
    "fruit": (Part("sphere", (0, 0.47, 0), (1, 0.94, 1)), Part("cylinder", (0, 0.95, 0), (0.06, 0.1, 0.06), "dark")),
    "chair": (Part("box", (0, 0.49, 0), (1, 0.09, 1)), Part("box", (0, 0.77, -0.46), (0.96, 0.46, 0.08)), *_legs(0.46)),
    "sofa": (
        Part("box", (0, 0.3, 0.04), (0.8, 0.3, 0.92)),
        Part("box", (0, 0.55, -0.38), (1, 0.9, 0.24)),
        Part("box", (-0.45, 0.38, 0.06), (0.1, 0.5, 0.88)),
        Part("box", (0.45, 0.38, 0.06), (0.1, 0.5, 0.88)),
        Part("box", (-0.2, 0.5, 0.1), (0.38, 0.12, 0.72), "accent"),
        Part("box", (0.2, 0.5, 0.1), (0.38, 0.12, 0.72), "accent"),
        *_legs(0.12, 0.08, 0.04, "dark"),
    ),
    "table": (Part("box", (0, 0.96, 0), (1, 0.08, 1)), *_legs(0.92, 0.06, 0.07, "body")),
    "shelf": (
        Part("box", (-0.48, 0.5, 0), (0.04, 1, 1)),
        Part("box", (0.48, 0.5, 0), (0.04, 1, 1)),
        Part("box", (0, 0.5, -0.48), (0.96, 0.99, 0.04), "accent"),
        *(Part("box", (0, y, 0), (0.94, 0.03, 0.98)) for y in (0.015, 0.26, 0.5, 0.74, 0.985)),
    ),
    "lamp": (Part("cylinder", (0, 0.03, 0), (0.6, 0.06, 0.6), "metal"), Part("cylinder", (0, 0.35, 0), (0.08, 0.6, 0.08), "metal"), Part("cone", (0, 0.8, 0), (1, 0.4, 1))),
    "speaker": (Part("box", (0, 0.5, 0), (1, 1, 0.94)), Part("wheel", (0, 0.34, 0.47), (0.74, 0.5, 0.06), "dark"), Part("wheel", (0, 0.78, 0.47), (0.36, 0.24, 0.06), "accent")),
    "headphones": (Part("ring", (0, 0.55, 0), (0.92, 0.9, 0.25)), Part("wheel", (-0.42, 0.22, 0), (0.16, 0.44, 1), "accent"), Part("wheel", (0.42, 0.22, 0), (0.16, 0.44, 1), "accent")),
    "lipstick": (Part("cylinder", (0, 0.25, 0), (1, 0.5, 1), "dark"), Part("cylinder", (0, 0.58, 0), (0.84, 0.16, 0.84), "metal"), Part("cylinder", (0, 0.8, 0), (0.66, 0.4, 0.66))),
    "palette": (
        Part("box", (0, 0.35, 0), (1, 0.7, 1), "dark"),
        *(Part("cylinder", (-0.32, 0.85, z), (0.2, 0.3, 0.3)) for z in (-0.22, 0.22)),
        *(Part("cylinder", (0, 0.85, z), (0.2, 0.3, 0.3), "accent") for z in (-0.22, 0.22)),
        *(Part("cylinder", (0.32, 0.85, z), (0.2, 0.3, 0.3), "metal") for z in (-0.22, 0.22)),
    ),
    "sunglasses": (
        Part("wheel", (-0.26, 0.5, 0.46), (0.42, 1, 0.05), "dark"),
        Part("wheel", (0.26, 0.5, 0.46), (0.42, 1, 0.05), "dark"),
        Part("box", (0, 0.72, 0.47), (0.16, 0.12, 0.05)),
        Part("box", (-0.48, 0.72, 0), (0.03, 0.1, 1)),
        Part("box", (0.48, 0.72, 0), (0.03, 0.1, 1)),
    ),
    "watch": (Part("box", (0, 0.5, -0.2), (0.5, 1, 0.3), "accent"), Part("wheel", (0, 0.5, 0.1), (1, 0.18, 0.8), "metal"), Part("wheel", (0, 0.5, 0.46), (0.84, 0.15, 0.08))),
    "ring": (Part("ring", (0, 0.46, 0), (1, 0.92, 1), "metal"), Part("sphere", (0, 0.93, 0), (0.22, 0.16, 0.6))),
    "shoe": (
        Part("box", (0, 0.08, 0), (1, 0.16, 1), "accent"),
        Part("sphere", (0, 0.3, 0.22), (0.92, 0.5, 0.54)),
        Part("box", (0, 0.4, -0.1), (0.84, 0.5, 0.5)),
        Part("cylinder", (0, 0.62, -0.24), (0.86, 0.76, 0.5)),
    ),
    "jacket": (
        Part("box", (0, 0.48, 0), (0.62, 0.96, 1)),
        Part("cylinder", (-0.4, 0.58, 0), (0.2, 0.72, 0.8)),
        Part("cylinder", (0.4, 0.58, 0), (0.2, 0.72, 0.8)),
        Part("cylinder", (0, 0.97, 0), (0.28, 0.06, 0.9), "accent"),
        Part("box", (0, 0.48, 0.5), (0.02, 0.9, 0.02), "metal"),
    ),
}  # fmt: skip

# Words of a shape attribute, title or category, and the family they mean; the first that occurs wins.
_WORDS: tuple[tuple[str, str], ...] = (
    ("sunglass", "sunglasses"), ("eyeshadow", "palette"), ("palette", "palette"), ("lipstick", "lipstick"), ("headphone", "headphones"), ("speaker", "speaker"),
    ("watch", "watch"), ("sofa", "sofa"), ("couch", "sofa"), ("chair", "chair"), ("stool", "chair"), ("table", "table"), ("desk", "table"), ("shelf", "shelf"), ("shelves", "shelf"), ("bookcase", "shelf"),
    ("lamp", "lamp"), ("shoe", "shoe"), ("sneaker", "shoe"), ("jacket", "jacket"), ("coat", "jacket"), ("ring", "ring"), ("yoghurt", "pot"), ("yogurt", "pot"), ("cream", "pot"),
    ("juice", "bottle"), ("bottle", "bottle"), ("wine", "bottle"), ("milk", "carton"), ("carton", "carton"), ("tea", "tin"), ("tin", "tin"), ("can", "tin"), ("jar", "jar"),
    ("fruit", "fruit"), ("apple", "fruit"), ("vegetable", "fruit"), ("ball", "fruit"), ("sphere", "fruit"), ("cylinder", "tin"),
)  # fmt: skip

_COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 40, 45), "orange": (235, 130, 40), "yellow": (240, 205, 70), "green": (60, 145, 75), "teal": (40, 150, 150), "blue": (50, 95, 190), "purple": (125, 70, 165),
    "pink": (235, 140, 175), "brown": (125, 85, 55), "black": (45, 45, 50), "white": (235, 233, 228), "grey": (145, 145, 150), "gray": (145, 145, 150), "beige": (214, 196, 165),
    "gold": (212, 175, 55), "silver": (192, 192, 198),
}  # fmt: skip
# metallic and roughness factors of glTF's PBR model.
_MATERIALS: dict[str, tuple[float, float]] = {
    "steel": (0.9, 0.3), "metal": (0.9, 0.3), "titanium": (0.9, 0.4), "aluminium": (0.9, 0.35), "brass": (0.9, 0.3), "gold": (1.0, 0.2), "silver": (1.0, 0.2), "tin": (0.8, 0.35),
    "glass": (0.0, 0.05), "plastic": (0.0, 0.35), "acetate": (0.0, 0.2), "gloss": (0.0, 0.1), "satin": (0.0, 0.4), "shimmer": (0.5, 0.3), "leather": (0.0, 0.55), "oak": (0.0, 0.65),
    "bamboo": (0.0, 0.65), "fabric": (0.0, 0.95), "cotton": (0.0, 0.95), "wool": (0.0, 1.0), "velvet": (0.0, 0.9), "paper": (0.0, 0.9), "carton": (0.0, 0.85), "rubber": (0.0, 0.85),
}  # fmt: skip

_SHARP_EDGE = float(np.radians(40))


def glb(size: Size, category: str, attributes: Mapping[str, Any]) -> bytes:
    """The product as binary glTF: parts of its family, scaled to fill exactly `size`, coloured by its attributes."""
    parts = _FAMILIES[family(category, attributes)]
    meshes = [_mesh(part) for part in parts]
    scene = trimesh.Scene()
    corners = np.array([mesh.bounds for mesh in meshes])
    low, high = corners[:, 0].min(axis=0), corners[:, 1].max(axis=0)
    metres = np.array([size.width_m, size.height_m, size.depth_m])
    for index, (part, mesh) in enumerate(zip(parts, meshes, strict=True)):
        placed = (mesh.vertices - low) / (high - low) * metres - metres * (0.5, 0.0, 0.5)
        solid = trimesh.graph.smooth_shade(trimesh.Trimesh(placed, mesh.faces, process=False), angle=_SHARP_EDGE)
        solid.visual = trimesh.visual.TextureVisuals(material=_material(part.tone, attributes))
        scene.add_geometry(solid, node_name=f"{index}-{part.tone}")
    data: bytes = scene.export(file_type="glb", include_normals=True)
    return data


def family(category: str, attributes: Mapping[str, Any]) -> str:
    """The kind of thing: of `attributes.shape` where given, else of the category's words, last level first; a box otherwise."""
    texts = [str(attributes.get("shape", "")), *reversed(category.split("/"))]
    for text in texts:
        tokens = {token.removesuffix("s") for token in re.findall(r"[a-z]+", text.lower())} | set(re.findall(r"[a-z]+", text.lower()))
        for word, name in _WORDS:
            if word in tokens or (len(word) > 4 and any(word in token for token in tokens)):
                return name
    return "box"


def _mesh(part: Part) -> trimesh.Trimesh:
    """A shape of unit sides around the origin, moved and stretched to its part's place."""
    if part.shape == "box":
        mesh = trimesh.creation.box((1, 1, 1))
    elif part.shape == "sphere":
        mesh = trimesh.creation.uv_sphere(radius=0.5, count=(24, 32))
    elif part.shape == "ring":
        mesh = trimesh.creation.torus(major_radius=0.45, minor_radius=0.05, major_sections=48, minor_sections=16)
    elif part.shape == "cone":
        mesh = trimesh.creation.revolve(np.array([(0.0, -0.5), (0.5, -0.5), (0.22, 0.5), (0.0, 0.5)]), sections=40)
    else:
        mesh = trimesh.creation.cylinder(radius=0.5, height=1.0, sections=40)
    vertices = np.asarray(mesh.vertices)
    if part.shape in ("cylinder", "cone", "sphere"):
        vertices = vertices[:, (1, 2, 0)]
    vertices = vertices / np.ptp(vertices, axis=0)
    return trimesh.Trimesh(vertices * part.extent + part.centre, mesh.faces, process=False)


def _material(tone: Tone, attributes: Mapping[str, Any]) -> PBRMaterial:
    named = str(attributes.get("colour") or attributes.get("color") or "grey").lower()
    body = next((rgb for word, rgb in _COLOURS.items() if word in named), _COLOURS["grey"])
    metallic, roughness = _MATERIALS.get(str(attributes.get("material", "")).lower(), (0.0, 0.6))
    rgb = {"body": body, "accent": _accent(body), "dark": (38, 38, 42), "metal": (198, 198, 202)}[tone]
    if tone == "metal":
        metallic, roughness = 0.9, 0.3
    linear = [_linear(channel) for channel in rgb]
    return PBRMaterial(name=f"{named}-{tone}", baseColorFactor=[*linear, 1.0], metallicFactor=metallic, roughnessFactor=roughness, doubleSided=True)


def _accent(body: tuple[int, int, int]) -> tuple[int, int, int]:
    """A lighter or darker neighbour of the body's colour, so that parts can be told apart."""
    lighter = sum(body) < 3 * 120
    red, green, blue = (int(channel + (255 - channel) * 0.45) if lighter else int(channel * 0.72) for channel in body)
    return red, green, blue


def _linear(channel: int) -> float:
    """sRGB byte to the linear value that glTF's factors hold."""
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)
