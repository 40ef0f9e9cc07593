// Compute the seeds of an image at any threshold by the recipe of its rule. core/threshold.py defines the words of a recipe.
// The steps are those of ops/seeds.py (resize_maps, bounds, recompute), each rounded to 32 bits as NumPy does, so that the labels
// are the same to the pixel. Nothing here uses the page: a test runs this file alone and compares it with ops/seeds.py.
const IGNORE = 255;
const f32 = Math.fround;

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}

// Decode a label map from the runs that embedded.py writes: pairs of a value and its count.
function unrun(text, size) {
  const pairs = bytes(text), out = new Uint8Array(size);
  for (let i = 0, at = 0; i < pairs.length; i += 2) {
    out.fill(pairs[i], at, at + pairs[i + 1]);
    at += pairs[i + 1];
  }
  return out;
}

// Decode little-endian float16 with subnormals. Maps hold neither infinities nor NaN.
function halves(text) {
  const raw = bytes(text), out = new Float32Array(raw.length / 2);
  for (let i = 0; i < out.length; i++) {
    const bits = raw[2 * i] | (raw[2 * i + 1] << 8), exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const value = exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction;
    out[i] = bits & 0x8000 ? -value : value;
  }
  return out;
}

// Return for every pixel of a side the map cells before and after it, and the weight of the latter.
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

// Resize maps from (C, h, w) to (C, height, width): first down, then across.
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

// Prepare what a rule needs of an image, at the size of its picture. It is made when the picture comes into view and dropped after.
function prepare(image, rule) {
  const { width, height } = image, maps = image.maps[rule.maps], { source, region, winner } = rule.recipe, size = width * height;
  const peak = enlarge(halves(maps.peak), maps, height, width);
  const mean = maps.mean ? enlarge(halves(maps.mean), maps, height, width) : peak;
  const claiming = source === "mean" ? mean : peak;
  const rising = region === "above" ? null : maps.classes.map((_, k) => claiming.slice(k * size, (k + 1) * size).sort());
  const mask = image.mask === null ? null : unrun(image.mask, size), cue = unrun(image.cues[rule.stage], size);
  return { size, claiming, order: winner === "mean" ? mean : peak, rising, mask, cue, classes: maps.classes };
}

// Return what a pixel of the k-th map must exceed. `rising` has the sorted values of each map.
function bound(rising, k, region, value) {
  if (region === "above") return Math.max(f32(value), 0);
  const values = rising[k], last = values.length - 1;
  if (region === "of_pixels") return Math.max(values[Math.floor(last * (1 - value))], 0);
  return Math.max(f32(values[last] * f32(region === "of_maximum" ? value : 1 - value)), 0);
}

function seeds(ready, recipe, value) {
  const { size, claiming, order, rising, cue, classes } = ready, out = new Uint8Array(size);
  const bounds = classes.map((_, k) => bound(rising, k, recipe.region, value));
  const unclaimed = recipe.unclaimed === "background" ? 0 : IGNORE, disputed = recipe.conflict === "background" ? 0 : IGNORE;
  for (let i = 0; i < size; i++) {
    let best = -1, claims = 0, label = unclaimed;
    for (let k = 0, at = i; k < classes.length; k++, at += size) {
      if (!(claiming[at] > bounds[k])) continue;
      claims++;
      if (order[at] > best) {
        best = order[at];
        label = classes[k] + 1;
      }
    }
    if (claims > 1 && recipe.winner === "nobody") label = IGNORE;
    if (cue[i] && !claims) label = 0;
    else if (cue[i] && recipe.conflict !== "class") label = disputed;
    out[i] = label;
  }
  return out;
}

// Return the mean IoU over the labels in mask or seeds. Undecided pixels count as misses. Null if the mask is ignored everywhere.
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
