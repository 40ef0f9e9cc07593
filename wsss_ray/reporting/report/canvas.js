// What the page has to show, and labels as pictures of it.
const page = JSON.parse(document.getElementById("data").textContent);

// Opaque colours as the canvas keeps them, one number for a pixel.
const inks = Object.fromEntries(["hatch", "colors"].map((name) => {
  const raw = Uint8Array.from(page[name].flatMap((color) => [...color, 255]));
  return [name === "colors" ? "label" : name, new Uint32Array(raw.buffer)];
}));

// Labels in their colours; undecided pixels hatched as pictures.py does it.
function paint(canvas, label) {
  const { width, height } = canvas, context = canvas.getContext("2d"), picture = context.createImageData(width, height);
  const stripe = Math.max(1, Math.floor(Math.max(width, height) / 64));
  const pixels = new Uint32Array(picture.data.buffer);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      pixels[i] = label[i] === IGNORE ? inks.hatch[Math.floor((x + y) / stripe) % 4 === 0 ? 1 : 0] : inks.label[label[i]];
    }
  }
  context.putImageData(picture, 0, 0);
}
