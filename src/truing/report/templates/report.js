"use strict";
const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
const by = (id) => document.getElementById(id);
const make = (tag, kind, text) => {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
};

// Hover and tap: the titles of marks and cells, at once, and on a phone too.
const tip = by("tip");
for (const title of all("svg g > title, svg circle > title, svg rect > title")) {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
}
function showTip(event) {
  const target = event.target.closest("[data-tip], td[title], th[title]");
  const text = target && (target.dataset.tip || (event.pointerType !== "mouse" && target.title));
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const width = document.documentElement.clientWidth;
  tip.style.left = Math.max(8, Math.min(event.clientX + 12, width - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(8, event.clientY - tip.offsetHeight - 12) + "px";
}
addEventListener("pointermove", showTip);
addEventListener("pointerdown", showTip);
addEventListener("scroll", () => { tip.hidden = true; }, true);

// Filter by variant: all charts of the page.
for (const box of all("[data-series]")) {
  box.addEventListener("change", () => {
    for (const mark of all(`[data-v="${box.dataset.series}"]`)) mark.classList.toggle("off", !box.checked);
  });
}

// Rows: some of them at a time, as text and never as markup.
const PAGE = 50;
function textBlock(name, text, readable) {
  const block = make("div", "said");
  block.append(make("b", "", name));
  const body = make("div", readable ? "" : "blur", text);
  block.append(body);
  if (!readable) {
    body.tabIndex = 0;
    body.setAttribute("role", "button");
    body.setAttribute("aria-label", "blurred text: press to show");
    const flip = () => {
      const clear = body.classList.toggle("clear");
      if (clear) body.removeAttribute("aria-label");
      else body.setAttribute("aria-label", "blurred text: press to show");
    };
    body.addEventListener("click", flip);
    body.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); flip(); } });
  }
  return block;
}
function rowElement(data, row) {
  const [id, index, set, why, expect, categories, outcomes, prompt, texts] = row;
  const item = make("li");
  const readable = prompt && data.readable[set];
  if (readable) item.append(make("p", "prompt", prompt));
  const facts = [data.data[set], data.whys[why], categories.map((c) => data.categories[c]).join(", "), data.expects[expect]];
  const head = make("p", "facts");
  head.append(make("code", "", index ? `${id} #${index}` : id), " " + facts.filter(Boolean).join(" · "));
  item.append(head);
  const marks = make("p", "marks");
  data.variants.forEach((name, v) => {
    const outcome = outcomes[v] < 0 ? "absent" : data.outcomes[outcomes[v]];
    const tag = make("span", "tag");
    tag.append(make("i", `swatch o-${outcome}`), `${name}: ${outcome === "absent" ? "–" : outcome}`);
    marks.append(tag);
  });
  item.append(marks);
  if (prompt) {
    const details = make("details");
    details.append(make("summary", "", readable ? "answers" : "text"));
    details.addEventListener("toggle", () => {
      if (!details.open || details.children.length > 1) return;
      if (!readable) details.append(textBlock("prompt", prompt, false));
      (texts || []).forEach((text, v) => { if (text) details.append(textBlock(data.variants[v], text, false)); });
    });
    item.append(details);
  }
  return item;
}
function startRows(element) {
  const data = JSON.parse(element.textContent), list = by("row-list"), more = by("more-rows");
  const why = by("row-why"), outcome = by("row-outcome"), find = by("row-find"), count = document.querySelector(".filters .count");
  let matching = [], drawn = 0;
  const draw = () => {
    for (const row of matching.slice(drawn, drawn + PAGE)) list.append(rowElement(data, row));
    drawn = Math.min(matching.length, drawn + PAGE);
    more.hidden = drawn >= matching.length;
  };
  const filter = () => {
    const words = find.value.trim().toLowerCase();
    const hit = (text) => text && text.toLowerCase().includes(words);
    matching = data.rows.filter((r) => (why.value === "" || r[3] === +why.value)
      && (outcome.value === "" || r[6].includes(+outcome.value))
      && (!words || hit(r[0]) || hit(r[7]) || (r[8] || []).some(hit) || r[5].some((c) => hit(data.categories[c]))));
    count.textContent = `${matching.length} of ${data.rows.length} rows`;
    list.replaceChildren();
    drawn = 0;
    draw();
  };
  why.addEventListener("change", filter);
  outcome.addEventListener("change", filter);
  find.addEventListener("input", filter);
  more.addEventListener("click", draw);
  filter();
}
const rowsData = by("rows-data");
if (rowsData) startRows(rowsData);

// Links to a folded section open it.
function unfold() {
  let target = null;
  try { target = location.hash && document.querySelector(location.hash); } catch { return; }
  const fold = target && target.querySelector("details.fold");
  if (fold) { fold.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", unfold);
unfold();

// On paper all is open, and no table is wider than the page.
const PAPER = 680;  // CSS pixels between the margins of A4
let opened = [];
addEventListener("beforeprint", () => {
  opened = all("details:not([open])").filter((d) => !d.closest("#row-list"));
  for (const details of opened) details.open = true;
  for (const table of all(".scroll > table")) {
    table.style.width = "min-content";
    const width = table.offsetWidth;
    table.style.width = "";
    if (width > PAPER) table.style.zoom = PAPER / width;
  }
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
  for (const table of all(".scroll > table")) table.style.zoom = "";
});
