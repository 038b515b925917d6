// What happens when: drawings while something moves, texts a few times a second, nothing while the page is hidden.

const PLANE_MS = 40, LINES_MS = 120, TEXT_MS = 250;
const drawn = { plane: 0, lines: 0, text: 0, head: -1 };
let changed = true, paused = false;

function draw(at) {
  requestAnimationFrame(draw);
  if (paused || state.newest === null) return;
  const head = playhead(at), moved = head !== drawn.head || changed;
  if (moved && at - drawn.plane >= PLANE_MS) {
    drawn.plane = at;
    drawPlane($("plane"), head);
    if (at - drawn.lines >= LINES_MS || calm.matches) {
      drawn.lines = at;
      drawTimeline($("valence-line"), head, "valence", -1);
      drawTimeline($("arousal-line"), head, "arousal", -1);
      if (!$("visual-figure").hidden) drawTimeline($("visual-line"), head, "visual", 0);
      drawn.head = head;
      changed = false;
    }
  }
}

function update() {
  const at = performance.now();
  watchConnection(at);
  showConnection(at);
  if (paused) return;
  showBanners(at);
  showEstimates(at);
  showStatus();
  showNotices(at);
  describeLines();
}

function pause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  changed = true;
  update();
}

function restyle() {
  readColours();
  changed = true;
  for (const node of [$("tracks"), $("legend")]) paint(node);
}

$("pause").addEventListener("click", pause);
dark.addEventListener("change", restyle);
window.addEventListener("resize", () => { changed = true; });
restyle();
connect();
update();
setInterval(update, TEXT_MS);
requestAnimationFrame(draw);
