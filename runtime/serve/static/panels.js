// Everything that is text: built from what has come, changed only where it differs.

const SPEAK_MS = 6000;          // a screen reader is told the estimates no more often than this
const $ = (id) => document.getElementById(id);
let spoken = 0;

function make(tag, content, attributes = {}) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (Array.isArray(content)) node.append(...content); else if (content !== null) node.textContent = content;
  return node;
}

const filled = new WeakMap();

/** Replace what is in `node` where it differs from what was put there last. */
function fill(node, children) {
  const made = make(node.tagName, children), text = made.innerHTML;
  if (filled.get(node) === text) return;
  filled.set(node, text);
  node.replaceChildren(...made.childNodes);
}

function say(node, text, attribute) {
  if (attribute) { if (node.getAttribute(attribute) !== text) node.setAttribute(attribute, text); } else if (node.textContent !== text) node.textContent = text;
}

function facts(node, pairs) {
  fill(node, pairs.filter(Boolean).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

function showConnection(at) {
  const old = isOld(at);
  let mode = connection.state, text = { opening: "connecting", live: "live", lost: "disconnected" }[mode];
  if (mode === "live" && state.newest === null) { mode = "opening"; text = "connected, no estimate yet"; }
  if (mode === "live" && old) { mode = "old"; text = "no new estimates"; }
  if (mode === "live" && paused) { mode = "paused"; text = "paused"; }
  say($("connection"), mode, "data-state");
  say($("connection"), text);
  const title = mode === "live" ? "sage-edge" : `${text} \u00b7 sage-edge`;
  if (document.title !== title) document.title = title;
  document.querySelector("main").classList.toggle("stale", old || connection.state === "lost");
}

function showBanners(at) {
  const { hello, latest, status } = state, live = latest[0] && latest[0].live, banners = [];
  if (connection.state === "lost") banners.push(["bad", "Disconnected: the numbers below are from before. This page tries again by itself."]);
  else if (isOld(at)) banners.push(["bad", "These numbers are old: the server answers, but nothing new comes from the model."]);
  for (const [name, source] of Object.entries({ Camera: status && status.camera, Microphone: status && status.microphone })) {
    if (source && source.state === "gone") banners.push(["bad", `${name} gone: ${source.uri} is tried again.`]);
    else if (source && source.state === "stalled") banners.push(["", `${name} stalled: ${source.uri} is open, but nothing new comes.`]);
  }
  if (live && live.why) banners.push(["", `Degraded on purpose (${live.why}): ${frames(live.face_every)} is read, an estimate every ${fixed(state.hopMs / 1000, 1)} s.`]);
  if (hello && hello.trained_on && hello.trained_on.synthetic)
    banners.push(["", `This model was trained on synthetic data (${hello.trained_on.name}): it shows that the chain works, and says nothing about real people.`]);
  const node = $("banners"), texts = banners.map(([, text]) => text);
  for (const shown of [...node.children]) if (!texts.includes(shown.textContent)) shown.remove();
  for (const [kind, text] of banners) {
    if ([...node.children].some((shown) => shown.textContent === text)) continue;
    const banner = make("p", text, { class: `banner ${kind}`.trim() });
    if (kind) node.prepend(banner); else node.append(banner);
  }
}

function frames(every) {
  return every === 1 ? "every frame" : `every ${every === 2 ? "2nd" : every === 3 ? "3rd" : `${every}th`} frame`;
}

function showEstimates(at) {
  const { latest } = state;
  if (!latest.length) return;
  const text = latest.map(sentence).join("\n");
  say($("plane-text"), text);
  if (at - spoken > SPEAK_MS || !spoken) {
    spoken = at;
    say($("spoken"), text);
  }
  fill($("tracks"), latest.map((e) => {
    const line = lineOf(e), shown = e.smooth || e;
    const number = (field) => make("td", [make("b", signed(shown[field])), ...(e.smooth ? [make("small", `raw ${signed(e[field])}`)] : [])]);
    const swatch = make("span", null, { class: `swatch ${e.face ? "" : "none"}`.trim(), "data-colour": line.colour ?? "none" });
    const who = e.face ? `face ${e.face.track}` : "no face";
    return make("tr", [make("th", [swatch, who], { scope: "row" }), number("valence"), number("arousal"),
      make("td", e.face ? fixed(e.face.score, 2) : "\u2013")]);
  }));
  paint($("tracks"));
  const live = latest[0].live;
  say($("ages"), isOld(at) ? `The newest estimate is ${ago(ageMs(at))} old.` : live ? `${fixed(live.late_ms, 0, "ms")} from the moment to its estimate; the newest frame was ${fixed(live.frame_age_ms, 0, "ms")} old.`
    : `Recorded stream, ${fixed(state.newest / 1000, 1, "s")} into it.`);
  showReliability(latest);
  fill($("legend"), [...state.series.values()].filter((line) => line.name).map((line) => make("span", [make("span", null, { class: "swatch", "data-colour": line.colour ?? "none" }), line.name]))
    .concat(make("span", latest[0].smooth ? "thin: raw, bold: smooth, dashed: no face" : "thin: every tick, bold: every hop, dashed: no face")));
  paint($("legend"));
}

/** Colours of swatches, which markup may not set. */
function paint(node) {
  for (const swatch of node.querySelectorAll("[data-colour]")) {
    const colour = swatch.dataset.colour;
    swatch.style.color = swatch.style.background = colour === "none" ? colours.none : colours.tracks[Number(colour)];
  }
}

function showReliability(latest) {
  $("visual-figure").hidden = latest[0].reliability.visual === null;
  fill($("reliability"), latest.map((e) => {
    const { visual, audio, temporal } = e.reliability, who = e.face ? `face ${e.face.track}` : "no face";
    const moment = make("p", `Weight of this moment ${fixed(temporal, 2)} (the window's mean is 1)`, { class: "quiet" });
    if (visual === null) return make("div", [make("b", who), moment, make("p", "This model weighs moments alone, not picture against sound.", { class: "quiet" })], { class: "trust" });
    const words = `visual ${fixed(visual, 2)}, audio ${fixed(audio, 2)}`;
    return make("div", [make("b", who), make("div", [make("i", null), make("i", null)], { class: "share", role: "img", "aria-label": words, "data-share": visual.toFixed(3) }),
      make("div", [make("span", `visual ${fixed(visual, 2)}`), make("span", `audio ${fixed(audio, 2)}`)], { class: "pair" }), moment], { class: "trust" });
  }));
  for (const bar of document.querySelectorAll("[data-share]")) bar.firstChild.style.width = `${100 * Number(bar.dataset.share)}%`;
}

function showStatus() {
  const { status, latest, hello } = state, newest = latest[0] || null, live = newest && newest.live;
  const drops = (newest && newest.drops) || (status && status.drops) || {};
  facts($("drops"), [["stale frames", count(drops.frames_stale)], ["sound, overruns and gaps", count(drops.audio_overruns)], ["lines that outputs gave up", count(drops.sinks)]]);
  showSource("camera", status && status.camera, live && live.camera, (c) => [
    ["asked", format(c.asked)], ["granted", format(c.granted)], ["comes at", fixed(c.rate_hz, 1, "Hz")],
    ["frames", `${count(c.frames)}, ${count(c.stale)} replaced by a newer one`], ["opened again", count(c.reopened)], live && ["newest is", `${fixed(live.frame_age_ms, 0, "ms")} old`]]);
  showSource("microphone", status && status.microphone, live && live.microphone, (m) => [
    ["asked", format(m.asked)], ["granted", format(m.granted)], ["level", newest ? `${fixed(newest.audio.rms_dbfs, 0, "dBFS")}${newest.audio.warm ? "" : ", window not full yet"}` : "\u2013"],
    ["drift", m.drift_ppm === null ? "not known yet" : `${signed(m.drift_ppm, 1)} ppm`], ["overruns", count(m.overruns)], ["callback late", `${fixed(m.lateness_p99_ms, 1, "ms")} (p99)`], ["opened again", count(m.reopened)]]);
  if (status) showTables(status);
  if (hello) showDevice(hello, status && status.process, live);
}

function showSource(id, source, said, rows) {
  const mode = (source && source.state) || said || null, chip = $(`${id}-state`);
  say(chip, mode || "not asked for");
  if (mode) say(chip, mode, "data-state"); else chip.removeAttribute("data-state");
  facts($(id), source ? [["device", source.uri], ...rows(source)] : []);
}

function showTables(status) {
  const names = Object.keys(status.stages).sort((a, b) => rank(a) - rank(b));
  fill($("stages"), names.map((name) => {
    const s = status.stages[name], cells = [s.p50, s.p95, s.p99].map((ms) => make("td", fixed(ms, ms < 10 ? 2 : 1)));
    return make("tr", [make("th", STAGE_NAMES[name] || name, { scope: "row" }), ...cells, make("td", [make("div", [make("i", null)], { class: "bar", "data-share": (s.p95 / state.hopMs).toFixed(3), "aria-hidden": "true" })], { class: "wide" })]);
  }));
  for (const bar of $("stages").querySelectorAll("[data-share]")) bar.firstChild.style.width = `${Math.min(100, 100 * Number(bar.dataset.share))}%`;
  const sinks = Object.entries(status.sinks || {});
  fill($("sinks"), sinks.length ? sinks.map(([spec, s]) => make("tr", [make("td", spec, { class: "name" }), make("td", [make("span", s.state, { class: "state", "data-state": s.state })]), make("td", count(s.written)), make("td", count(s.dropped))]))
    : [make("tr", [make("td", "this page only", { colspan: "4" })])]);
}

function rank(name) {
  const at = Object.keys(STAGE_NAMES).indexOf(name);
  return at < 0 ? 99 : at;
}

function showDevice(hello, process, live) {
  const { model } = hello;
  say($("model"), `${model.name} (${model.preset}), ${hello.precision} on ${hello.backend}`);
  say($("sharing"), hello.share_video ? "The picture is shared with whoever opens this page." : "No picture leaves the device.");
  facts($("device"), [["model", `${model.name}, ${model.preset}${model.revision ? `, ${String(model.revision).slice(0, 10)}` : ""}`], ["trained on", hello.trained_on.name],
    ["runs as", `${hello.precision} on ${hello.backend}${hello.threads ? `, ${hello.threads} threads` : ""}`],
    ["window", `${fixed(hello.window / hello.rate_hz, 1, "s")}; an estimate every ${fixed(state.hopMs / 1000, 2, "s")}`],
    hello.faces && ["faces", `${hello.faces}, found by ${hello.finder || "the cascade"}`], live && ["reads", frames(live.face_every)],
    ["smoothing", smoothing(hello.smooth)], hello.budget_ms ? ["budget", fixed(hello.budget_ms, 0, "ms")] : null,
    process && ["memory", fixed(process.rss_mb, 0, "MB")], process && ["processor", `${fixed(process.cpu_percent, 0)} % of a core`], process && ["temperature", fixed(process.temperature_c, 0, "\u00b0C")],
    ["sage-edge", hello.version || "\u2013"]]);
}

function showNotices(at) {
  const node = $("notices"), clock = state.offsets.length ? Math.max(...state.offsets) : null;
  if (node.notices !== state.notices) {                   // another connection: what is kept came again
    node.notices = state.notices;
    node.replaceChildren();
    node.shown = null;
  }
  const added = state.notices.slice(0, node.shown === null ? undefined : state.notices.indexOf(node.shown));
  for (const notice of added.reverse()) {
    const time = clock === null ? "" : new Date(Date.now() - (at + clock - notice.t_ns / 1e6)).toLocaleTimeString();
    node.prepend(make("li", [make("time", time), make("b", WHAT_NAMES[notice.what] || notice.what.replaceAll("_", " ")), ` \u2013 ${notice.detail}`]));
    node.shown = notice;
  }
  while (node.children.length > Math.max(1, state.notices.length)) node.lastChild.remove();
  if (!node.children.length) node.append(make("li", "nothing has happened", { class: "quiet" }));
  if (node.shown && node.lastChild.className) node.lastChild.remove();
}

/** What the lines say, for who cannot see them. */
function describeLines() {
  for (const field of ["valence", "arousal", "visual"]) {
    const key = { valence: "v", arousal: "a", visual: "visual" }[field];
    const texts = [...state.series.values()].map((line) => {
      const values = line.hops.map((hop) => hop[key]).filter((value) => value !== null);
      return values.length ? `${line.name ? `${line.name}: ` : ""}from ${signed(Math.min(...values))} to ${signed(Math.max(...values))}, now ${signed(values[values.length - 1])}` : "";
    });
    say($(`${field}-line`), `${field === "visual" ? "visual weight" : field} over the last minute; ${texts.filter(Boolean).join("; ") || "nothing yet"}`, "aria-label");
  }
}
