// The data of the page, and label maps drawn as pictures.
const page = JSON.parse(document.getElementById("data").textContent);

// Colours in the canvas's format: one number for each pixel. The image below shows through background and undecided pixels.
const inks = Object.fromEntries(["hatch", "colors"].map((name) => {
  const raw = Uint8Array.from(page[name].flat());
  return [name === "colors" ? "label" : name, new Uint32Array(raw.buffer)];
}));

// Draw labels in their colours. Undecided pixels are hatched as in pictures.py.
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
