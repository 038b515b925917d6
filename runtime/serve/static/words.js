// Numbers and states as people read them, and as a screen reader says them.

const STAGE_NAMES = { capture: "capture", find: "face", crop: "crop", visual: "visual", audio: "audio", fusion: "fusion", wait: "wait", hop: "whole hop", emit: "emit" };
const WHAT_NAMES = { sink_failed: "output failed", sink_recovered: "output works again", clock_jump: "clock jumped", degraded: "degraded on purpose" };

function signed(value, digits = 2) {
  if (value === null || value === undefined) return "\u2013";
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : `${value < 0 ? "\u2212" : "+"}${text}`;
}

function fixed(value, digits = 0, unit = "") {
  if (value === null || value === undefined) return "\u2013";
  return `${value.toFixed(digits).replace("-", "\u2212")}${unit && ` ${unit}`}`;
}

function count(value) {
  return value === null || value === undefined ? "\u2013" : value.toLocaleString("en");
}

function inWords(value, low, high) {
  const size = Math.abs(value);
  if (size < 0.1) return `neither ${low} nor ${high}`;
  return `${size < 0.35 ? "slightly " : size < 0.65 ? "" : "very "}${value < 0 ? low : high}`;
}

function sentence(estimate) {
  const who = !estimate.face ? "No face" : several() ? `Face ${estimate.face.track}` : "Face", at = estimate.smooth || estimate;
  const basis = estimate.face ? "" : estimate.audio.rms_dbfs > -100 ? ", from sound alone" : ", and no sound";
  return `${who}${basis}: valence ${signed(at.valence)}, ${inWords(at.valence, "unpleasant", "pleasant")}; arousal ${signed(at.arousal)}, ${inWords(at.arousal, "calm", "activated")}.`;
}

/** "640 × 480, 30 Hz, MJPG" of what was asked of a device or granted by it. */
function format(what) {
  if (!what) return "\u2013";
  const { width, height, rate_hz: rate, ...rest } = what;
  const parts = [width && height ? `${width} \u00d7 ${height}` : null, rate ? `${count(rate)} Hz` : null];
  for (const [key, value] of Object.entries(rest)) if (value !== null) parts.push(key === "channels" ? `${value} ch` : String(value));
  return parts.filter(Boolean).join(", ") || "nothing in particular";
}

function smoothing(smooth) {
  if (!smooth) return "none";
  return smooth.kind === "one-euro" ? `one-euro, cut-off ${smooth.min_cutoff_hz} Hz, beta ${smooth.beta}` : `${smooth.kind}, ${smooth.width_s} s`;
}

function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
