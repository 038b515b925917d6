"""The page in a real browser, fed by a real server: what it shows is what was sent, and it says so when that is old, gone or degraded."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import BINARY, MISSING, Chromium, Tab
from page_stream import HOP_NS, NOTICES, Stream, hello, notices, past, running, soon, status

from sage_edge.runtime.estimate import Estimate
from sage_edge.runtime.notice import Notice
from sage_edge.runtime.serve.page import Page
from sage_edge.runtime.sources import FrameEvent
from sage_edge.runtime.ticks import NS_PER_S

pytest.importorskip("websockets", reason="pip install 'sage-edge[serve]'")
pytestmark = pytest.mark.skipif(BINARY is None, reason=MISSING)
slow = pytest.mark.slow

READY = "state.newest !== null && document.getElementById('tracks').children.length > 0"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Chromium]:
    yield chromium
    chromium.close_tabs()


@pytest.fixture
def pages() -> Iterator[Callable[..., Page]]:
    """Makes started pages on free ports, and closes them."""
    made: list[Page] = []

    def start(first: dict[str, Any] | None = None, **options: Any) -> Page:
        made.append(Page("127.0.0.1", options.pop("port", 0), **options))
        made[-1].start(first or hello())
        return made[-1]

    yield start
    for page in made:
        page.close()


def port_of(page: Page) -> int:
    return int(page.url.rstrip("/").rpartition(":")[2])


def text_of(tab: Tab, selector: str) -> str:
    return str(tab.js(f"document.querySelector({selector!r}).innerText"))


def shows(tab: Tab, selector: str, text: str) -> None:
    """Wait until `text` is seen there: the page writes a few times a second."""
    tab.until(f"document.querySelector({json.dumps(selector)}).innerText.includes({json.dumps(text)})")


def minus(value: float, digits: int = 2) -> str:
    """As the page writes it."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text


def check(tab: Tab, page: Page) -> None:
    """Nothing went wrong in the page, and it talked to its own server alone."""
    assert tab.errors == []
    assert {address.partition("//")[2].partition("/")[0] for address in tab.requests if not address.startswith("data:")} == {page.url.split("/")[2]}
    assert tab.js("document.documentElement.scrollWidth") <= tab.js("innerWidth"), "nothing to scroll sideways"


SCREENS = {
    "dark": {"dark": True},
    "phone": {"width": 390, "height": 844, "phone": True},
    "small-phone-dark": {"width": 320, "height": 568, "phone": True, "dark": True},
    "tablet": {"width": 820, "height": 1180},
}


@pytest.mark.parametrize("screen", [pytest.param({}, id="light"), *(pytest.param(screen, id=name, marks=slow) for name, screen in SCREENS.items())])
def test_what_was_sent_is_shown(browser: Chromium, pages: Callable[..., Page], tmp_path: Path, screen: dict[str, Any]) -> None:
    import cv2

    page, stream = pages(), Stream()
    now_ns = past(page, stream, 20, soon())
    notices(page, now_ns)
    tab = browser.open(page.url, **screen)
    (last,) = stream.hop(now_ns + HOP_NS)
    page.status(status(now_ns))
    page.write(last)
    assert last.smooth is not None
    tab.until(f"{READY} && state.status !== null && state.newest === {last.t_ns} / 1e6")
    shown = f"{minus(last.smooth.valence)} raw {minus(last.valence)}"
    tab.until(f"document.querySelector('#tracks td').innerText.replace(/\\s+/g, ' ') === {shown!r}")
    shows(tab, "#plane-text", f"valence {minus(last.smooth.valence)}")
    shows(tab, "#banners", "was trained on synthetic data (synthetic, 60 people)")
    assert text_of(tab, "#connection") == "live"
    rows = {row.split("\t")[0]: row.split("\t")[1:4] for row in text_of(tab, "#stages").splitlines()}
    assert rows["audio"] == ["11.7", "12.6", "15.2"]
    assert rows["face"] == ["0.20", "2.40", "3.10"]
    for selector, parts in {
        "#camera": ["fourcc=MJPG", "640 × 480, 30 Hz, MJPG", "29.9 Hz", "36,051, 12 replaced"],
        "#microphone": ["USB microphone", "48,000 Hz", "−12.5 ppm", "−31 dBFS", "1.3 ms"],
        "#drops": ["stale frames\n3", "overruns and gaps\n1", "gave up\n0"],
        "#sinks": ["jsonl:-", "2,400"],
        "#device": ["sage, tiny", "int8 on onnxruntime, 2 threads", "one-euro, cut-off 0.5 Hz, beta 1", "164 MB", "61 °C"],
        "#reliability": [f"visual {last.reliability.visual:.2f}", "of this moment 0.93"],
        "#notices": [detail for _, detail in NOTICES],
    }.items():
        for part in parts:
            shows(tab, selector, part)
    check(tab, page)
    tab.screenshot(tmp_path / "seen.png", whole=True)
    seen = cv2.imread(str(tmp_path / "seen.png"))
    assert seen is not None
    corner = seen[5, 5].mean()
    assert corner < 50 if screen.get("dark") else corner > 200, "the scheme of the screen"
    track = (0xFF, 0xB3, 0x6D) if screen.get("dark") else (0xC3, 0x66, 0x0B)
    assert (np.abs(seen.astype(int) - track).max(axis=2) < 12).sum() > 150, "the face's colour on the plane"


@slow
def test_several_faces_are_told_apart(browser: Chromium, pages: Callable[..., Page], tmp_path: Path) -> None:
    import cv2

    page, stream = pages(), Stream(faces=3)
    past(page, stream, 10, soon())
    tab = browser.open(page.url, still=True)
    tab.until(f"{READY} && document.getElementById('tracks').children.length === 3")
    assert [row.split("\t")[0] for row in text_of(tab, "#tracks").splitlines() if row.startswith("face")] == ["face 1", "face 2", "face 3"]
    shows(tab, "#plane-text", "Face 1: valence")
    shows(tab, "#plane-text", "Face 3: valence")
    for name in ("face 1", "face 2", "face 3"):
        shows(tab, "#legend", name)
        assert name in tab.js("document.getElementById('valence-line').getAttribute('aria-label')")
    tab.until("drawn.lines > 0")
    tab.screenshot(tmp_path / "seen.png")
    seen = cv2.imread(str(tmp_path / "seen.png"))
    assert seen is not None
    for colour in ((0xC3, 0x66, 0x0B), (0x0E, 0x46, 0xB8), (0x5B, 0x18, 0xC2)):
        assert (np.abs(seen.astype(int) - colour).max(axis=2) < 12).sum() > 300
    check(tab, page)


@slow
def test_no_face_and_a_model_that_weighs_moments_alone(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(hello(smooth=None)), Stream(temporal=True)
    for estimate in stream.hop(soon(), away=True):
        page.write(Estimate(**{**estimate.__dict__, "smooth": None}))
    tab = browser.open(page.url)
    tab.until(READY)
    shows(tab, "#plane-text", "No face, from sound alone: valence")
    shows(tab, "#reliability", "weighs moments alone")
    shows(tab, "#device", "smoothing\nnone")
    assert tab.js("document.getElementById('visual-figure').hidden")
    check(tab, page)


@slow
def test_a_lost_server_is_said_and_found_again(browser: Chromium, pages: Callable[..., Page]) -> None:
    page = pages()
    past(page, Stream(), 5, soon())
    tab = browser.open(page.url)
    tab.until(f"{READY} && document.getElementById('connection').dataset.state === 'live'")
    page.close()
    tab.until("document.getElementById('connection').innerText.startsWith('disconnected')")
    tab.until("document.querySelector('main').classList.contains('stale') && document.title.startsWith('disconnected')")
    shows(tab, "#banners", "numbers below are from before")
    again = pages(hello(precision="fp32"), port=port_of(page))
    past(again, Stream(), 5, soon())
    tab.until("document.getElementById('connection').dataset.state === 'live' && !document.querySelector('main').classList.contains('stale')")
    tab.until("document.getElementById('model').innerText.includes('fp32')")
    assert text_of(tab, "#banners").count("\n") == 0, "the warning about synthetic data alone is left"
    assert all("WebSocket connection" in error for error in tab.errors), "what the browser itself says of a server that is away"


@slow
def test_a_run_that_is_silent_is_said_to_be(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(), Stream()
    past(page, stream, 5, now_ns=time.monotonic_ns() - 60 * NS_PER_S)
    tab = browser.open(page.url)
    tab.until("document.getElementById('connection').dataset.state === 'old'")
    shows(tab, "#banners", "These numbers are old")
    assert re.search(r"The newest estimate is (6\d|7\d|8\d) s old|min old", text_of(tab, "#ages")), "also for who came just now"
    assert tab.js("document.querySelector('main').classList.contains('stale')")
    with running(page, stream):
        tab.until("document.getElementById('connection').dataset.state === 'live'")
    check(tab, page)


@slow
def test_what_the_run_says_of_itself_is_seen(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(hello(trained_on={"name": "mine", "synthetic": False})), Stream()
    now_ns = past(page, stream, 3, soon())
    tab = browser.open(page.url)
    tab.until(READY)
    assert text_of(tab, "#banners") == ""
    for estimate in stream.hop(now_ns + HOP_NS, why="hot"):
        page.write(estimate)
    said = status(now_ns)
    said["camera"]["state"], said["microphone"]["state"] = "stalled", "gone"
    page.status(said)
    page.notice(Notice(now_ns, "degraded", "hot: 91 °C of 95; every 3rd frame is read"))
    tab.until("document.getElementById('banners').children.length === 3")
    shows(tab, "#banners", "Degraded on purpose (hot): every 3rd frame is read")
    shows(tab, "#banners", "Camera stalled")
    shows(tab, "#banners", "Microphone gone")
    shows(tab, "#notices li", "degraded on purpose – hot: 91 °C of 95; every 3rd frame is read")
    page.status(
        {**status(now_ns), "camera": None, "microphone": None, "sinks": {}, "process": {"rss_mb": None, "cpu_percent": 1.0, "temperature_c": None}}
    )
    for estimate in stream.hop(now_ns + 2 * HOP_NS):
        page.write(Estimate(**{**estimate.__dict__, "live": None, "smooth": None}))
    tab.until("document.getElementById('banners').children.length === 0")
    assert text_of(tab, "#camera-state") == "not asked for"
    check(tab, page)


@slow
def test_the_picture_is_there_only_when_it_is_shared(browser: Chromium, pages: Callable[..., Page]) -> None:
    red = np.zeros((480, 640, 3), np.uint8)
    red[..., 0] = 255
    plain, shared = pages(), pages(share_video=True)
    for page in (plain, shared):
        now_ns = past(page, Stream(), 2, soon())
    first, second = browser.open(plain.url), browser.open(shared.url)
    for tab in (first, second):
        tab.until(READY)
    for i in range(10):
        plain.offer(FrameEvent(now_ns + i * NS_PER_S, red, "rgb"))
    shared.offer(FrameEvent(now_ns, red, "rgb"))
    second.until("picture !== null && !document.getElementById('picture-part').hidden")
    drawn = np.array(second.js("[...document.getElementById('picture').getContext('2d').getImageData(0, 0, 480, 360).data]")).reshape(360, 480, 4)
    assert np.abs(drawn[5, 5, :3] - (255, 0, 0)).max() < 12
    assert np.abs(drawn[80, 22, :3] - (0x0B, 0x66, 0xC3)).max() < 40, "the left side of the face's box, 30 pixels of 640 from the left"
    shows(second, "footer", "shared with whoever opens this page")
    assert first.js("picture === null && document.getElementById('picture-part').hidden")
    shows(first, "footer", "No picture leaves the device")
    check(first, plain)
    check(second, shared)


@slow
def test_the_keyboard_reaches_and_works_everything(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(), Stream()
    now_ns = past(page, stream, 3, soon())
    tab = browser.open(page.url)
    tab.until(READY)
    reached = []
    for _ in range(3):
        tab.key("Tab")
        reached.append(tab.js("document.activeElement.id || document.activeElement.className"))
    assert reached == ["skip", "pause", "notices"]
    tab.js("document.getElementById('pause').focus()")
    tab.key(" ")
    tab.until("document.getElementById('pause').getAttribute('aria-pressed') === 'true'")
    before = tab.js("document.getElementById('plane').toDataURL()"), text_of(tab, "#tracks")
    for estimate in stream.hop(now_ns + 20 * HOP_NS):
        page.write(estimate)
    tab.until(f"state.newest === {now_ns + 20 * HOP_NS} / 1e6")
    tab.js("new Promise((done) => setTimeout(done, 400))")
    assert (tab.js("document.getElementById('plane').toDataURL()"), text_of(tab, "#tracks")) == before
    assert text_of(tab, "#connection") == "paused"
    tab.key("Enter")
    tab.until(f"document.getElementById('tracks').innerText !== {before[1]!r}")
    check(tab, page)


@slow
def test_a_screen_reader_finds_a_name_for_everything_and_is_not_flooded(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(share_video=True), Stream(faces=2)
    now_ns = past(page, stream, 3, soon())
    notices(page, now_ns)
    page.status(status(now_ns))
    tab = browser.open(page.url)
    tab.until(f"{READY} && state.status !== null && document.getElementById('spoken').innerText !== ''")
    tab.until("document.getElementById('valence-line').getAttribute('aria-label') !== null")
    tab.call("Accessibility.enable")
    nodes = [node for node in tab.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = [node for node in nodes if node["role"]["value"] in ("image", "img", "button", "link", "heading", "table", "log", "region")]
    assert len(named) > 15
    assert [node["role"]["value"] for node in named if not node.get("name", {}).get("value")] == []
    assert tab.js("document.documentElement.lang") == "en"
    assert tab.js("[...document.querySelectorAll('h1')].length") == 1
    tab.js(
        "window.changes = 0; window.begun = performance.now(); new MutationObserver((all) => { window.changes += all.length; })"
        ".observe(document.getElementById('spoken'), {childList: true, characterData: true, subtree: true})"
    )
    tab.js("window.kept = document.querySelector('#notices li')")
    for i in range(1, 40):
        for estimate in stream.hop(now_ns + i * HOP_NS):
            page.write(estimate)
    tab.until(f"state.newest === {now_ns + 39 * HOP_NS} / 1e6")
    tab.js("update(); update()")
    assert tab.js("window.changes <= 2 + (performance.now() - window.begun) / SPEAK_MS"), "twenty seconds of estimates, said once in SPEAK_MS"
    assert tab.js("window.kept === document.querySelector('#notices li')"), "a log that is made anew would be read again"
    check(tab, page)


@slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(browser: Chromium, pages: Callable[..., Page], dark: bool) -> None:
    page = pages()
    now_ns = past(page, Stream(faces=2), 3, soon())
    said = status(now_ns)
    said["camera"]["state"], said["microphone"]["state"] = "stalled", "gone"
    page.status(said)
    tab = browser.open(page.url, dark=dark)
    tab.until(f"{READY} && state.status !== null && document.getElementById('banners').children.length === 3")
    worst = tab.js("""(() => {
      const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
      const light = (colour) => numbers(colour).slice(0, 3).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const back = (node) => getComputedStyle(node).backgroundColor;
      const behind = (node) => { while (numbers(back(node))[3] === 0) node = node.parentElement; return back(node); };
      const all = [];
      for (const node of document.querySelectorAll('body *')) {
        if (node.closest('.hidden, .skip, script, style, noscript, [hidden]')) continue;
        if (![...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim())) continue;
        const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
        all.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent.slice(0, 40)]);
      }
      return all.sort((one, other) => one[0] - other[0]).slice(0, 3);
    })()""")
    assert worst[0][0] >= 4.5, worst


@slow
def test_with_reduced_motion_nothing_is_played(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(), Stream()
    now_ns = past(page, stream, 3, soon())
    moving, still = browser.open(page.url), browser.open(page.url, still=True)
    for tab in (moving, still):
        tab.until(READY)
        tab.js("state.play.at = performance.now() + 1e6")
    assert still.js("playhead(performance.now()) === state.newest")
    assert moving.js("playhead(performance.now()) < state.newest")
    still.until(f"drawn.head === {now_ns} / 1e6")


@slow
def test_memory_of_the_page_is_a_minute(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(), Stream(faces=4)
    start_ns = time.monotonic_ns()
    tab = browser.open(page.url)
    for i in range(360):
        for estimate in stream.hop(start_ns + i * HOP_NS):
            page.write(estimate)
        page.notice(Notice(start_ns + i * HOP_NS, "camera_stalled", f"{i}"))
        if i % 12 == 11:
            tab.until(f"state.newest === {start_ns + i * HOP_NS} / 1e6")
    sizes = tab.js("[...state.series.values()].map((line) => [line.ticks.length, line.hops.length])")
    assert len(sizes) == 4
    assert max(ticks for ticks, _ in sizes) <= 65 * 30 + 15
    assert max(hops for _, hops in sizes) <= 65 * 2 + 1
    assert tab.js("state.notices.length") == 100
    tab.until("document.getElementById('notices').children.length === 100")


@slow
def test_text_from_outside_stays_text(browser: Chromium, pages: Callable[..., Page]) -> None:
    evil = "<img src=x onerror=alert(1)><script>document.title='evil'</script>"
    page = pages(
        hello(trained_on={"name": evil, "synthetic": True}, model={"name": evil, "preset": "tiny", "revision": None, "reliability": "modality"})
    )
    now_ns = past(page, Stream(), 2, soon())
    page.notice(Notice(now_ns, "camera_gone", evil))
    page.status({**status(now_ns), "sinks": {evil: {"state": evil, "written": 1, "dropped": 0, "queued": 0}}})
    tab = browser.open(page.url)
    tab.until(f"{READY} && state.status !== null")
    for selector in ("#model", "#banners", "#notices", "#device", "#sinks"):
        shows(tab, selector, evil)
    assert tab.js("document.querySelectorAll('img').length") == 0
    check(tab, page)


@slow
def test_a_token_opens_the_page_and_its_stream(browser: Chromium, pages: Callable[..., Page]) -> None:
    page = pages(token="se cret&")
    past(page, Stream(), 2, soon())
    tab = browser.open(f"{page.url}?token=se%20cret%26")
    tab.until(READY)
    check(tab, page)
    other = browser.open(f"{page.url}?token=wrong")
    shows(other, "body", "a token is needed")
    assert "sage-edge" not in other.js("document.title")


@slow
def test_a_recording_is_shown_too(browser: Chromium, pages: Callable[..., Page]) -> None:
    page, stream = pages(), Stream(live=False)
    past(page, stream, 3, now_ns=3 * NS_PER_S)
    tab = browser.open(page.url)
    with running(page, stream, 3 * NS_PER_S):
        tab.until(
            "document.getElementById('connection').dataset.state === 'live' && document.getElementById('ages').innerText.startsWith('Recorded')"
        )
    check(tab, page)
