// What the drawings share: colours of the style sheet, canvases at the screen's resolution, values between two points.

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(`--${name}`).trim();
  colours = { ink: value("ink"), quiet: value("quiet"), grid: value("grid"), card: value("card"), none: value("track-none"), tracks: [0, 1, 2, 3, 4, 5].map((i) => value(`track-${i}`)) };
}

function colourOf(line) {
  return line.colour === null ? colours.none : colours.tracks[line.colour];
}

/** {pen, width, height} in CSS pixels, cleared. */
function surface(canvas) {
  const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, sans-serif";
  pen.lineJoin = pen.lineCap = "round";
  return { pen, width, height };
}

/** The first index with points[i].t > t. */
function after(points, t) {
  let low = 0, high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].t <= t) low = middle + 1; else high = middle;
  }
  return low;
}

/** {v, a} at time t between two points; null before the first. */
function between(points, t) {
  const i = after(points, t);
  if (!i) return null;
  const before = points[i - 1], next = points[i];
  if (!next || next.t - before.t > 2.5 * state.hopMs) return before;
  const share = (t - before.t) / (next.t - before.t);
  return { t, v: before.v + share * (next.v - before.v), a: before.a + share * (next.a - before.a), face: before.face };
}
