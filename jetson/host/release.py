"""Make a release, on any host: `jetson/release --python 3.10 --bundle NAME.sage --out DIR`.

site/ holds our wheel with everything that it needs to run, at the versions of constraints.txt. What is fetched is printed; with --wheels DIR
the wheels are kept there, and once they are, nothing is fetched. The same wheels, bundle and checkout give the same archive, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..release_file import ReleaseError, is_safe, sha256_of
from .archive import pack, seal
from .errors import HostError
from .launchers import write_launchers
from .site_folder import ARCH, GLIBCS, fill_site
from .wheel import ROOT, build_wheel

EXTRAS = ("serve", "mqtt", "prometheus")


def make_release(
    python: str, bundle: Path, out: Path, *, wheel: Path | None = None, wheels: Path | None = None, say: Callable[[str], None] = print
) -> Path:
    """Make the archive in `out` and return it. `wheel` is ours, cross-built where None; `wheels` is the folder that keeps all others.

    Raises HostError for a bundle that is damaged, a wheel of another machine, and where pip cannot get what is needed.
    """
    manifest = read_bundle(bundle)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out) as name:
        work, content = Path(name), Path(name) / "content"
        ours = wheel or build_wheel(work)
        named = re.fullmatch(rf"sage_edge-([^-]+)-py3-none-\S*{ARCH}\.whl", ours.name)
        if named is None:
            raise HostError(f"{ours.name} is no wheel of sage-edge for {ARCH}; make one with jetson/wheel")
        fill_site(content / "site", python, f"{ours.resolve()}[{','.join(EXTRAS)}]", wheels or work / "wheels", say)
        write_launchers(content / "bin", python)
        model = f"model/{bundle.resolve().name}"
        _copy(bundle, content / model, ["manifest.json", *manifest["files"]])
        _copy(ROOT / "jetson/systemd", content / "systemd", [path.name for path in (ROOT / "jetson/systemd").iterdir() if path.is_file()])
        facts = {"python": python, "arch": ARCH, "revision": _revision(), "model": model, "model_digest": str(manifest["digest"])}
        try:
            # the same sage-edge with another model is another version
            content_id = hashlib.sha256(seal(content, version="0", **facts).to_json().encode()).hexdigest()[:8]
            release = seal(content, version=f"{named[1]}{'.' if '+' in named[1] else '+'}{content_id}", **facts)
        except ReleaseError as error:
            raise HostError(str(error)) from None
        for folder, size in _sizes(content):
            say(f"{size / 1e6:8.1f} MB  {folder}")
        archive = pack(content, out)
    say(f"{archive}: sage-edge {release.version} for Python {python} on {ARCH}, {archive.stat().st_size / 1e6:.1f} MB")
    if manifest["trained_on"]["synthetic"]:
        say("note: this model was trained on synthetic data; a board runs it only with --conf SAGE_EDGE_ALLOW_DEMO=yes")
    return archive


def read_bundle(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are all as it says. The board checks all the rest. Raises HostError."""
    try:
        manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
        body = {key: value for key, value in manifest.items() if key != "digest"}
        whole = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest() == manifest["digest"]
        whole = whole and isinstance(manifest["trained_on"]["synthetic"], bool)
        for name, file in manifest["files"].items():
            path = bundle / name
            whole = whole and is_safe(name) and path.stat().st_size == file["size"] and sha256_of(path) == file["sha256"]
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}; name a bundle, the folder NAME.sage that sage-edge compile wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise HostError(f"{bundle} is not what its manifest lists; copy or compile it again (sage-edge inspect {bundle} says more)")
    return manifest


def _copy(source: Path, target: Path, names: list[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _sizes(content: Path) -> list[tuple[str, int]]:
    """(folder, bytes) of every folder of a release, and of what in site/ has 5 MB or more, in the order of their names."""

    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    folders = [path for path in content.iterdir() if path.is_dir()]
    large = [path for path in (content / "site").iterdir() if path.is_dir() and size(path) >= 5e6]
    return [(path.relative_to(content).as_posix(), size(path)) for path in sorted([*folders, *large])]


def _revision() -> str:
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(prog="jetson/release", description="Make a release of sage-edge: one file that holds all that a board gets.")
    parser.add_argument(
        "--python", choices=tuple(GLIBCS), default="3.10", help="the board's: 3.10 with JetPack 6, 3.12 with JetPack 7 (default: 3.10)"
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="NAME.sage", help="the model, as sage-edge compile wrote it")
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="where the release goes (default: dist)")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="sage-edge's own wheel, from jetson/wheel (default: built now)")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="keep fetched wheels here, and fetch nothing once they are here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that nothing half-made is left
    try:
        make_release(arguments.python, arguments.bundle, arguments.out, wheel=arguments.wheel, wheels=arguments.wheels)
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or arguments.out}: {error.strerror or error}; check the path, its permissions and the disk", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing half-written was left behind", file=sys.stderr)
        return 130
    return 0
