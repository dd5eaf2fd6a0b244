"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  const list = by("list"), space = by("space"), shown = by("shown"), detail = by("detail"), count = by("count");
  const HEIGHT = 30, AHEAD = 12;
  const rows = data.rows.map((r, n) => ({ n, i: r.i, x: r.x || 0, c: r.c || [], e: r.e || "none", o: r.o, v: r.v || [],
    s: r.s || [], d: r.d || 0, f: !!r.f, u: !!r.u, p: r.p || [], t: r.t || [] }));
  let found = rows, at = -1, open = false;

  const make = (tag, kind, text) => {
    const e = document.createElement(tag);
    if (kind) e.className = kind;
    if (text !== undefined) e.textContent = text;
    return e;
  };
  const option = (select, value, text) => { const o = make("option", "", text); o.value = value; select.append(o); };
  data.categories.forEach((name, k) => option(by("category"), String(k), name));
  [...new Set(rows.map((r) => r.e))].sort().forEach((e) => option(by("expect"), e, e));
  [...new Set(rows.flatMap((r) => r.o.filter(Boolean)))].sort().forEach((o) => option(by("outcome"), o, o));
  const judges = [];  // every judge of any run, by name and question, with its number in each run
  data.runs.forEach((run, r) => run.judges.forEach(([name, question], k) => {
    let j = judges.find((x) => x.name === name && x.question === question);
    if (!j) judges.push(j = { name, question, at: {} });
    j.at[r] = k;
  }));
  judges.forEach((j, k) => option(by("judge"), String(k), `${j.name} (${j.question})`));

  const has = (row, judge, verdict) => data.runs.some((_, r) => {
    const marks = row.v[r] || {};
    const keys = judge === null ? Object.keys(marks) : judge.at[r] === undefined ? [] : [String(judge.at[r])];
    return keys.some((k) => k in marks && (verdict === "" || (verdict === "n" ? marks[k] === null : marks[k] === +verdict)));
  });
  const fits = () => {
    const category = by("category").value, expect = by("expect").value, outcome = by("outcome").value;
    const verdict = by("verdict").value, judge = by("judge").value === "" ? null : judges[+by("judge").value];
    const flips = by("flips").checked, unscored = by("unscored").checked, words = by("find").value.trim().toLowerCase();
    return (row) => (category === "" || row.c.includes(+category)) && (expect === "" || row.e === expect)
      && (outcome === "" || row.o.includes(outcome)) && (!flips || row.f) && (!unscored || row.u)
      && ((judge === null && verdict === "") || has(row, judge, verdict))
      && (words === "" || row.i.toLowerCase().includes(words)
        || row.p.some(([, text]) => text.toLowerCase().includes(words))
        || row.t.some((text) => text && text.toLowerCase().includes(words)));
  };
  const apply = () => {
    const chosen = at >= 0 ? found[at] : null;
    found = rows.filter(fits());
    if (by("order").value === "disagreement") found.sort((a, b) => b.d - a.d || a.n - b.n);
    at = chosen ? found.indexOf(chosen) : -1;
    space.style.height = `${found.length * HEIGHT}px`;
    const left = data.left ? ` · ${data.left} more stand in the run folders` : "";
    count.textContent = `${found.length} of ${rows.length} answers${left}`;
    list.scrollTop = at >= 0 ? Math.max(0, at * HEIGHT - list.clientHeight / 2) : 0;
    draw();
    show();
  };
  const draw = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - AHEAD);
    const last = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + AHEAD);
    shown.style.top = `${first * HEIGHT}px`;
    shown.replaceChildren(...found.slice(first, last).map((row, k) => line(row, first + k)));
  };
  const line = (row, k) => {
    const e = make("div", "row");
    e.setAttribute("role", "option");
    e.setAttribute("aria-selected", String(k === at));
    e.dataset.id = row.i;
    e.append(make("code", "", row.x ? `${row.i} #${row.x}` : row.i));
    row.o.forEach((word) => e.append(make("span", word ? `tag o-${word}` : "tag", word || "–")));
    e.append(make("span", "where", row.c.map((c) => data.categories[c]).join(", ") || row.e));
    const flags = [row.f && "flip", row.u && "unscored", row.d >= 0.5 && "disagree"].filter(Boolean).join(" · ");
    e.append(make("span", "flag", flags));
    e.addEventListener("click", () => choose(k));
    return e;
  };
  const choose = (k) => {
    if (!found.length) return;
    at = Math.max(0, Math.min(found.length - 1, k));
    const top = at * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    draw();
    show();
  };
  const said = (who, text) => {
    const e = make("div", open ? "said" : "said blur");
    e.append(make("b", "", who), document.createTextNode(text));
    e.addEventListener("click", () => e.classList.remove("blur"));
    return e;
  };
  const show = () => {
    const row = found[at];
    if (!row) { detail.replaceChildren(make("p", "quiet", found.length ? "Choose a row." : "No row fits these filters.")); return; }
    const parts = [make("h2", "", row.x ? `${row.i} #${row.x}` : row.i)];
    parts.push(make("p", "quiet", `expected: ${row.e} · ${row.c.map((c) => data.categories[c]).join(", ") || "no category"}`));
    row.p.forEach(([role, text]) => parts.push(said(role, text)));
    data.runs.forEach((run, r) => {
      const head = make("h3", "", `${run.name} `);
      head.append(make("span", row.o[r] ? `tag o-${row.o[r]}` : "tag", row.o[r] || "not answered"));
      parts.push(head);
      if (row.t[r] !== undefined && row.t[r] !== null) parts.push(said("answer", row.t[r] || "(empty)"));
      const table = make("table"), marks = row.v[r] || {}, scores = row.s[r] || {};
      const title = make("tr");
      ["judge", "question", "verdict", "score"].forEach((t) => title.append(make("th", "", t)));
      table.append(title);
      Object.keys(marks).forEach((k) => {
        const [name, question, struck] = run.judges[k], tr = make("tr"), verdict = { 1: "yes", 0: "no" }[marks[k]] || "unscored";
        const cell = make("td", struck ? "struck" : "", verdict);
        if (struck) cell.title = `selected by this judge: ${struck}`;
        tr.append(make("td", "", name), make("td", "", question), cell, make("td", "", k in scores ? scores[k].toFixed(3) : "–"));
        table.append(tr);
      });
      parts.push(table);
    });
    detail.replaceChildren(...parts);
    detail.scrollTop = 0;
  };
  const reset = () => {
    ["category", "expect", "judge", "verdict", "outcome", "find"].forEach((id) => { by(id).value = ""; });
    by("order").value = "run";
    by("flips").checked = by("unscored").checked = false;
    apply();
  };
  const flip = (id) => { by(id).checked = !by(id).checked; apply(); };
  by("filters").addEventListener("input", apply);
  by("reset").addEventListener("click", reset);
  list.addEventListener("scroll", draw, { passive: true });
  addEventListener("resize", draw);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.id === "find";
    if (typing) { if (event.key === "Escape" || event.key === "Enter") { event.preventDefault(); list.focus(); } return; }
    const page = Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1);
    const act = { j: () => choose(at + 1), ArrowDown: () => choose(at + 1), k: () => choose(at - 1), ArrowUp: () => choose(at - 1),
      PageDown: () => choose(at + page), PageUp: () => choose(at - page), Home: () => choose(0), End: () => choose(found.length - 1),
      f: () => flip("flips"), u: () => flip("unscored"), r: reset, "/": () => by("find").focus(),
      d: () => { by("order").value = by("order").value === "run" ? "disagreement" : "run"; apply(); },
      t: () => { open = !open; show(); } }[event.key];
    if (!act || (event.target.tagName === "SELECT" && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act();
  });
  apply();
  list.focus();
})();
