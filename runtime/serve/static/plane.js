// The valence-arousal plane: where each face is now, and a trail of the last seconds that fades.

const TRAIL_MS = 8000;

function drawPlane(canvas, now) {
  const { pen, width, height } = surface(canvas);
  const side = Math.min(width, height), margin = 26, x = (v) => margin + (v + 1) / 2 * (side - 2 * margin), y = (a) => margin + (1 - a) / 2 * (side - 2 * margin);
  drawAxes(pen, x, y);
  const labels = [];
  for (const line of state.series.values()) {
    const colour = colourOf(line);
    drawTrail(pen, line.ticks, now, x, y, colour, 1, 0.45);
    drawTrail(pen, line.hops, now, x, y, colour, 3, 0.9);
    const raw = between(line.ticks, now), head = between(line.hops, now);
    const gone = now - line.hops[line.hops.length - 1].t > 2 * state.hopMs;
    if (!raw || !head || gone) continue;
    pen.fillStyle = colour;
    disc(pen, x(raw.v), y(raw.a), 3);
    pen.fill();
    pen.lineWidth = head.face ? 2 : 3;
    pen.strokeStyle = head.face ? colours.card : colour;
    pen.fillStyle = head.face ? colour : colours.card;
    disc(pen, x(head.v), y(head.a), 9);
    pen.fill();
    pen.stroke();
    if (line.name && line.key >= 0) label(pen, String(line.key), x(head.v), y(head.a));
    else if (!head.face) labels.push(["no face", Math.min(Math.max(x(head.v), 40), side - 40), y(head.a) - 16, "center"]);
  }
  labels.push(["activated +1", x(0), y(1) - 9, "center"], ["calm \u22121", x(0), y(-1) + 18, "center"]);
  labels.push(["unpleasant \u22121", x(-1) + 3, y(0) - 6, "left"], ["pleasant +1", x(1) - 3, y(0) - 6, "right"]);
  pen.fillStyle = colours.quiet;
  pen.strokeStyle = colours.card;
  pen.lineWidth = 3;
  for (const [text, px, py, align] of labels) {
    pen.textAlign = align;
    pen.strokeText(text, px, py);
    pen.fillText(text, px, py);
  }
}

function drawAxes(pen, x, y) {
  pen.lineWidth = 1;
  pen.strokeStyle = colours.grid;
  for (const at of [-1, -0.5, 0.5, 1]) {
    stroke(pen, [[x(at), y(-1)], [x(at), y(1)]]);
    stroke(pen, [[x(-1), y(at)], [x(1), y(at)]]);
  }
  disc(pen, x(0), y(0), x(1) - x(0));
  pen.stroke();
  pen.strokeStyle = colours.quiet;
  stroke(pen, [[x(0), y(-1)], [x(0), y(1)]]);
  stroke(pen, [[x(-1), y(0)], [x(1), y(0)]]);
}

function drawTrail(pen, points, now, x, y, colour, width, alpha) {
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.lineCap = "butt";           // round ones overlap, and would show as dots
  const end = after(points, now), head = between(points, now);
  const shown = points.slice(after(points, now - TRAIL_MS), end);
  if (head && end < points.length) shown.push(head);
  for (let i = 1; i < shown.length; i++) {
    if (shown[i].t - shown[i - 1].t > 2.5 * state.hopMs) continue;
    pen.globalAlpha = alpha * Math.max(0, 1 - (now - shown[i].t) / TRAIL_MS);
    stroke(pen, [[x(shown[i - 1].v), y(shown[i - 1].a)], [x(shown[i].v), y(shown[i].a)]]);
  }
  pen.globalAlpha = 1;
  pen.lineCap = "round";
}

function stroke(pen, points) {
  pen.beginPath();
  points.forEach(([px, py], i) => (i ? pen.lineTo(px, py) : pen.moveTo(px, py)));
  pen.stroke();
}

function disc(pen, px, py, radius) {
  pen.beginPath();
  pen.arc(px, py, radius, 0, 2 * Math.PI);
}

function write(pen, text, px, py, align) {
  pen.textAlign = align;
  pen.fillText(text, px, py);
}

function label(pen, text, px, py) {
  pen.fillStyle = colours.card;
  pen.font = "bold 11px system-ui, sans-serif";
  write(pen, text, px, py + 4, "center");
  pen.font = "12px system-ui, sans-serif";
}
