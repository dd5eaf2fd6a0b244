// Progressive enhancement: every page also works as a plain form. This script submits forms in the background, sends
// them again while the server is away, streams responses, and binds the keys.
// Text from models and people is only ever set as text, never as HTML.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  let source = null, timers = []; // the event stream and the timers of the current page

  const showNotice = (text) => { const box = $("#notice"); box.textContent = text || ""; box.hidden = !text; };
  const announce = (text) => { $("#announcer").textContent = text; }; // for screen readers

  // ---- requests: sent again while the server is away (about 4 minutes)
  // An attempt without a complete response after ATTEMPT_MS counts as failed: a connection that a crash or a proxy left
  // half open stays silent for ever.
  const ATTEMPT_MS = 30000, RETRY_MS = 240000;
  const AWAY = "The server does not answer; trying again. What you entered is safe here.";
  const BUSY = "Too many requests; this goes on in a few seconds. What you entered is safe here.";
  // Returns {response, text}, or null if no attempt succeeded.
  async function fetchWithRetry(url, options) {
    const deadline = performance.now() + RETRY_MS;
    for (let tries = 0; performance.now() < deadline; tries++) {
      let delay = Math.min(4000, 300 * 2 ** Math.min(tries, 4)), reason = AWAY;
      try {
        const response = await fetch(url, { ...options, signal: AbortSignal.timeout(ATTEMPT_MS) });
        // The body belongs to the attempt: the connection may break off in the middle of it.
        const text = await response.text();
        const seconds = Number(response.headers.get("retry-after") || 0);
        const throttled = response.status === 429 && seconds > 0 && seconds <= 10;
        if (response.status < 500 && !throttled) { if (tries) showNotice(""); return { response, text }; }
        if (throttled) { delay = 1000 * seconds; reason = BUSY; }
      } catch { /* no connection, or no complete response in time */ }
      showNotice(reason);
      await sleep(delay);
    }
    showNotice("The server does not answer. What you entered is still here; try again in a while.");
    return null;
  }

  // ---- navigation: replaces header and main of the current page
  async function loadPage(href, push = true) {
    const url = new URL(href, location.href);
    const result = await fetchWithRetry(url, { headers: { accept: "text/html" } });
    if (!result) return;
    const page = new DOMParser().parseFromString(result.text, "text/html");
    if (!$("main", page)) { location.href = url; return; }
    const landed = new URL(result.response.url); landed.hash = url.hash; // after redirects
    if (push && landed.href !== location.href) history.pushState(null, "", landed);
    document.title = page.title;
    for (const part of ["header.top", "main"]) $(part).replaceWith($(part, page));
    initPage();
    announce(page.title);
    const target = (landed.hash && $(landed.hash)) || null;
    const focus = $("[data-focus]") || $("main h1");
    if (focus) {
      if (!focus.matches("a, button, input, textarea")) focus.tabIndex = -1;
      focus.focus({ preventScroll: Boolean(target) });
    }
    if (target) target.scrollIntoView({ block: "start" }); else if (!$("[data-focus]")) scrollTo(0, 0);
  }
  addEventListener("popstate", () => loadPage(location.href, false));

  // ---- forms: safe to send again, because keys and leases make a repeated submission change nothing
  const parseJson = (text) => { try { return JSON.parse(text); } catch { return {}; } };
  async function submitForm(form, button) {
    const body = new URLSearchParams(new FormData(form));
    if (button && button.name) body.set(button.name, button.value);
    const buttons = all("button", form);
    buttons.forEach((b) => { b.disabled = true; });
    try {
      const sent = await fetchWithRetry(form.action, { method: "POST", body, headers: { "x-fetch": "1" } });
      if (!sent) return;
      const answer = parseJson(sent.text);
      showNotice(sent.response.ok ? "" : answer.error || "That did not work.");
      if (answer.go) await loadPage(answer.go);
    } finally {
      buttons.forEach((b) => { if (b.isConnected) b.disabled = false; });
    }
  }
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-ajax]")) return;
    event.preventDefault();
    if (form.dataset.busy) return;
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
    form.dataset.busy = "1";
    submitForm(form, event.submitter).finally(() => { delete form.dataset.busy; });
  });

  // ---- a pair of responses, by server-sent events
  const SILENT_MS = 45000; // the server sends an event every 15 s
  function streamPair(form) {
    const retry = $("[data-retry]", form);
    const sides = Object.fromEntries(all("[data-side]", form).map((s) => [s.dataset.side, s]));
    const clear = () => Object.values(sides).forEach((side) => {
      $(".text", side).textContent = ""; $("[data-failed]", side).hidden = true; $(".writing", side).hidden = false;
    });
    retry.hidden = true;
    clear();
    let tries = 0, lastEvent = 0, watchdog = 0;
    const recordEvent = () => { lastEvent = performance.now(); };
    const open = () => {
      source = new EventSource(form.dataset.stream);
      recordEvent();
      for (const kind of ["open", "piece", "waiting"]) source.addEventListener(kind, recordEvent);
      // A half-open connection raises no error: without the server's `waiting` events it is opened again.
      clearInterval(watchdog);
      watchdog = setInterval(() => {
        if (performance.now() - lastEvent < SILENT_MS) return;
        source.close(); showNotice("The connection broke off; trying again."); open();
      }, 5000);
      timers.push(watchdog);
      // The server sends the whole text on every connection, so a reconnection starts from nothing.
      source.addEventListener("open", () => { clear(); tries = 0; showNotice(""); });
      source.addEventListener("piece", (event) => {
        const { letter, text } = JSON.parse(event.data);
        $(".text", sides[letter]).append(text);
      });
      source.addEventListener("end", (event) => {
        source.close(); clearInterval(watchdog);
        const failures = Object.entries(JSON.parse(event.data)).filter(([, reason]) => reason);
        for (const side of Object.values(sides)) {
          $(".writing", side).hidden = true;
          if (!$(".text", side).textContent) $(".text", side).textContent = "(no text)";
        }
        for (const [letter, reason] of failures) {
          const box = $("[data-failed]", sides[letter]);
          $(".text", sides[letter]).textContent = "";
          box.textContent = reason; box.hidden = false;
        }
        retry.hidden = failures.length === 0;
        if (failures.length === 0) all("[name=pick]", form).forEach((b) => { b.disabled = false; });
        announce(failures.length ? "The model did not answer. You can try again." : "Both responses are complete.");
      });
      source.addEventListener("error", () => {
        // The browser reconnects by itself, except after an HTTP error: then the source is closed.
        if (source.readyState !== EventSource.CLOSED) { showNotice("The connection broke off; trying again."); return; }
        source.close(); clearInterval(watchdog);
        if (++tries > 40) { showNotice("The server does not answer. Load the page again in a while."); return; }
        showNotice("The server does not answer; trying again.");
        timers.push(setTimeout(open, Math.min(4000, 500 * tries)));
      });
    };
    retry.onclick = () => streamPair(form);
    open();
  }

  // ---- blurred texts
  function setBlurred(box, blurred) {
    box.classList.toggle("blurred", blurred);
    const text = $(".text", box), button = $(".reveal", box);
    if (blurred) text.setAttribute("aria-hidden", "true"); else text.removeAttribute("aria-hidden");
    button.textContent = `${blurred ? "Show" : "Hide"} ${button.dataset.label}`;
    button.setAttribute("aria-expanded", String(!blurred));
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button, [data-open]");
    if (!button) return;
    if (button.matches(".reveal")) {
      const box = button.closest("[data-blur]");
      setBlurred(box, !box.classList.contains("blurred"));
    }
    if (button.dataset.open) $(`#${button.dataset.open}`).showModal();
    if (button.dataset.copy) {
      const box = $(`#${button.dataset.copy}`);
      box.select(); navigator.clipboard?.writeText(box.value); announce("Copied.");
    }
    if (button.dataset.all) all(`[name=${button.dataset.all}]`).forEach((c) => { c.checked = true; });
    if (button.dataset.none) all(`[name=${button.dataset.none}]`).forEach((c) => { c.checked = false; });
    if (button.id === "theme") showTheme(button, true);
  });

  // ---- colour theme: system, light, dark
  const THEMES = { "": "system setting", light: "light", dark: "dark" };
  function showTheme(button, next = false) {
    const root = document.documentElement, names = Object.keys(THEMES);
    let theme = root.dataset.theme || "";
    if (next) {
      theme = names[(names.indexOf(theme) + 1) % names.length];
      if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
      try {
        if (theme) localStorage.setItem("theme", theme); else localStorage.removeItem("theme");
      } catch { /* no storage: for this page only */ }
    }
    button.setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
    button.title = `Colours: ${THEMES[theme]}`;
    button.textContent = { "": "◐", light: "○", dark: "●" }[theme];
  }

  // ---- keys: digits grade the current group of grades and go to the next
  const groups = () => all("[data-grade]");
  function setCurrentGroup(group) {
    groups().forEach((g) => g.classList.toggle("current", g === group));
  }
  function moveToGroup(step) {
    const list = groups(), index = list.findIndex((g) => g.classList.contains("current"));
    const next = list[Math.max(0, Math.min(list.length - 1, index + step))];
    if (!next) return;
    setCurrentGroup(next);
    next.scrollIntoView({ block: "center" });
    $("input:checked, input", next).focus({ preventScroll: true });
  }
  addEventListener("keydown", (event) => {
    const field = event.target, typing = field.matches("textarea, select, input:not([type=radio], [type=checkbox])");
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && field.form !== null) {
      const form = field.form || $("form:has([data-submit])");
      if (form) { event.preventDefault(); form.requestSubmit($("[data-submit]", form) || undefined); }
      return;
    }
    // isComposing: Enter that confirms a candidate of an input method (Chinese, Japanese) does not send.
    if (field.matches("[data-submit-on-enter]") && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault(); field.form.requestSubmit(); return;
    }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (event.key === "?") { $("#keys").showModal(); return; }
    if (event.key === "v") {
      const boxes = all("[data-blur]"), blur = !boxes.some((b) => b.classList.contains("blurred"));
      boxes.forEach((b) => setBlurred(b, blur)); return;
    }
    if (event.key === "j") { moveToGroup(1); return; }
    if (event.key === "k") { moveToGroup(-1); return; }
    const group = $("[data-grade].current");
    if (group && /^[1-5]$/.test(event.key)) {
      event.preventDefault();
      $(`input[value="${event.key}"]`, group).checked = true;
      const list = groups();
      if (list.indexOf(group) < list.length - 1) moveToGroup(1); else $("[data-submit]")?.focus();
      return;
    }
    const button = all(`[data-key="${event.key}"]`).find((b) => !b.disabled && b.offsetParent); // a visible one
    if (button) { event.preventDefault(); button.click(); }
  });
  document.addEventListener("focusin", (event) => {
    const group = event.target.closest?.("[data-grade]");
    if (group) setCurrentGroup(group);
  });

  // ---- leases: renewed in the last 3 minutes if the rater was active in the last 3
  let lastActive = Date.now();
  for (const kind of ["keydown", "pointerdown", "scroll"]) {
    addEventListener(kind, () => { lastActive = Date.now(); }, { passive: true });
  }
  function watchLease(box) {
    let ends = Date.now() + 60000 * Number(box.dataset.lease);
    timers.push(setInterval(async () => {
      const minutes = Math.floor((ends - Date.now()) / 60000);
      box.textContent = minutes >= 0 ? `reserved for you for ${minutes} min` : "time is over; you may still submit";
      if (minutes < 3 && Date.now() - lastActive < 180000) {
        const body = new URLSearchParams({ csrf: $("#rating [name=csrf]").value });
        try {
          const options = { method: "POST", body, headers: { "x-fetch": "1" }, signal: AbortSignal.timeout(15000) };
          const response = await fetch(box.dataset.renew, options);
          if (response.ok) ends = Date.now() + 60000 * (await response.json()).minutes;
        } catch { /* tried again at the next interval */ }
      }
    }, 20000));
  }

  // ---- setup of each page, after a load or a navigation
  function initPage() {
    if (source) { source.close(); source = null; }
    timers.forEach((t) => { clearTimeout(t); clearInterval(t); });
    timers = [];
    showNotice("");
    const themeButton = $("#theme");
    if (themeButton) showTheme(themeButton);
    all("time[datetime]").forEach((t) => { // in the local time zone; UTC as a tooltip
      t.title = t.textContent;
      t.textContent = new Date(t.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    });
    setCurrentGroup(groups()[0]);
    const form = $("form[data-stream]");
    if (form) streamPair(form);
    const lease = $("[data-lease]");
    if (lease) watchLease(lease);
    scheduleRefresh();
    if (location.hash === "#now" && $("#now")) $("#now").scrollIntoView({ block: "start" });
    if ($("[data-focus]")) $("[data-focus]").focus({ preventScroll: true });
  }

  // ---- live pages: loaded again at an interval while they are visible, and when they become visible
  let refreshTimer = 0;
  function scheduleRefresh() {
    clearTimeout(refreshTimer);
    const live = $("[data-refresh]");
    if (live) refreshTimer = setTimeout(refresh, 1000 * Number(live.dataset.refresh));
  }
  async function refresh() {
    if (document.hidden) return; // `visibilitychange` goes on
    try {
      const options = { headers: { accept: "text/html" }, signal: AbortSignal.timeout(ATTEMPT_MS) };
      const response = await fetch(location.href, options);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const oldPart = $("[data-refresh]");
      // Without the attribute it is the last state, which changes no more.
      const newPart = $("[data-refresh]", page) ?? (oldPart?.id ? page.getElementById(oldPart.id) : null);
      if (newPart && oldPart) oldPart.replaceWith(newPart);
    } catch { /* tried again at the next interval */ }
    scheduleRefresh();
  }
  document.addEventListener("visibilitychange", () => { if ($("[data-refresh]")) refresh(); });
  initPage();
})();
