// The controls of the gallery: which images to show, in which order, and the opacity of labels over the image.
const gallery = {
  cards: [...document.querySelectorAll(".card")],

  start() {
    const part = (id) => document.getElementById(id);
    this.classes = part("class");
    this.order = part("order");
    this.fill();
    for (const choice of [this.classes, this.order]) choice.addEventListener("change", () => this.show());
    const overlay = part("overlay");
    overlay.addEventListener("input", () => this.lay(Number(overlay.value)));
    document.querySelector(".tools").hidden = false;
    document.addEventListener("pictures", () => this.under());
    this.lay(Number(overlay.value));
    this.under();
    this.show();
  },

  // Offer the classes and the scores that some image has.
  fill() {
    const count = new Map(), scores = new Map();
    for (const card of this.cards) {
      for (const k of this.labels(card)) count.set(k, (count.get(k) ?? 0) + 1);
      for (const figure of card.querySelectorAll("figure[data-iou]")) {
        scores.set(figure.dataset.stage, figure.querySelector("figcaption span").textContent);
      }
    }
    const all = [...count].sort((a, b) => a[0] - b[0]);
    this.option(this.classes, "", `all (${this.cards.length})`);
    for (const [k, n] of all) this.option(this.classes, k, `${page.classes[k]} (${n})`);
    if (scores.size) this.option(this.order, "all up", "lowest IoU first");
    if (scores.size) this.option(this.order, "all down", "highest IoU first");
    if (scores.size > 1) {
      for (const [stage, name] of scores) this.option(this.order, `${stage} up`, `lowest IoU of ${name} first`);
    }
    this.option(this.order, "data", "order of the data");
  },

  option(select, value, text) {
    select.append(new Option(text, value));
  },

  labels(card) {
    return JSON.parse(card.dataset.labels);
  },

  // Return the sort key of a card. Cards without the score come last in both directions.
  rank(card, by, way) {
    if (by === "data") return Number(card.dataset.place);
    const holder = by === "all" ? card : card.querySelector(`figure[data-stage="${by}"]`);
    const iou = holder?.dataset.iou;
    return iou === undefined ? Infinity : way === "down" ? -Number(iou) : Number(iou);
  },

  show() {
    const wanted = this.classes.value, [by, way] = this.order.value.split(" ");
    for (const split of document.querySelectorAll(".split")) {
      const list = split.querySelector(".cards"), cards = [...list.children];
      for (const card of cards) card.hidden = wanted !== "" && !this.labels(card).includes(Number(wanted));
      const ranked = cards.map((card) => [this.rank(card, by, way), Number(card.dataset.place), card]);
      ranked.sort((a, b) => (a[0] === b[0] ? 0 : a[0] < b[0] ? -1 : 1) || a[1] - b[1]);
      list.append(...ranked.map((one) => one[2]));
      const shown = cards.filter((card) => !card.hidden).length;
      split.querySelector(".count").textContent = `${shown} of ${cards.length} shown`;
    }
  },

  lay(percent) {
    document.documentElement.style.setProperty("--overlay", `${percent / 100}`);
    document.getElementById("overlay-value").value = `${percent} %`;
  },

  // Put the photograph below every label map.
  under() {
    for (const card of this.cards) {
      const photo = card.querySelector(".photo img");
      for (const pic of card.querySelectorAll(".labels .pic:not(:has(.under))")) {
        const below = photo.cloneNode();
        below.className = "under";
        below.alt = "";
        pic.prepend(below);
      }
    }
  },
};

if (document.querySelector(".tools")) gallery.start();
