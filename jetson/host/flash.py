"""Flash a Jetson with JetPack and sage-edge, by NVIDIA's own tools: `sudo jetson/flash --bsp Linux_for_Tegra --rootfs FILE.tbz2 --board NAME
--storage nvme --release FILE --user U --hostname H --password-file FILE --accept-license`.

It downloads nothing by itself, but for step 'prerequisites', which is NVIDIA's call of apt-get. --dry-run prints the plan and what a run would
refuse. A second run goes on where the first one stopped. Not run on a board yet: the commands are those of NVIDIA's guides (boards.json).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..boards import table
from .bsp import ARCHIVE_PAGE, Bsp
from .errors import HostError
from .flash_checks import Host, cautions, proven, refusals, selected
from .flash_plan import STEPS, STORAGES, Plan, Wish, make_plan
from .flash_run import LOG, run_plan


def main(arguments: list[str] | None = None, root: Path = Path("/")) -> int:
    """`root` is the host's own, for tests."""
    args = _parser().parse_args(arguments)
    try:
        with _stoppable():
            return _flash(args, root)
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or args.bsp}: {error.strerror or error}; check its permissions and the disk", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with the step that was interrupted", file=sys.stderr)
        return 130


@contextmanager
def _stoppable() -> Iterator[None]:
    """`kill` and a closed terminal end like Ctrl-C; only the first of them counts, for then the tool that runs is being stopped."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _flash(args: argparse.Namespace, root: Path) -> int:
    wish = Wish(
        board=args.board,
        storage=args.storage,
        user=args.user,
        hostname=args.hostname,
        password=_password(args.password_file),
        rootfs=args.rootfs,
        release=args.release,
        settings=tuple(args.conf),
        media_gb=args.media_gb,
        accept_license=args.accept_license,
    )
    path = os.environ.get("PATH", os.defpath)
    bsp = Bsp(args.bsp.resolve(), path)
    plan = make_plan(bsp, wish)
    steps = selected(args.step, args.until, plan)

    def is_proven(name: str) -> bool:
        return proven(name, bsp, plan)

    todo = [name for name in steps if not is_proven(name)]
    host = Host.read(path, root)
    refused = refusals(host, bsp, plan, steps, todo)
    warned = cautions(host, bsp, plan, steps)
    if args.dry_run:
        print("\n".join(_shown(bsp, plan, steps, todo)))
        for text in warned:
            print(f"warning: {text}")
        for text in refused:
            print(f"would be refused: {text}")
        return 0
    for text in warned:
        print(f"warning: {text}", file=sys.stderr)
    if refused:
        print("\n".join(f"error: {text}" for text in refused), file=sys.stderr)
        return 1
    print(f"{plan.board.name}, L4T {plan.l4t} (JetPack {plan.revision.jetpack}); all that the tools say goes to {bsp.root / LOG}", flush=True)
    run_plan(bsp, plan, steps, is_proven, lambda text: print(text, flush=True))
    if "flash" in steps:
        print("\n".join(_afterwards(plan)))
    return 0


def _shown(bsp: Bsp, plan: Plan, steps: list[str], todo: list[str]) -> list[str]:
    modules = ", ".join(module.name for module in plan.modules)
    lines = [
        f"{plan.board.name}: L4T {plan.l4t} (JetPack {plan.revision.jetpack}) for {modules}",
        f"in {bsp.root}, by {table().sources.get(plan.recipe.source.split(' ')[0], plan.recipe.source)}",
    ]
    for place, step in enumerate(plan.steps, 1):
        state = "not asked for" if step.name not in steps else "to do" if step.name in todo else "done already"
        lines += ["", f"{place}. {step.name} ({state})", f"   {step.command()}", f"   why: {step.why}", f"   proof: {step.proof}"]
    return [*lines, ""]


def _afterwards(plan: Plan) -> list[str]:
    lines = ["the board is flashed; take the bridge or the finger off its recovery pins"]
    lines += [quirk.fact + ": " + quirk.fix for quirk in table().quirks if quirk.id == "no-reset" and quirk.concerns(plan.l4t, plan.family)]
    return [
        *lines,
        f"leave power and USB until `ssh {plan.wish.user}@192.168.55.1` answers: a first start that is cut short leaves a board without SSH keys",
        "then: journalctl -fu sage-edge-first-boot (engines for this board, the golden check), journalctl -fu sage-edge",
    ]


class _List(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print("\n".join(_listed()))
        parser.exit()


def _listed() -> list[str]:
    """All boards with their storages and the L4T that has them."""
    found = []
    for board in table().boards.values():
        since = ", ".join(f"R{major} from {l4t}" for major, l4t in sorted(board.since.items()))
        found.append(f"{board.name:<36} {since:<36} {', '.join(table().storages_of(board))}")
    return found


def _password(file: Path | None) -> str | None:
    """The first line of `file`. NVIDIA's tool takes it as an argument, so it is in `ps` of this host for as long as that runs."""
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"--password-file {file} cannot be read ({error}); write the password into its first line") from None
    first = (text.splitlines() or [""])[0]
    if not first:
        raise HostError(f"--password-file {file} is empty; write the password into its first line")
    return first


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jetson/flash",
        description="Flash a Jetson with JetPack and sage-edge, by NVIDIA's own tools.",
        epilog=f"NVIDIA's archives: {ARCHIVE_PAGE}. jetson/flash --list shows the boards.",
    )
    parser.add_argument("--list", action=_List, nargs=0, help="print the boards, their storages and since which L4T, and exit")
    parser.add_argument("--bsp", type=Path, required=True, metavar="Linux_for_Tegra", help="NVIDIA's driver package, unpacked")
    parser.add_argument("--rootfs", type=Path, metavar="FILE.tbz2", help="NVIDIA's sample root file system, if it is not unpacked yet")
    parser.add_argument("--board", required=True, metavar="NAME", help="such as jetson-orin-nano-devkit-super")
    parser.add_argument("--storage", required=True, choices=list(STORAGES), help="what holds the system; all data on it is lost")
    parser.add_argument("--release", type=Path, metavar="FILE", help="sage-edge and its model, made by jetson/release")
    parser.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help="a setting of the service, such as SAGE_EDGE_CAMERA=csi://0")
    parser.add_argument("--user", required=True, metavar="U", help="the board's first user")
    parser.add_argument("--hostname", required=True, metavar="H")
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="the user's password in its first line; without it NVIDIA's tool makes one"
    )
    parser.add_argument("--accept-license", action="store_true", help="accept NVIDIA's licence for Jetson Linux in the board user's name")
    parser.add_argument("--media-gb", type=int, metavar="N", help="size of the drive, to check that the partitions fit")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--until", choices=STEPS, help="stop after this step: --until overlay prepares everything and needs no board")
    which.add_argument("--step", choices=STEPS, help="this step alone")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what would be refused; write nothing")
    return parser
