// The slider: the scores at its threshold, and the seeds of every image in view.
const dial = {
  rule: page.rules[0],
  theta: page.rules[0]?.theta,
  tiles: new Map(), // by figure: the image, its canvas, and the prepared maps while it is in view
  due: false,

  start() {
    const part = (id) => document.getElementById(id);
    Object.assign(this, { slider: part("theta"), too: part("theta-too"), choice: part("rule") });
    for (const input of [this.slider, this.too]) input?.addEventListener("input", () => this.to(Number(input.value)));
    part("theta-back").addEventListener("click", () => this.to(this.rule.theta));
    this.choice?.addEventListener("change", () => this.choose(Number(this.choice.value)));
    this.watch = new IntersectionObserver((seen) => this.seen(seen), { rootMargin: "300px" });
    document.querySelector(".dial").hidden = false;
    this.choose(0);
  },

  // Change to another rule: show its chart, and a picture of its seeds before that of the stored seeds.
  choose(index) {
    this.rule = page.rules[index];
    for (const label of this.slider.labels) label.firstChild.data = `Threshold ${this.rule.symbol} `;
    for (const panel of document.querySelectorAll(".panel")) panel.hidden = page.rules.length > 1 && panel.dataset.rule !== `${index}`;
    for (const figure of this.tiles.keys()) {
      this.watch.unobserve(figure);
      figure.remove();
    }
    this.tiles.clear();
    for (const [id, image] of Object.entries(page.images)) {
      if (image.cues[this.rule.stage] !== undefined) this.add(document.getElementById(id), image);
    }
    this.to(this.rule.theta);
    document.dispatchEvent(new Event("pictures"));
  },

  add(card, image) {
    const stored = card.querySelector(`figure[data-stage="${this.rule.stage}"]`), photo = card.querySelector(".photo");
    const figure = document.createElement("figure"), pic = document.createElement("div"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption"), text = document.createElement("span"), score = document.createElement("b");
    figure.className = "labels made";
    figure.style.width = photo.style.width;
    pic.className = "pic";
    Object.assign(canvas, { width: image.width, height: image.height });
    canvas.setAttribute("role", "img");
    pic.append(canvas);
    caption.append(text, score);
    figure.append(pic, caption);
    if (stored) stored.before(figure);
    else card.querySelector(".row:last-child").append(figure);
    this.tiles.set(figure, { image, canvas, text, score, ready: null });
    this.watch.observe(figure);
  },

  seen(entries) {
    for (const { target, isIntersecting } of entries) {
      const tile = this.tiles.get(target);
      if (!tile) continue;
      tile.ready = isIntersecting ? tile.ready ?? prepare(tile.image, this.rule) : null;
      if (tile.ready) this.draw(tile);
    }
  },

  to(theta) {
    this.theta = theta;
    const text = theta.toFixed(2), at = `${100 * theta}%`;
    for (const [input, output] of [[this.slider, "theta-value"], [this.too, "theta-too-value"]]) {
      if (!input) continue;
      input.value = theta;
      document.getElementById(output).value = text;
    }
    for (const line of document.querySelectorAll(".now")) for (const end of ["x1", "x2"]) line.setAttribute(end, at);
    const panel = document.querySelector(`.panel[data-rule="${page.rules.indexOf(this.rule)}"]`);
    for (const cell of panel.querySelectorAll("[data-figure]")) {
      const name = cell.dataset.figure;
      cell.textContent = name === "theta" ? text : figureText(this.rule.curve[name][Math.round(100 * theta)]);
    }
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      for (const tile of this.tiles.values()) if (tile.ready) this.draw(tile);
    });
  },

  draw(tile) {
    const label = seeds(tile.ready, this.rule.recipe, this.theta), present = [...new Set(label)].filter((k) => k !== IGNORE);
    paint(tile.canvas, label);
    const iou = tile.ready.mask ? meanIou(tile.ready.mask, label) : null;
    tile.text.textContent = `${this.rule.symbol} ${this.theta.toFixed(2)}${this.rule.crf ? ", no CRF" : ""}`;
    tile.score.textContent = iou === null ? "" : figureText(iou);
    const names = present.sort((a, b) => a - b).map((k) => page.classes[k]).join(", ");
    tile.canvas.setAttribute("aria-label", `${this.rule.name} at threshold ${this.theta.toFixed(2)} with ${names || "no label"}`);
  },
};

function figureText(value) {
  return value === null ? "–" : value.toFixed(3);
}

if (document.getElementById("theta")) dial.start();
