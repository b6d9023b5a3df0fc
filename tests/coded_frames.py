"""Frames with a package's bar code in them, as a phone takes them."""

import io

import cv2
import numpy as np
import zxingcpp
from PIL import Image

CODE = "6901234567892"


def frame_with_code(code: str, turned: float = 0.0, format_: str = "JPEG", blur: float = 0.8, side: int = 900) -> bytes:
    """A textured scene with a package's white label in it."""
    random = np.random.default_rng(7)
    scene = cv2.resize(random.integers(40, 210, (12, 16, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    label = np.asarray(zxingcpp.write_barcode_to_image(zxingcpp.create_barcode(code, zxingcpp.BarcodeFormat.EAN13), scale=3))
    label = cv2.copyMakeBorder(label, 20, 20, 30, 30, cv2.BORDER_CONSTANT, value=255)
    top, left = side // 2, side // 4
    scene[top : top + label.shape[0], left : left + label.shape[1]] = label[..., None]
    scene = cv2.warpAffine(scene, cv2.getRotationMatrix2D((side / 2, side / 2), turned, 1), (side, side), borderMode=cv2.BORDER_REFLECT)
    scene = cv2.GaussianBlur(scene, (0, 0), blur).astype(np.float32) * 0.7 + random.normal(0, 4, scene.shape)
    sink = io.BytesIO()
    Image.fromarray(scene.clip(0, 255).astype(np.uint8)).save(sink, format_, quality=85)
    return sink.getvalue()
