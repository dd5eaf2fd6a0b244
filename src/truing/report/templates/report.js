"use strict";
for (const b of document.querySelectorAll(".blur")) {
  b.tabIndex = 0;
  b.setAttribute("role", "button");
  b.setAttribute("aria-label", "blurred text: press to show");
  const flip = () => b.classList.toggle("clear");
  b.addEventListener("click", flip);
  b.addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); flip(); } });
}
const rows = [...document.querySelectorAll("table.rows tbody tr")];
const why = document.querySelector("[data-filter=why]"), find = document.querySelector("[data-filter=find]");
const count = document.querySelector(".filters .count");
function filter() {
  let shown = 0;
  const w = why ? why.value : "", f = find ? find.value.trim().toLowerCase() : "";
  for (const r of rows) {
    const ok = (!w || r.dataset.why === w) && (!f || r.textContent.toLowerCase().includes(f));
    r.hidden = !ok;
    if (ok) shown += 1;
  }
  if (count) count.textContent = shown + " of " + rows.length + " rows";
}
if (why) why.addEventListener("change", filter);
if (find) find.addEventListener("input", filter);
filter();
function unfold() {
  const s = location.hash && document.querySelector(location.hash);
  const d = s && s.querySelector("details.fold");
  if (d) d.open = true;
}
addEventListener("hashchange", unfold);
unfold();
