// The seeds of an image at any threshold: ops/seeds.py (resize_maps, any_above, add_background) in the same steps, each
// rounded to 32 bits as NumPy does it, so that the labels are the same to the pixel.
const IGNORE = 255;
const f32 = Math.fround;
const page = JSON.parse(document.getElementById("data").textContent);

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// Pairs of a value and how often it follows, as embedded.py writes them.
function unrun(text, size) {
  const pairs = bytes(text), out = new Uint8Array(size);
  for (let i = 0, at = 0; i < pairs.length; i += 2) {
    out.fill(pairs[i], at, at + pairs[i + 1]);
    at += pairs[i + 1];
  }
  return out;
}

// Little-endian float16. Subnormals too; maps hold neither infinities nor NaN.
function halves(text) {
  const raw = bytes(text), out = new Float32Array(raw.length / 2);
  for (let i = 0; i < out.length; i++) {
    const bits = raw[2 * i] | (raw[2 * i + 1] << 8), exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const value = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
    out[i] = bits & 0x8000 ? -value : value;
  }
  return out;
}

// For every pixel of a side the features before and behind it, and the share of the latter.
function neighbours(pixels, cells, first, step) {
  const before = new Int32Array(pixels), after = new Int32Array(pixels), share = new Float32Array(pixels);
  for (let i = 0; i < pixels; i++) {
    const place = Math.min(Math.max(((i + 0.5) / pixels - first) / step, 0), cells - 1);
    before[i] = Math.floor(place);
    after[i] = Math.min(before[i] + 1, cells - 1);
    share[i] = place - before[i];
  }
  return { before, after, share };
}

// (C, h, w) to (C, height, width): first down, then across.
function enlarge(map, maps, height, width) {
  const [first, step, left, pitch] = maps.grid, count = maps.classes.length, h = maps.height, w = maps.width;
  const down = neighbours(height, h, first, step), across = neighbours(width, w, left, pitch);
  const out = new Float32Array(count * height * width), row = new Float32Array(w);
  for (let k = 0, at = 0; k < count; k++) {
    for (let y = 0; y < height; y++) {
      const s = down.share[y], r = f32(1 - s), top = (k * h + down.before[y]) * w, low = (k * h + down.after[y]) * w;
      for (let x = 0; x < w; x++) row[x] = f32(map[top + x] * r) + f32(map[low + x] * s);
      for (let x = 0; x < width; x++, at++) {
        const t = across.share[x];
        out[at] = f32(row[across.before[x]] * f32(1 - t)) + f32(row[across.after[x]] * t);
      }
    }
  }
  return out;
}

// What a rule needs of an image, at the size of its picture. Made when the picture comes into view, dropped when it leaves.
function prepare(image, rule) {
  const { width, height } = image, maps = image.maps[rule.maps];
  const peak = enlarge(halves(maps.peak), maps, height, width);
  const order = rule.order === "mean" && maps.mean ? enlarge(halves(maps.mean), maps, height, width) : peak;
  const mask = image.mask === null ? null : unrun(image.mask, width * height);
  return { width, height, peak, order, mask, cue: unrun(image.cues[rule.stage], width * height), classes: maps.classes };
}

function seeds(ready, rule, value) {
  const theta = f32(value), size = ready.width * ready.height, out = new Uint8Array(size).fill(IGNORE);
  const { peak, order, cue, classes } = ready, other = rule.conflict === "background" ? 0 : IGNORE;
  for (let i = 0; i < size; i++) {
    let best = -1;
    for (let k = 0, at = i; k < classes.length; k++, at += size) {
      if (peak[at] > theta && order[at] > best) {
        best = order[at];
        out[i] = classes[k] + 1;
      }
    }
    if (cue[i]) {
      if (out[i] === IGNORE) out[i] = 0;
      else if (rule.conflict !== "class") out[i] = other;
    }
  }
  return out;
}

// The mean IoU over the labels in mask or seeds, undecided pixels missed; null where the mask scores nothing.
function meanIou(mask, label) {
  const hit = new Int32Array(256), either = new Int32Array(256);
  for (let i = 0; i < mask.length; i++) {
    if (mask[i] === IGNORE) continue;
    either[mask[i]]++;
    if (label[i] === mask[i]) hit[mask[i]]++;
    else if (label[i] !== IGNORE) either[label[i]]++;
  }
  let sum = 0, known = 0;
  for (let k = 0; k < IGNORE; k++) {
    if (!either[k]) continue;
    sum += hit[k] / either[k];
    known++;
  }
  return known ? sum / known : null;
}

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
