// Photographs: those of the page, and the reader's own, which are reduced if they are large.
"use strict";

const LONGEST = 640; // px, of a photograph of the reader's

// Decode a picture from an address. Sides are cut to multiples of the network's stride.
async function decoded(url, name, { needed: [least], window: side, stride }) {
  const image = element("img", { src: url });
  await image.decode().catch(() => {
    throw new Error(`${name} is no picture that this browser can read.`);
  });
  const { naturalHeight: height, naturalWidth: width } = image, shorter = Math.min(height, width);
  const size = `${name} has ${width} x ${height} px`;
  if (shorter < least) {
    throw new Error(`${size}; a window of ${side} px with its surroundings needs ${least} x ${least} px.`);
  }
  const scale = Math.min(1, Math.max(LONGEST / Math.max(height, width), least / shorter));
  const whole = (pixels) => stride * Math.floor(Math.min(LONGEST, Math.round(pixels * scale)) / stride);
  const canvas = element("canvas", { height: whole(height), width: whole(width) });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, width * scale, height * scale);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const rgb = data.filter((_, i) => i % 4 < 3);
  const used = `${scale < 1 ? "it is reduced, and " : ""}${canvas.width} x ${canvas.height} px are used`;
  return { name, height: canvas.height, width: canvas.width, rgb, canvas, about: `${size}; ${used}.` };
}
