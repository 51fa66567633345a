/* A palette PNG whose pixels are the labels, as mgca.inference.formats.label_image writes it. */

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function chunk(kind, data) {
  const out = new Uint8Array(12 + data.length), view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set(new TextEncoder().encode(kind), 4);
  out.set(data, 8);
  let sum = 0xffffffff;
  for (let n = 4; n < out.length - 4; n++) sum = (sum >>> 8) ^ CRC[(sum ^ out[n]) & 255];
  view.setUint32(out.length - 4, ~sum >>> 0);
  return out;
}

/** The file, with the names of the classes in it as a text "classes". */
export async function labelImage(labels, height, width, colours, classes) {
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 3, 0, 0, 0], 8); // 8 bits, palette
  const lines = new Uint8Array(height * (width + 1)); // each after the 0 of its filter
  for (let y = 0; y < height; y++) lines.set(labels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const text = new TextEncoder().encode(`classes\0${classes.map((name, n) => `${n} ${name}`).join("; ")}`);
  const signature = [137, 80, 78, 71, 13, 10, 26, 10];
  return new Blob(
    [Uint8Array.from(signature), chunk("IHDR", header), chunk("PLTE", Uint8Array.from(colours.flat())),
      chunk("tEXt", text), chunk("IDAT", data), chunk("IEND", new Uint8Array(0))],
    { type: "image/png" },
  );
}
