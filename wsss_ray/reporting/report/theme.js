// The switch of the theme: as the system, light or dark. The choice is kept if the browser gives files a storage.
const theme = {
  names: ["auto", "light", "dark"],
  button: document.getElementById("theme"),

  set(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    this.name = name;
    this.button.textContent = `Theme: ${name}`;
    try { localStorage.setItem("wsss-ray-theme", name); } catch { /* files may have no storage */ }
  },

  start() {
    let kept = null;
    try { kept = localStorage.getItem("wsss-ray-theme"); } catch { /* as above */ }
    this.set(this.names.includes(kept) ? kept : "auto");
    this.button.hidden = false;
    this.button.addEventListener("click", () => this.set(this.names[(this.names.indexOf(this.name) + 1) % 3]));
  },
};
theme.start();

// Open all folded parts for printing.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
});
