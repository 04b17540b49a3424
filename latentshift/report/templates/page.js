"use strict";
(() => {
  const began = performance.now();
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const root = document.documentElement;
  const samples = data.samples;
  const byIndex = new Map(samples.map((s) => [s.i, s]));
  const points = data.points || null;
  const BATCH = points ? 20 : innerWidth < 600 ? 24 : 60; // 60 fills 2 to 6 columns
  const choice = new Map();
  let order = [], drawn = 0, open = null;

  // ---- texts and numbers
  const text = (v, sign) => v === null || v === undefined ? "–"
    : ((sign && v > 0 ? "+" : "") + (Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(+v.toPrecision(3)))).replace("-", "−");
  const make = (tag, cls, content) => {
    const e = document.createElement(tag);
    if (cls) e.className = cls;
    if (content !== undefined) e.textContent = content;
    return e;
  };
  const say = (words) => { $("live").textContent = words; };
  const title = (s) => s.name + (s.label === null ? "" : " · class " + s.label);
  const src = (code) => "data:" + data.mime + ";base64," + code;

  // ---- what was chosen is kept by the browser for this very run, where it lets us
  const key = "latentshift:" + data.model_sha256 + ":" + JSON.stringify(data.recipe) + ":" + data.total;
  try {
    for (const [i, c] of Object.entries(JSON.parse(localStorage.getItem(key) || "{}"))) if (byIndex.has(+i)) choice.set(+i, c);
  } catch (e) { /* no storage: choices last as long as the page */ }
  const remember = () => { try { localStorage.setItem(key, JSON.stringify(Object.fromEntries(choice))); } catch (e) { /* as above */ } };

  // ---- cards
  const shot = (code, what, s, same) => {
    const box = make("span");
    if (code) {
      const img = make("img");
      img.alt = s.name + " " + what + ", score " + text(what === "before" ? s.before : s.after) + (same ? ", the same picture" : "");
      img.decoding = "async"; img.loading = "lazy"; img.src = src(code);
      box.append(img);
    } else box.append(make("span", "gap", "no picture " + what));
    box.append(make("span", "tag", what + (same ? " (same)" : "")));
    return box;
  };
  const card = (s) => {
    const li = make("li", "card");
    li.id = "c" + s.i; li.tabIndex = -1; li.dataset.i = s.i;
    const who = make("div", "who");
    const g = s.gain;
    who.append(make("span", "", title(s)), make("span", g > 0 ? "gain-up" : g < 0 ? "gain-down" : "gain-none", text(g, true)));
    li.append(who);
    if (!points) {
      const b = make("button", "shots");
      b.type = "button"; b.tabIndex = -1; b.setAttribute("aria-label", "Open " + title(s) + " large");
      b.append(shot(s.ib, "before", s, false), shot(s.same ? s.ib : s.ia, "after", s, s.same));
      b.addEventListener("click", () => show(s));
      li.append(b);
    }
    li.append(make("p", "was", text(s.before) + " → " + text(s.after) + (s.j1 === null ? "" : " · judge " + text(s.j0) + " → " + text(s.j1))));
    const pick = make("div", "pick");
    for (const [word, name] of [["keep", "Keep"], ["drop", "Reject"]]) {
      const b = make("button", "", name);
      b.type = "button"; b.dataset.pick = word; b.tabIndex = -1; b.setAttribute("aria-label", name + " " + title(s));
      b.addEventListener("click", () => decide(s, choice.get(s.i) === word ? null : word));
      pick.append(b);
    }
    li.append(pick);
    mark(li, s);
    return li;
  };
  const mark = (li, s) => {
    const c = choice.get(s.i);
    if (c) li.dataset.choice = c; else delete li.dataset.choice;
    li.setAttribute("aria-label", title(s) + ", gain " + text(s.gain, true) + (c === "keep" ? ", kept" : c === "drop" ? ", rejected" : ""));
    for (const b of li.querySelectorAll("[data-pick]")) b.setAttribute("aria-pressed", String(b.dataset.pick === c));
  };
  const value = {
    "gain": (s) => [s.gain, -1], "gain-": (s) => [s.gain, 1], "after": (s) => [s.after, -1], "before": (s) => [s.before, 1],
    "judge": (s) => [s.j1 === null || s.j0 === null ? null : s.j1 - s.j0, -1], "moved": (s) => [s.moved, -1], "seed": (s) => [s.seed, 1],
  };
  const passes = { all: () => true, rose: (s) => s.gain > 0, open: (s) => !choice.has(s.i),
    keep: (s) => choice.get(s.i) === "keep", drop: (s) => choice.get(s.i) === "drop" };
  const arrange = (announce) => {
    const by = $("sort").value, of = value[by];
    order = samples.filter(passes[$("filter").value]);
    order.sort((a, b) => {
      const [x, way] = of(a), [y] = of(b);
      if (x === null || y === null) return (x === null) - (y === null) || a.i - b.i;
      return (x - y) * way || a.i - b.i;
    });
    $("cards").replaceChildren();
    drawn = 0;
    grow();
    $("none").hidden = order.length > 0;
    if (announce) say(order.length + " samples, sorted by " + $("sort").selectedOptions[0].textContent);
  };
  const grow = () => {
    const part = document.createDocumentFragment(), first = drawn;
    for (; drawn < Math.min(order.length, first + BATCH); drawn++) part.append(card(order[drawn]));
    $("cards").append(part);
    const rest = order.length - drawn;
    $("more").hidden = rest === 0;
    $("more").textContent = rest <= BATCH ? "Show the other " + rest : "Show " + BATCH + " more of " + rest;
    if (first === 0 && $("cards").firstChild) $("cards").firstChild.tabIndex = 0;
    return $("cards").children[first];
  };
  const place = (li) => {
    const now = $("cards").querySelector('[tabindex="0"].card');
    if (now) now.tabIndex = -1;
    li.tabIndex = 0;
    li.focus();
  };

  // ---- keep and reject
  const ranges = (numbers) => {
    const n = [...new Set(numbers)].sort((a, b) => a - b), out = [];
    for (let k = 0; k < n.length; k++) {
      const from = n[k];
      while (n[k + 1] === n[k] + 1) k++;
      out.push(from === n[k] ? String(from) : from + "-" + n[k]);
    }
    return out.join(",");
  };
  const chosen = (word) => samples.filter((s) => choice.get(s.i) === word);
  const tally = () => {
    const keep = chosen("keep"), drop = chosen("drop");
    $("count-keep").textContent = keep.length;
    $("count-drop").textContent = drop.length;
    $("seeds").value = ranges(keep.map((s) => s.seed));
    $("export-seeds").disabled = keep.length === 0;
    $("clear").disabled = keep.length + drop.length === 0;
  };
  const decide = (s, word) => {
    if (word) choice.set(s.i, word); else choice.delete(s.i);
    const li = $("c" + s.i);
    if (li) mark(li, s);
    if (open === s) facts(s);
    tally();
    remember();
    say(title(s) + (word === "keep" ? " kept" : word === "drop" ? " rejected" : " undecided") + ". "
      + chosen("keep").length + " kept, " + chosen("drop").length + " rejected.");
  };
  const save = (name, content, kind) => {
    const a = make("a"), url = URL.createObjectURL(new Blob([content], { type: kind }));
    a.href = url; a.download = name;
    document.body.append(a); a.click(); a.remove();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
    say("saved " + name);
  };
  $("export-seeds").addEventListener("click", () => save("seeds.txt", ranges(chosen("keep").map((s) => s.seed)) + "\n", "text/plain"));
  $("export-json").addEventListener("click", () => {
    const row = (s) => ({ name: s.name, seed: s.seed, label: s.label, score_before: s.before, score_after: s.after, gain: s.gain });
    save("choice.json", JSON.stringify({ schema: 1, model: data.model, model_sha256: data.model_sha256, recipe: data.recipe,
      latentshift: data.latentshift, seeds: ranges(chosen("keep").map((s) => s.seed)),
      kept: chosen("keep").map(row), rejected: chosen("drop").map(row) }, null, 2) + "\n", "application/json");
  });
  $("clear").addEventListener("click", () => { choice.clear(); remember(); tally(); arrange(); say("all choices taken back"); });
  $("seeds").addEventListener("focus", (e) => e.target.select());

  // ---- the large view
  const facts = (s) => {
    $("big-h").textContent = title(s);
    const rows = [["Score", text(s.before) + " → " + text(s.after)], ["Gain", text(s.gain, true)], ["Distance moved", text(s.moved)],
      ["Passes of G and D", text(s.passes)], ["Ended", s.why]];
    if (s.j1 !== null) rows.splice(2, 0, ["Judge", text(s.j0) + " → " + text(s.j1)]);
    $("big-facts").replaceChildren(...rows.map(([a, b]) => { const d = make("div"); d.append(make("dt", "", a), make("dd", "", b)); return d; }));
    $("big-keep").setAttribute("aria-pressed", String(choice.get(s.i) === "keep"));
    $("big-drop").setAttribute("aria-pressed", String(choice.get(s.i) === "drop"));
  };
  const show = (s) => {
    open = s;
    facts(s);
    const after = s.same ? s.ib : s.ia;
    $("stage").hidden = !(s.ib || after);
    for (const [id, code, what] of [["big-before", s.ib || after, "before"], ["big-after", after || s.ib, "after"]]) {
      if (code) { $(id).src = src(code); $(id).alt = s.name + " " + what + " refinement"; }
    }
    if (!$("big").open) { $("big").showModal(); $("big-wipe").focus(); }
    else say(title(s) + ", gain " + text(s.gain, true));
  };
  const turn = (by) => {
    const next = order[order.indexOf(open) + by];
    if (!next) return;
    while (drawn <= order.indexOf(next)) grow();
    show(next);
  };
  $("big-close").addEventListener("click", () => $("big").close());
  $("big").addEventListener("close", () => { const li = open && $("c" + open.i); open = null; if (li) place(li); });
  $("big-next").addEventListener("click", () => turn(1));
  $("big-prev").addEventListener("click", () => turn(-1));
  $("big-keep").addEventListener("click", () => decide(open, choice.get(open.i) === "keep" ? null : "keep"));
  $("big-drop").addEventListener("click", () => decide(open, choice.get(open.i) === "drop" ? null : "drop"));
  $("big-wipe").addEventListener("input", (e) => $("stage").style.setProperty("--wipe", e.target.value + "%"));

  // ---- keys
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(TEXTAREA|SELECT)$/.test(e.target.tagName) || e.target.id === "seeds") return;
    const li = e.target.closest ? e.target.closest(".card") : null;
    const s = open || (li && byIndex.get(+li.dataset.i));
    const letter = e.key.toLowerCase();
    const word = { k: "keep", r: "drop", u: null }[letter];
    if (s && word !== undefined) { e.preventDefault(); decide(s, word); return; }
    if (open) { if (letter === "n") turn(1); else if (letter === "p") turn(-1); return; }
    if (!li || e.target !== li) return;
    if (e.key === "Enter" || e.key === " ") { e.preventDefault(); if (!points) show(s); return; }
    const all = [...$("cards").children], at = all.indexOf(li);
    const wide = all.findIndex((c) => c.offsetTop > all[0].offsetTop);
    const columns = wide < 0 ? all.length : wide;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: all.length - 1 }[e.key];
    if (to === undefined || to < 0) return;
    e.preventDefault();
    if (to >= all.length) { if (drawn < order.length) { grow(); place($("cards").children[Math.min(to, drawn - 1)]); } return; }
    place(all[to]);
  });
  $("cards").addEventListener("focusin", (e) => {
    const li = e.target.closest(".card"), now = $("cards").querySelector('.card[tabindex="0"]');
    if (li && now && li !== now) { now.tabIndex = -1; li.tabIndex = 0; }
  });

  // ---- controls
  $("sort").addEventListener("change", () => arrange(true));
  $("filter").addEventListener("change", () => arrange(true));
  $("more").addEventListener("click", () => { const li = grow(); if (li) place(li); });
  $("wipe").addEventListener("input", (e) => $("cards").style.setProperty("--wipe", e.target.value + "%"));
  for (const b of $("view").querySelectorAll("button")) b.addEventListener("click", () => {
    const wiped = b.dataset.view === "wipe";
    for (const c of $("view").children) c.setAttribute("aria-pressed", String(c === b));
    $("samples").classList.toggle("wiped", wiped);
    $("wipe-label").hidden = !wiped;
    say(wiped ? "one slider moves all pictures from before to after" : "before and after side by side");
  });
  $("copy").addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents($("command"));
    const selection = getSelection();
    selection.removeAllRanges(); selection.addRange(range);
    try { await navigator.clipboard.writeText($("command").textContent); say("the command was copied"); }
    catch (e) { document.execCommand("copy"); say("the command is selected"); }
  });
  document.addEventListener("click", (e) => {
    const i = e.target.dataset && e.target.classList.contains("dot") ? e.target.dataset.i : undefined;
    if (i !== undefined && !points) show(byIndex.get(+i));
  });
  const theme = (dark) => {
    root.dataset.theme = dark ? "dark" : "light";
    $("theme").setAttribute("aria-pressed", String(dark));
    plane();
  };
  $("theme").addEventListener("click", () => theme(root.dataset.theme !== "dark"));

  // ---- points of the plane
  function plane() {
    if (!points) return;
    const every = points.after.concat(points.before || []);
    const xs = every.map((p) => p[0]), ys = every.map((p) => p[1]);
    const low = (v) => v.reduce((a, b) => Math.min(a, b), Infinity), high = (v) => v.reduce((a, b) => Math.max(a, b), -Infinity);
    const span = Math.max(high(xs) - low(xs), high(ys) - low(ys), 1e-9) * 1.06;
    const cx = (high(xs) + low(xs)) / 2, cy = (high(ys) + low(ys)) / 2;
    const t = $("travel").value / 100, style = getComputedStyle(root), few = points.after.length <= 300;
    for (const [id, colour, at] of [["plane-before", "--before", 0], ["plane-after", "--after", t]]) {
      const canvas = $(id), size = canvas.clientWidth || 400, ratio = Math.min(devicePixelRatio || 1, 2);
      canvas.width = canvas.height = size * ratio;
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      const px = (p) => [((p[0] - cx) / span + 0.5) * size, (0.5 - (p[1] - cy) / span) * size];
      const from = points.before || points.after;
      if (id === "plane-after" && few && points.before) {
        pen.strokeStyle = style.getPropertyValue("--edge"); pen.globalAlpha = 0.5; pen.beginPath();
        points.after.forEach((p, k) => { const a = px(from[k]), b = px([from[k][0] + (p[0] - from[k][0]) * at, from[k][1] + (p[1] - from[k][1]) * at]); pen.moveTo(...a); pen.lineTo(...b); });
        pen.stroke();
      }
      pen.globalAlpha = few ? 0.85 : 0.45;
      pen.fillStyle = style.getPropertyValue(colour);
      points.after.forEach((p, k) => {
        const q = from[k], [x, y] = px([q[0] + (p[0] - q[0]) * at, q[1] + (p[1] - q[1]) * at]);
        pen.beginPath(); pen.arc(x, y, few ? 3 : 2, 0, 7); pen.fill();
      });
      pen.globalAlpha = 1; pen.fillStyle = style.getPropertyValue("--soft"); pen.font = "12px system-ui, sans-serif";
      const [left, right, bottom, top] = [cx - span / 2, cx + span / 2, cy - span / 2, cy + span / 2].map((v) => text(v));
      pen.fillText("x " + left, 2, size - 4); pen.textAlign = "right"; pen.fillText(right, size - 2, size - 4);
      pen.textAlign = "left"; pen.fillText("y " + top, 2, 12); pen.fillText(bottom, 2, size - 20);
      canvas.setAttribute("aria-label", points.after.length + " points " + (at ? "after" : "before") + " refinement, x from "
        + text(low(xs)) + " to " + text(high(xs)) + ", y from " + text(low(ys)) + " to " + text(high(ys)));
    }
  }
  if (points) {
    $("hint").lastChild.remove(); $("hint").lastChild.remove(); // no large view of a point
    $("hint").lastChild.textContent = " takes it back.";
    $("plane").hidden = false;
    $("travel").addEventListener("input", plane);
    addEventListener("resize", plane);
  }

  // ---- begin
  root.style.setProperty("--ratio", data.ratio);
  if (data.side && data.side <= 96) document.body.classList.add("crisp");
  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (e) => theme(e.matches));
  arrange(false);
  tally();
  root.dataset.ready = String(Math.round(performance.now()));
  root.dataset.took = String(Math.round(performance.now() - began));
})();
