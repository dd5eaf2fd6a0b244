// The pages work as plain forms; this makes them quick, keeps what was typed when a server is away, streams responses,
// and gives every action a key. Text from models and people is only ever set as text, never as HTML.
"use strict";
(() => {
  const $ = (what, from = document) => from.querySelector(what);
  const all = (what, from = document) => [...from.querySelectorAll(what)];
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  let source = null, timers = [];

  const note = (text) => { const box = $("#note"); box.textContent = text || ""; box.hidden = !text; };
  const tell = (text) => { $("#tell").textContent = text; };

  // ---- a request that is sent again while the server is away; none when it stays away
  const AWAY = "The server does not answer; trying again. What you entered is safe here.";
  async function reach(where, options) {
    for (let tries = 0; tries < 60; tries++) {
      try {
        const answer = await fetch(where, options);
        if (answer.status < 500) { if (tries) note(""); return answer; }
      } catch { /* away */ }
      note(AWAY);
      await pause(Math.min(4000, 300 * 2 ** Math.min(tries, 4)));
    }
    note("The server does not answer. What you entered is still here; try again in a while.");
    return null;
  }

  // ---- going to another page without a flash
  async function load(where, push = true) {
    const url = new URL(where, location.href);
    const answer = await reach(url, { headers: { accept: "text/html" } });
    if (!answer) return;
    const said = await answer.text().catch(() => null);
    if (said === null) return load(where, push); // the server went away in the middle of the page
    const page = new DOMParser().parseFromString(said, "text/html");
    const main = $("main", page);
    if (!main) { location.href = url; return; }
    const landed = new URL(answer.url); landed.hash = url.hash;
    if (push && landed.href !== location.href) history.pushState(null, "", landed);
    document.title = page.title;
    for (const part of ["header.top", "main"]) $(part).replaceWith($(part, page));
    start();
    tell(page.title);
    const target = (landed.hash && $(landed.hash)) || null;
    const focus = $("[data-focus]") || $("main h1");
    if (focus) { if (!focus.matches("a, button, input, textarea")) focus.tabIndex = -1; focus.focus({ preventScroll: Boolean(target) }); }
    if (target) target.scrollIntoView({ block: "start" }); else if (!$("[data-focus]")) scrollTo(0, 0);
  }
  addEventListener("popstate", () => load(location.href, false));

  // ---- forms: sent by script, and sent again while the server is away (keys and leases make that safe)
  async function send(form, button) {
    const body = new URLSearchParams(new FormData(form));
    if (button && button.name) body.set(button.name, button.value);
    const buttons = all("button", form);
    buttons.forEach((b) => { b.disabled = true; });
    try {
      const answer = await reach(form.action, { method: "POST", body, headers: { "x-fetch": "1" } });
      if (!answer) return;
      const said = await answer.json().catch(() => ({}));
      note(answer.ok ? "" : said.error || "That did not work.");
      if (said.go) await load(said.go);
    } finally {
      buttons.forEach((b) => { if (b.isConnected) b.disabled = false; });
    }
  }
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-live]")) return;
    event.preventDefault();
    if (form.dataset.busy) return;
    if (form.dataset.sure && !confirm(form.dataset.sure)) return;
    form.dataset.busy = "1";
    send(form, event.submitter).finally(() => { delete form.dataset.busy; });
  });

  // ---- a pair that streams in
  function stream(form) {
    const where = form.dataset.stream;
    const again = $("[data-again]", form);
    const parts = Object.fromEntries(all("[data-side]", form).map((s) => [s.dataset.side, s]));
    const clear = () => Object.values(parts).forEach((s) => {
      $(".text", s).textContent = ""; $("[data-failed]", s).hidden = true; $(".coming", s).hidden = false;
    });
    again.hidden = true;
    clear();
    let tries = 0;
    const open = () => {
      source = new EventSource(where);
      source.addEventListener("open", () => { clear(); tries = 0; note(""); });
      source.addEventListener("piece", (event) => {
        const { letter, text } = JSON.parse(event.data);
        $(".text", parts[letter]).append(text);
      });
      source.addEventListener("end", (event) => {
        source.close();
        const failed = Object.entries(JSON.parse(event.data)).filter(([, why]) => why);
        for (const side of Object.values(parts)) {
          $(".coming", side).hidden = true;
          if (!$(".text", side).textContent) $(".text", side).textContent = "(no text)";
        }
        for (const [letter, why] of failed) {
          const box = $("[data-failed]", parts[letter]);
          $(".text", parts[letter]).textContent = "";
          box.textContent = why; box.hidden = false;
        }
        again.hidden = failed.length === 0;
        if (failed.length === 0) all("[name=pick]", form).forEach((b) => { b.disabled = false; });
        tell(failed.length ? "The model did not answer. You can try again." : "Both responses are there.");
      });
      source.addEventListener("error", () => {
        if (source.readyState !== EventSource.CLOSED) { note("The connection broke off; trying again."); return; }
        source.close();
        if (++tries > 40) { note("The server does not answer. Load the page again in a while."); return; }
        note("The server does not answer; trying again.");
        timers.push(setTimeout(open, Math.min(4000, 500 * tries)));
      });
    };
    again.onclick = () => stream(form);
    open();
  }

  // ---- veils
  function veil(box, down) {
    box.classList.toggle("veiled", down);
    const text = $(".text", box), button = $(".reveal", box);
    if (down) text.setAttribute("aria-hidden", "true"); else text.removeAttribute("aria-hidden");
    button.textContent = `${down ? "Show" : "Veil"} ${button.dataset.label}`;
    button.setAttribute("aria-expanded", String(!down));
  }
  document.addEventListener("click", (event) => {
    const at = event.target.closest("button, [data-open]");
    if (!at) return;
    if (at.matches(".reveal")) { const box = at.closest("[data-veil]"); veil(box, !box.classList.contains("veiled")); }
    if (at.dataset.open) $(`#${at.dataset.open}`).showModal();
    if (at.dataset.copy) { const box = $(`#${at.dataset.copy}`); box.select(); navigator.clipboard?.writeText(box.value); tell("Copied."); }
    if (at.dataset.all) all(`[name=${at.dataset.all}]`).forEach((c) => { c.checked = true; });
    if (at.dataset.none) all(`[name=${at.dataset.none}]`).forEach((c) => { c.checked = false; });
    if (at.id === "theme") theme(at, true);
  });

  // ---- colours
  const THEMES = { "": "as the system", light: "light", dark: "dark" };
  function theme(button, next = false) {
    const root = document.documentElement, names = Object.keys(THEMES);
    let now = root.dataset.theme || "";
    if (next) {
      now = names[(names.indexOf(now) + 1) % names.length];
      if (now) root.dataset.theme = now; else delete root.dataset.theme;
      try { if (now) localStorage.setItem("theme", now); else localStorage.removeItem("theme"); } catch { /* not kept */ }
    }
    button.setAttribute("aria-label", `Colours: ${THEMES[now]}`);
    button.title = `Colours: ${THEMES[now]}`;
    button.textContent = { "": "◐", light: "○", dark: "●" }[now];
  }

  // ---- keys
  const groups = () => all("[data-grade]");
  function mark(group) {
    groups().forEach((g) => g.classList.toggle("current", g === group));
  }
  function move(by) {
    const list = groups(), now = list.findIndex((g) => g.classList.contains("current"));
    const next = list[Math.max(0, Math.min(list.length - 1, now + by))];
    if (next) { mark(next); next.scrollIntoView({ block: "center" }); $("input:checked, input", next).focus({ preventScroll: true }); }
  }
  addEventListener("keydown", (event) => {
    const at = event.target, typing = at.matches("textarea, select, input:not([type=radio], [type=checkbox])");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && at.form !== null) {
      const form = at.form || $("form:has([data-submit])");
      if (form) { event.preventDefault(); form.requestSubmit($("[data-submit]", form) || undefined); }
      return;
    }
    if (at.matches("[data-send]") && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault(); at.form.requestSubmit(); return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (event.key === "?") { $("#keys").showModal(); return; }
    if (event.key === "v") {
      const boxes = all("[data-veil]"), down = !boxes.some((b) => b.classList.contains("veiled"));
      boxes.forEach((b) => veil(b, down)); return;
    }
    if (event.key === "j") { move(1); return; }
    if (event.key === "k") { move(-1); return; }
    const group = $("[data-grade].current");
    if (group && /^[1-5]$/.test(event.key)) {
      event.preventDefault();
      $(`input[value="${event.key}"]`, group).checked = true;
      const list = groups();
      if (list.indexOf(group) < list.length - 1) move(1); else $("[data-submit]")?.focus();
      return;
    }
    const button = all(`[data-key="${event.key}"]`).find((b) => !b.disabled && b.offsetParent);
    if (button) { event.preventDefault(); button.click(); }
  });
  document.addEventListener("focusin", (event) => {
    const group = event.target.closest?.("[data-grade]");
    if (group) mark(group);
  });

  // ---- a lease runs down; it is lengthened while somebody is at work
  let active = Date.now();
  for (const kind of ["keydown", "pointerdown", "scroll"]) addEventListener(kind, () => { active = Date.now(); }, { passive: true });
  function lease(box) {
    let ends = Date.now() + 60000 * Number(box.dataset.lease);
    timers.push(setInterval(async () => {
      const left = Math.floor((ends - Date.now()) / 60000);
      box.textContent = left >= 0 ? `yours for ${left} min` : "time is over; you may still submit";
      if (left < 3 && Date.now() - active < 180000) {
        const body = new URLSearchParams({ csrf: $("#rating [name=csrf]").value });
        try {
          const answer = await fetch(box.dataset.keep, { method: "POST", body, headers: { "x-fetch": "1" } });
          if (answer.ok) ends = Date.now() + 60000 * (await answer.json()).minutes;
        } catch { /* the next round tries again */ }
      }
    }, 20000));
  }

  // ---- each page
  function start() {
    if (source) { source.close(); source = null; }
    timers.forEach((t) => { clearTimeout(t); clearInterval(t); });
    timers = [];
    note("");
    const button = $("#theme");
    if (button) theme(button);
    all("time[datetime]").forEach((t) => {
      t.title = t.textContent;
      t.textContent = new Date(t.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    });
    mark(groups()[0]);
    const form = $("form[data-stream]");
    if (form) stream(form);
    const box = $("[data-lease]");
    if (box) lease(box);
    const fresh = $("[data-refresh]");
    if (fresh) timers.push(setTimeout(() => { if (!document.hidden) refresh(); }, 1000 * Number(fresh.dataset.refresh)));
    if (location.hash === "#now" && $("#now")) $("#now").scrollIntoView({ block: "start" });
    if ($("[data-focus]")) $("[data-focus]").focus({ preventScroll: true });
  }
  async function refresh() {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = $("[data-refresh]", page), old = $("[data-refresh]");
      if (fresh && old) old.replaceWith(fresh);
    } catch { /* the next round tries again */ }
    const now = $("[data-refresh]");
    if (now) timers.push(setTimeout(refresh, 1000 * Number(now.dataset.refresh)));
  }
  start();
})();
