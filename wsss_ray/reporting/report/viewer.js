// Enlarge a picture, and go from picture to picture by keys. Each card is one stop of the Tab key.
const viewer = {
  start() {
    document.addEventListener("pictures", () => this.mark());
    this.mark();
    const cards = document.querySelectorAll(".cards");
    for (const list of cards) {
      list.addEventListener("keydown", (event) => this.key(event));
      list.addEventListener("click", (event) => {
        const pic = event.target.closest(".pic");
        if (pic) this.open(pic);
      });
    }
    this.make();
  },

  pics(card) {
    return [...card.querySelectorAll(".pic")];
  },

  mark() {
    for (const card of document.querySelectorAll(".card")) {
      const pics = this.pics(card), before = pics.find((pic) => pic.tabIndex === 0) ?? pics[0];
      for (const pic of pics) {
        pic.setAttribute("role", "button");
        pic.setAttribute("aria-haspopup", "dialog");
        pic.tabIndex = pic === before ? 0 : -1;
      }
    }
  },

  focus(pic) {
    for (const other of this.pics(pic.closest(".card"))) other.tabIndex = other === pic ? 0 : -1;
    pic.focus();
  },

  key(event) {
    const pic = event.target.closest(".pic");
    if (!pic || event.ctrlKey || event.metaKey || event.altKey) return;
    const card = pic.closest(".card"), pics = this.pics(card), place = pics.indexOf(pic);
    const cards = [...card.parentElement.children].filter((one) => !one.hidden);
    const beside = (step) => {
      const near = cards[cards.indexOf(card) + step];
      return near && this.pics(near)[Math.min(place, this.pics(near).length - 1)];
    };
    const goals = {
      ArrowRight: () => pics[place + 1],
      ArrowLeft: () => pics[place - 1],
      ArrowDown: () => beside(1),
      ArrowUp: () => beside(-1),
      Home: () => pics[0],
      End: () => pics.at(-1),
    };
    if (event.key === "Enter" || event.key === " ") this.open(pic);
    else if (goals[event.key]) {
      const goal = goals[event.key]();
      if (goal) this.focus(goal);
    } else return;
    event.preventDefault();
  },

  make() {
    const element = (name, text, label) => {
      const made = document.createElement(name);
      if (text) made.textContent = text;
      if (label) made.setAttribute("aria-label", label);
      return made;
    };
    this.dialog = element("dialog", "", "Picture");
    this.dialog.className = "large";
    this.title = element("p");
    this.title.setAttribute("aria-live", "polite");
    this.frame = element("div");
    const bar = element("div"), back = element("button", "‹", "Previous picture"), next = element("button", "›", "Next picture");
    const close = element("button", "Close");
    bar.className = "bar-top";
    this.frame.className = "frame-large";
    bar.append(this.title, back, next, close);
    this.dialog.append(bar, this.frame);
    document.body.append(this.dialog);
    back.addEventListener("click", () => this.step(-1));
    next.addEventListener("click", () => this.step(1));
    close.addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => this.focus(this.pic));
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.step(-1);
      if (event.key === "ArrowRight") this.step(1);
    });
  },

  open(pic) {
    this.show(pic);
    this.dialog.showModal();
  },

  step(by) {
    const pics = this.pics(this.pic.closest(".card")), goal = pics[pics.indexOf(this.pic) + by];
    if (goal) this.show(goal);
  },

  show(pic) {
    this.pic = pic;
    const copy = pic.cloneNode(true), drawn = pic.querySelector("canvas"), figure = pic.closest("figure");
    for (const name of ["role", "tabindex", "aria-haspopup"]) copy.removeAttribute(name);
    if (drawn) copy.querySelector("canvas").getContext("2d").drawImage(drawn, 0, 0);
    const [width, height] = ["width", "height"].map((side) => Number(figure.querySelector("img").getAttribute(side)));
    this.frame.style.setProperty("--ratio", width / height);
    this.frame.className = `frame-large ${figure.className}`;
    this.frame.replaceChildren(copy);
    const id = pic.closest(".card").querySelector("h4").firstChild.textContent;
    this.title.textContent = [id, ...[...figure.querySelectorAll("figcaption > *")].map((part) => part.textContent)].join(" · ");
  },
};

viewer.start();
