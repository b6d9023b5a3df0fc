// A picture as the encoder takes it, in the way of the server's decoder: the centre square, shrunk by area averages.

export const SIZE = 224;

// An upright bitmap or canvas to SIZE x SIZE x 3 bytes, RGB, on white where it is transparent.
export function encoderInput(source) {
  const side = Math.min(source.width, source.height);
  const left = Math.floor((source.width - side) / 2);
  const top = Math.floor((source.height - side) / 2);
  const drawn = Math.max(side, SIZE); // too small a picture is enlarged by the canvas
  const canvas = new OffscreenCanvas(drawn, drawn);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, drawn, drawn);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, left, top, side, side, 0, 0, drawn, drawn);
  return areaAverages(context.getImageData(0, 0, drawn, drawn).data, drawn, SIZE);
}

// RGBA of a square of `from` pixels a side to RGB of `to`: each pixel is the mean of the area that it covers.
export function areaAverages(rgba, from, to) {
  const spans = overlaps(from, to);
  const wide = new Float32Array(from * to * 3);
  for (let y = 0; y < from; y++) {
    for (let x = 0; x < to; x++) {
      const { first, shares } = spans[x];
      let red = 0, green = 0, blue = 0;
      for (let k = 0; k < shares.length; k++) {
        const at = 4 * (y * from + first + k);
        red += shares[k] * rgba[at];
        green += shares[k] * rgba[at + 1];
        blue += shares[k] * rgba[at + 2];
      }
      wide.set([red, green, blue], 3 * (y * to + x));
    }
  }
  const small = new Uint8ClampedArray(to * to * 3); // clamps and rounds
  for (let y = 0; y < to; y++) {
    const { first, shares } = spans[y];
    for (let at = 0; at < 3 * to; at++) {
      let sum = 0;
      for (let k = 0; k < shares.length; k++) sum += shares[k] * wide[3 * to * (first + k) + at];
      small[3 * to * y + at] = sum;
    }
  }
  return new Uint8Array(small.buffer);
}

// Which pixels each new one covers, and by what share of its area.
function overlaps(from, to) {
  const scale = from / to;
  return Array.from({ length: to }, (_, place) => {
    const begin = place * scale, end = (place + 1) * scale;
    const first = Math.floor(begin + 1e-6), last = Math.min(from, Math.ceil(end - 1e-6));
    const shares = Array.from({ length: last - first }, (_, k) => (Math.min(end, first + k + 1) - Math.max(begin, first + k)) / scale);
    return { first, shares };
  });
}
