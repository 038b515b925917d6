"use strict";
// What has come from the server. Times are milliseconds: `t` on the server's clock, `at` on this page's (performance.now()).

const SPAN_MS = 60000;          // what the timelines show
const NOTICES = 100;
let state = fresh();

function fresh() {
  return {
    hello: null, status: null, notices: [],
    series: new Map(),          // key of a line -> {key, name, colour, ticks: [{t, v, a, face}], hops: [{t, v, a, visual, face}]}
    latest: [],                 // the estimates of the newest hop, largest face first
    newest: null,               // their time
    arrived: null,              // when the first of them came
    hopMs: 500,
    play: { from: 0, to: 0, at: 0 },
    offsets: [],                // server's clock minus ours, of the last pulses
  };
}

function take(message, at) {
  if (message.type === "pulse") takePulse(message.t_ns / 1e6, at);
  else if (message.type === "hello") takeHello(message);
  else if (message.type === "status") state.status = message;
  else if (message.type === "notice") {
    state.notices.unshift(message);
    state.notices.length = Math.min(state.notices.length, NOTICES);
  } else if (message.type === undefined && message.trail) takeEstimate(message, at);
}

function takePulse(t, at) {
  state.offsets.push(t - at);
  if (state.offsets.length > 10) state.offsets.shift();
}

function takeHello(hello) {
  state.hello = hello;
  state.hopMs = hello.hop * 1000 / hello.rate_hz;
}

/** One line per face where there can be several, else one line whoever is seen. */
function several() {
  const hello = state.hello || {};
  return hello.faces === "all" || Boolean(hello.smooth && hello.smooth.by_track);
}

function lineOf(estimate) {
  const face = estimate.face;
  const key = several() ? (face ? face.track : -1) : 0;
  let line = state.series.get(key);
  if (!line) {
    const known = [...state.series.values()].filter((other) => other.key >= 0);
    const free = [0, 1, 2, 3, 4, 5].find((i) => !known.some((other) => other.colour === i));
    line = { key, name: key < 0 ? "no face" : several() ? `face ${key}` : "", colour: key < 0 ? null : free ?? key % 6, ticks: [], hops: [] };
    state.series.set(key, line);
  }
  return line;
}

function takeEstimate(estimate, at) {
  const t = estimate.t_ns / 1e6;
  if (state.newest !== null && t < state.newest - 1) forget();       // the clock of the stream began anew
  if (state.newest === null || t > state.newest) {
    state.play = { from: state.newest === null ? t : Math.max(playhead(at), t - SPAN_MS), to: t, at };
    state.latest = [];
    state.newest = t;
    state.arrived = at;
  }
  state.latest.push(estimate);
  const hop = estimate.live ? estimate.live.hop : state.hello && state.hello.hop;
  if (hop && state.hello) state.hopMs = hop * 1000 / state.hello.rate_hz;
  const line = lineOf(estimate), face = estimate.face !== null, smooth = estimate.smooth || estimate;
  for (const [tick, v, a] of estimate.trail) line.ticks.push({ t: tick / 1e6, v, a, face });
  line.hops.push({ t, v: smooth.valence, a: smooth.arousal, visual: estimate.reliability.visual, face });
  prune();
}

function forget() {
  state.series.clear();
  state.latest = [];
  state.newest = null;
}

function prune() {
  const oldest = state.newest - SPAN_MS - 5000;
  for (const [key, line] of state.series) {
    for (const points of [line.ticks, line.hops]) {
      let gone = 0;
      while (gone < points.length && points[gone].t < oldest) gone++;
      if (gone) points.splice(0, gone);
    }
    if (!line.hops.length) state.series.delete(key);
  }
}

/** How far the drawing has come, on the server's clock: a hop is played while the next one is on its way. */
function playhead(at) {
  const { from, to, at: began } = state.play;
  if (calm.matches || to - from > 3 * state.hopMs) return to;
  return Math.min(to, from + (to - from) * Math.max(0, at - began) / state.hopMs);
}

/** Age of the newest estimate. A live run's is told by the server's clock, a recording's by when it came. */
function ageMs(at) {
  if (state.newest === null) return null;
  const live = state.latest[0] && state.latest[0].live;
  return live && state.offsets.length ? at + Math.max(...state.offsets) - state.newest : at - state.arrived;
}

function isOld(at) {
  const age = ageMs(at);
  return age !== null && age > 3 * state.hopMs + 1000;
}
