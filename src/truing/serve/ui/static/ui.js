// Keys, hidden texts and filters of the pages over runs. Without it pages work too: no-script.css shows texts under the mouse.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // ---- texts: hidden until somebody asks, and then shown on all pages of this browser window
  const main = $("main"), hidesTexts = main.classList.contains("texts-hidden");
  function showTexts(shown) {
    main.classList.toggle("texts-hidden", !shown);
    all("[data-toggle-texts]").forEach((button) => {
      button.textContent = shown ? "Hide texts" : "Show texts";
      button.setAttribute("aria-pressed", String(shown));
    });
  }
  function rememberTexts(shown) {
    try { sessionStorage.setItem("texts", shown ? "shown" : "hidden"); } catch { /* for this page only */ }
  }
  let remembered = null;
  try { remembered = sessionStorage.getItem("texts"); } catch { /* no storage */ }
  if ($("[data-toggle-texts]")) showTexts(remembered ? remembered === "shown" : !hidesTexts);
  function toggleTexts() {
    const shown = main.classList.contains("texts-hidden");
    showTexts(shown);
    rememberTexts(shown);
  }

  // ---- what scrolls can be reached and scrolled by the keyboard, and nothing else is a stop of Tab
  function markScrolling() {
    all(".scroll, .text, .output").forEach((part) => {
      const scrolls = part.scrollWidth > part.clientWidth + 1 || part.scrollHeight > part.clientHeight + 1;
      if (scrolls && getComputedStyle(part).overflowY !== "hidden") part.tabIndex = 0;
      else part.removeAttribute("tabindex");
    });
  }
  let marking = 0;
  function markScrollingSoon() {
    cancelAnimationFrame(marking);
    marking = requestAnimationFrame(markScrolling);
  }
  markScrollingSoon();
  addEventListener("resize", markScrollingSoon);
  document.addEventListener("toggle", markScrollingSoon, true);
  new MutationObserver(markScrollingSoon).observe(main, { childList: true, subtree: true, attributeFilter: ["class"] });

  // ---- filters: a choice takes effect at once
  const filters = $("form[data-filters]");
  if (filters) {
    filters.addEventListener("change", (event) => {
      if (event.target.matches("select, input[type=checkbox]")) filters.requestSubmit();
    });
    // Empty fields would only make the link long.
    filters.addEventListener("formdata", (event) => {
      for (const [name, value] of [...event.formData.entries()]) if (value === "") event.formData.delete(name);
    });
  }

  // ---- a page that waits for something is loaded again
  const waiting = $("[data-reload]");
  if (waiting) setTimeout(() => location.reload(), 1000 * Number(waiting.dataset.reload));

  // ---- rows: j and k mark the next and the previous one
  const rows = () => all("[data-row]");
  function markRow(step) {
    const list = rows(), marked = list.findIndex((row) => row.classList.contains("current"));
    const next = list[Math.max(0, Math.min(list.length - 1, marked < 0 ? (step > 0 ? 0 : list.length - 1) : marked + step))];
    list.forEach((row) => row.classList.toggle("current", row === next));
    if (!next) return;
    next.scrollIntoView({ block: "nearest" });
    $("a", next).focus({ preventScroll: true });
  }
  document.addEventListener("click", (event) => { if (event.target.closest("[data-toggle-texts]")) toggleTexts(); });
  addEventListener("keydown", (event) => {
    const field = event.target;
    if (field.matches("[data-search]") && event.key === "Escape") { field.blur(); return; }
    if (field.matches("textarea, select, input:not([type=radio], [type=checkbox])")) return;
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (event.key === "/") {
      const search = $("[data-search]");
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    } else if (event.key === "v") {
      if ($("[data-toggle-texts]")) toggleTexts();
    } else if (event.key === "j" || event.key === "k") {
      if (rows().length) { markRow(event.key === "j" ? 1 : -1); return; }
      const link = $(event.key === "j" ? "a[data-next]" : "a[data-previous]");
      if (link) link.click();
    } else if (event.key === "Enter" && !field.matches("a, button, summary")) {
      const marked = $("[data-row].current");
      if (marked) location.href = marked.dataset.href;
    }
  });
})();
