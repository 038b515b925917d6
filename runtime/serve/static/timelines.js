// A value over the last minute: raw thin, smooth bold, dashed where no face was seen; a gap in time is a gap in the line.

function drawTimeline(canvas, now, field, low) {
  const { pen, width, height } = surface(canvas);
  const left = 30, right = width - 8, top = 8, bottom = height - 20;
  const x = (t) => right - (now - t) / SPAN_MS * (right - left), y = (value) => bottom - (value - low) / (1 - low) * (bottom - top);
  drawScale(pen, x, y, now, low, left, right, bottom);
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, right - left + 8, height);
  pen.clip();
  for (const line of state.series.values()) {
    pen.strokeStyle = colourOf(line);
    if (field !== "visual") {
      pen.globalAlpha = 0.55;
      pen.lineWidth = 1;
      drawPoints(pen, line.ticks, now, field, x, y, false);
    }
    pen.globalAlpha = 1;
    pen.lineWidth = 2.25;
    drawPoints(pen, line.hops, now, field, x, y, true);
  }
  pen.restore();
}

function drawScale(pen, x, y, now, low, left, right, bottom) {
  pen.lineWidth = 1;
  pen.fillStyle = colours.quiet;
  for (const value of low < 0 ? [-1, 0, 1] : [0, 0.5, 1]) {
    pen.strokeStyle = value === 0 && low < 0 ? colours.quiet : colours.grid;
    stroke(pen, [[left, y(value)], [right, y(value)]]);
    write(pen, value > 0 && low < 0 ? `+${value}` : String(value).replace("-", "\u2212"), left - 6, y(value) + 4, "right");
  }
  for (let ago = 0; ago <= 60; ago += 15) {
    const at = x(now - ago * 1000);
    pen.strokeStyle = colours.grid;
    stroke(pen, [[at, y(1)], [at, bottom + 4]]);
    write(pen, ago ? `\u2212${ago} s` : "now", at, bottom + 16, ago === 60 ? "left" : ago ? "center" : "right");
  }
}

function drawPoints(pen, points, now, field, x, y, dashed) {
  const end = after(points, now);
  const head = field === "visual" ? null : between(points, now);
  let last = null, style = null;
  pen.beginPath();
  const step = (point) => {
    const value = point[field === "valence" ? "v" : field === "arousal" ? "a" : "visual"];
    if (value === null || value === undefined) { last = null; return; }
    if (dashed && style !== point.face) {
      pen.stroke();
      pen.setLineDash(point.face ? [] : [3, 5]);
      pen.beginPath();
      if (last) pen.moveTo(x(last.t), y(last.value));
      style = point.face;
    }
    if (!last || point.t - last.t > 2.5 * state.hopMs) pen.moveTo(x(point.t), y(value)); else pen.lineTo(x(point.t), y(value));
    last = { t: point.t, value };
  };
  for (let i = Math.max(0, after(points, now - SPAN_MS) - 1); i < end; i++) step(points[i]);
  if (head && end < points.length) step(head);
  pen.stroke();
  pen.setLineDash([]);
}
