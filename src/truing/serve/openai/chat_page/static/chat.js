// The chat page: asks the API, and shows for each turn what the rails decided. Texts are only ever set as text.
"use strict";
(() => {
  const $ = (selector) => document.querySelector(selector);
  const messages = []; // of the conversation, as the API takes them
  let key = "", asking = null, turnsRunning = 0;
  try { key = sessionStorage.getItem("key") || ""; } catch { /* no storage: asked on each page */ }

  function add(parent, tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }
  const notice = (text) => { const box = $("#notice"); box.textContent = text || ""; box.hidden = !text; };
  const announce = (text) => { $("#announcer").textContent = text; };

  // ---- the API
  async function request(path, body, signal) {
    const headers = key ? { authorization: `Bearer ${key}` } : {};
    if (body !== undefined) headers["content-type"] = "application/json";
    const response = await fetch(path, {
      method: body === undefined ? "GET" : "POST", headers, signal,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.ok) return response;
    let reason = `The server answered ${response.status}.`;
    try { reason = (await response.json()).error.message; } catch { /* not of the API */ }
    const error = new Error(reason);
    error.status = response.status;
    throw error;
  }

  // Yields the JSON of the server-sent events of a response.
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: {")) yield JSON.parse(line.slice(6));
    }
  }

  // ---- a turn
  function showSaid(who, text, turns = $("#turns")) {
    const item = add(turns, "li", `by-${who}`);
    add(item, "span", "visually-hidden", who === "user" ? "You:" : "Bot:");
    const said = add(item, "p", "said", text);
    item.scrollIntoView({ block: "nearest" });
    return { item, said };
  }

  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  function showDecisions(item, rails) {
    const box = add(item, "details", "decisions");
    const stopped = rails.filter((rail) => rail.ruling !== "allow");
    const calls = rails.reduce((sum, rail) => sum + rail.llm_calls, 0);
    const words = stopped.length ? stopped.map((rail) => `${rail.name}: ${rail.ruling}`).join(", ") : "all rails let it pass";
    add(box, "summary", "", rails.length ? `${words} (${count(rails.length, "decision")}, ${count(calls, "model call")})` : "No rail ran");
    box.open = stopped.length > 0;
    if (!rails.length) return;
    const list = add(box, "ul");
    for (const rail of rails) {
      const row = add(list, "li");
      add(row, "span", `ruling ${rail.ruling}`, rail.ruling);
      add(row, "span", "rail", `${rail.name} · ${rail.stage}`);
      add(row, "span", "ms", `${rail.ms.toFixed(1)} ms`);
      const score = rail.score === null ? "" : ` (score ${rail.score.toFixed(2)})`;
      add(row, "span", "why", `${rail.reason || ""}${score}${rail.evidence ? `: ${rail.evidence}` : ""}`);
    }
  }

  async function send(text) {
    messages.push({ role: "user", content: text });
    showSaid("user", text);
    const { item, said } = showSaid("bot", "");
    item.setAttribute("aria-busy", "true");
    const started = performance.now();
    let first = null, calls = [];
    turnsRunning += 1;
    watchApprovals();
    try {
      const response = await request("/v1/chat/completions", {
        messages, stream: true,
        guardrails: { config_id: $("#config").value, options: { log: { activated_rails: true } } },
      });
      for await (const event of events(response)) {
        if (event.error) throw new Error(event.error.message);
        const choice = event.choices[0];
        if (choice.delta.content) {
          first ??= performance.now() - started;
          said.textContent += choice.delta.content;
        }
        calls = choice.delta.tool_calls || calls;
        if (!choice.finish_reason) continue;
        if (choice.finish_reason === "content_filter") item.classList.add("blocked");
        const whole = performance.now() - started;
        add(item, "p", "times", `first text after ${Math.round(first ?? whole)} ms, whole answer after ${Math.round(whole)} ms`);
        showDecisions(item, event.guardrails ? event.guardrails.rails : []);
      }
      if (calls.length) add(item, "pre", "calls", calls.map((call) => `${call.function.name} ${call.function.arguments}`).join("\n"));
      const answer = { role: "assistant", content: said.textContent };
      if (calls.length) answer.tool_calls = calls.map(({ id, type, function: called }) => ({ id, type, function: called }));
      messages.push(answer);
      announce(said.textContent);
    } catch (error) {
      messages.pop();
      item.classList.add("blocked");
      said.textContent = error.message;
      announce(error.message);
    } finally {
      turnsRunning -= 1;
      item.removeAttribute("aria-busy");
      item.scrollIntoView({ block: "nearest" });
    }
  }

  // ---- tool calls that wait for a person
  async function watchApprovals() {
    if (asking) return;
    asking = true;
    try {
      while (turnsRunning) {
        const { data } = await (await request("/v1/approvals")).json();
        showWaiting(data);
        await new Promise((done) => setTimeout(done, 700));
      }
    } catch { /* nobody is asked here, or not by this key */ }
    asking = null;
    showWaiting([]);
  }

  function showWaiting(calls) {
    const box = $("#waiting"), shown = new Set([...box.children].map((child) => child.dataset.id));
    const ids = new Set(calls.map((call) => call.id));
    for (const child of [...box.children]) if (!ids.has(child.dataset.id)) child.remove();
    for (const call of calls) {
      if (shown.has(call.id)) continue;
      const card = add(box, "div", "card ask");
      card.dataset.id = call.id;
      add(card, "p", "", `May the bot call ${call.name}?`);
      const whose = call.client ? `client ${call.client}` : "a client without a key";
      add(card, "p", "times", `${call.config || "the model"} · ${whose} · asked ${Math.round(call.seconds)} s ago`);
      add(card, "pre", "calls", call.arguments);
      const actions = add(card, "div", "actions");
      for (const [label, allow] of [["Allow", true], ["Deny", false]]) {
        const button = add(actions, "button", allow ? "primary" : "", label);
        button.type = "button";
        button.addEventListener("click", async () => {
          try { await request("/v1/approvals", { id: call.id, allow }); } catch (error) { notice(error.message); }
          card.remove();
          box.hidden = !box.children.length;
        });
      }
      announce(`The bot asks to call ${call.name}.`);
    }
    box.hidden = !box.children.length;
  }

  // ---- test files
  async function runFile(file) {
    notice("");
    const item = add($("#turns"), "li", "by-bot");
    const said = add(item, "p", "said", `Running ${file.name} …`);
    try {
      const body = { config_id: $("#config").value, dialogues: await file.text() };
      const { data } = await (await request("/v1/rails/tests", body)).json();
      const failed = data.filter((outcome) => !outcome.passed).length;
      said.textContent = `${file.name}: ${data.length - failed} of ${data.length} dialogues passed`;
      item.classList.toggle("blocked", failed > 0);
      for (const outcome of data) {
        const box = add(item, "details", "decisions");
        box.open = !outcome.passed;
        const summary = add(box, "summary");
        add(summary, "span", `outcome ${outcome.passed ? "passed" : "failed"}`, outcome.passed ? "passed" : "failed");
        summary.append(` ${outcome.dialogue} (${Math.round(1000 * outcome.seconds)} ms)`);
        const list = add(box, "ul", "faults");
        for (const fault of outcome.faults) add(add(list, "li"), "span", "why", fault);
        if (!outcome.faults.length) list.remove();
        // The conversation as it went, with what the rails decided in each turn.
        const replay = add(box, "ol", "turns replay");
        replay.setAttribute("aria-label", `Conversation of ${outcome.dialogue}`);
        for (const turn of outcome.turns) {
          showSaid("user", turn.input, replay);
          const { item: reply } = showSaid("bot", turn.bot, replay);
          reply.classList.toggle("blocked", turn.rails.some((rail) => rail.ruling === "block"));
          add(reply, "p", "times", `${Math.round(turn.ms)} ms`);
          showDecisions(reply, turn.rails);
        }
      }
      announce(said.textContent);
    } catch (error) {
      item.classList.add("blocked");
      said.textContent = `${file.name}: ${error.message}`;
      announce(said.textContent);
    }
    item.scrollIntoView({ block: "nearest" });
  }

  // ---- the page
  const THEMES = { "": "system setting", light: "light", dark: "dark" };
  function showTheme(step) {
    const root = document.documentElement, names = Object.keys(THEMES), button = $("#theme");
    let theme = root.dataset.theme || "";
    if (step) {
      theme = names[(names.indexOf(theme) + 1) % names.length];
      if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
      try { if (theme) localStorage.setItem("theme", theme); else localStorage.removeItem("theme"); } catch { /* this page only */ }
    }
    button.setAttribute("aria-label", `Colours: ${THEMES[theme]}`);
    button.title = `Colours: ${THEMES[theme]}`;
    button.textContent = { "": "◐", light: "○", dark: "●" }[theme];
  }

  async function start() {
    const needsKey = document.body.dataset.needsKey === "yes";
    if (needsKey && !key) { $("#key-form").hidden = false; $("#key").focus(); return; }
    try {
      const configs = await (await request("/v1/rails/configs")).json();
      for (const { id } of configs) add($("#config"), "option", "", id).value = id;
    } catch (error) {
      if (error.status === 401) { key = ""; $("#key-form").hidden = false; $("#key").focus(); }
      notice(error.message);
      return;
    }
    notice("");
    $("#key-form").hidden = true;
    $("#chat").hidden = false;
    $("#message").focus();
  }

  $("#theme").addEventListener("click", () => showTheme(true));
  $("#key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key = $("#key").value.trim();
    try { sessionStorage.setItem("key", key); } catch { /* for this page only */ }
    start();
  });
  $("#send").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = $("#message"), text = field.value.trim(), button = $("#submit");
    if (!text || button.disabled) return;
    field.value = "";
    button.disabled = true;
    await send(text);
    button.disabled = false;
    field.focus();
  });
  $("#message").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("#send").requestSubmit(); }
  });
  $("#config").addEventListener("change", () => $("#clear").click());
  $("#clear").addEventListener("click", () => { messages.length = 0; $("#turns").replaceChildren(); notice(""); $("#message").focus(); });
  $("#file").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (file) await runFile(file);
    event.target.value = "";
  });
  showTheme(false);
  start();
})();
