"""A driver package as NVIDIA's archives unpack to, small: the same files, and in place of its tools stand-ins that write down how they were called
and leave behind what the real ones do. And a host to run them on: its files, and a PATH that holds nothing else."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

from released import elf_head

from sage_edge.jetson.boards import number, table
from sage_edge.jetson.host.bsp import HOST_TOOLS, Bsp
from sage_edge.jetson.host.flash_checks import Host

REAL = ("sh", "tar", "bzip2", "cat", "chmod", "grep", "mkdir", "rm")
"""What the stand-ins themselves need, and tar, which is the real one."""

READY = Host("x86_64", uid=0, distribution="ubuntu", release="22.04", kmod=29, usb=(), autosuspend=False, network_manager=False, firewall=False)
"""A host that may flash every line."""

RECORD = r"""#!/bin/sh
set -e
boot=${ADDITIONAL_DTB_OVERLAY_OPT:+ overlay=$ADDITIONAL_DTB_OVERLAY_OPT}
{ printf '%s' "${0##*/}"; printf ' [%s]' "$@"; printf '%s\n' "$boot"; } >> calls.log
if [ -e "fail-${0##*/}" ]; then cat "fail-${0##*/}"; exit 3; fi
"""

PREREQUISITES = RECORD + 'for tool in @TOOLS@; do printf "#!/bin/sh\\n" > "@BIN@/$tool"; chmod 755 "@BIN@/$tool"; done\n'

APPLY = (
    RECORD
    + """
qemu-aarch64-static || { echo "nv-apply-debs.sh: qemu-aarch64-static: No such file or directory"; exit 1; }
[ -f rootfs/etc/passwd ] || { echo "1. The root filesystem has to be extracted"; exit 1; }
mkdir -p rootfs/var/lib/dpkg
printf 'Package: nvidia-l4t-core\\nVersion: @L4T@-20250101000000\\n\\n' > rootfs/var/lib/dpkg/status
[ "$1" != --openrm ] || printf 'Package: nvidia-l4t-cuda-openrm\\nVersion: @L4T@-20250101000000\\n' >> rootfs/var/lib/dpkg/status
echo '# R@MAJOR@ (release), REVISION: @REST@, GCID: 1, BOARD: generic, EABI: aarch64, DATE: now' > rootfs/etc/nv_tegra_release
"""
)

USER = (
    RECORD
    + """
password=MDg5ZTQ2
while [ $# -gt 0 ]; do
  case "$1" in -u) user=$2; shift;; -p) password=$2; shift;; -n) name=$2; shift;; esac
  shift
done
grep -q "^Package: nvidia-l4t-core" rootfs/var/lib/dpkg/status
echo "Creating: Username - $user, Password - $password, Autologin - false"
echo "$user:x:1000:1000::/home/$user:/bin/bash" >> rootfs/etc/passwd
echo "$name" > rootfs/etc/hostname
"""
)


class FakeBsp:
    """`Linux_for_Tegra` of `l4t` under `folder`, with the boards that L4T has. `bin` is the host's PATH."""

    def __init__(self, folder: Path, l4t: str, tools: bool = True) -> None:
        self.l4t, self.root, self.bin = l4t, folder / "Linux_for_Tegra", folder / "bin"
        (self.root / "rootfs").mkdir(parents=True)
        self.bin.mkdir()
        for name in REAL:
            program = shutil.which(name)
            assert program, f"{name} is missing: apt-get install tar bzip2"
            (self.bin / name).symlink_to(program)
        major, *rest = number(l4t)
        put = self._put
        put("rootfs/README.txt", "unpack the sample root file system here")
        put("nv_tegra/bsp_version", f'# NVIDIA\n\nBSP_BRANCH={major}\nBSP_MAJOR={rest[0]}\nBSP_MINOR={rest[1]}\nBSP_VERSION="${{BSP_BRANCH}}"\n')
        for board in table().boards.values():
            if major in board.since and number(board.since[major]) <= number(l4t):
                put(f"{board.name}.conf", "")
        for recipe in table().recipes:
            if major in recipe.majors:
                put(recipe.argv[0], RECORD, 0o755)
                for word in recipe.argv:
                    if word.endswith(".xml"):
                        put(word.removeprefix("-c "), "<partition_layout/>")
        words = {"L4T": l4t, "MAJOR": str(major), "REST": ".".join(map(str, rest)), "BIN": str(self.bin), "TOOLS": " ".join(HOST_TOOLS)}
        put("tools/l4t_flash_prerequisites.sh", _filled(PREREQUISITES, words), 0o755)
        put("apply_binaries.sh", _filled(APPLY, words), 0o755)
        put("tools/l4t_create_default_user.sh", USER, 0o755)
        if tools:
            for name in HOST_TOOLS:
                self.add_tool(name)

    def _put(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def add_tool(self, name: str, prints: str = "") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\ncat <<'E'\n{prints}\nE\n" if prints else "#!/bin/sh\n")
        (self.bin / name).chmod(0o755)

    @property
    def bsp(self) -> Bsp:
        """With the root file system owned by whoever runs the test."""
        return Bsp(self.root, str(self.bin), owner=os.getuid())

    @property
    def calls(self) -> list[str]:
        log = self.root / "calls.log"
        return log.read_text().splitlines() if log.exists() else []

    def fail(self, tool: str, says: str = "") -> Path:
        """Let `tool` fail until the file that this returns is removed."""
        path = self.root / f"fail-{tool}"
        path.write_text(says)
        return path

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Everything in the package: mode and content, to see that nothing was written."""
        return {str(path): (path.stat().st_mode, path.read_bytes()) for path in sorted(self.root.rglob("*")) if path.is_file()}


def _filled(text: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        text = text.replace(f"@{name}@", word)
    return text


def sample_rootfs(folder: Path, python: str) -> Path:
    """NVIDIA's archive of the root file system, small: an interpreter's head, users, a setuid sudo."""
    path = folder / f"rootfs-{python}.tbz2"
    files = {
        "etc/passwd": (b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n", 0o644),
        "etc/hostname": (b"localhost\n", 0o644),
        "usr/bin/sudo": (b"#!/bin/sh\n", 0o4755),
        f"usr/bin/python{python}": (elf_head(183), 0o755),
    }
    with tarfile.open(path, "w:bz2") as archive:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return path


def host_root(folder: Path, distribution: str = "ubuntu", release: str = "22.04") -> Path:
    """What `Host.read` looks at on a host."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/os-release").write_text(f'NAME="Some Linux"\nID={distribution}\nVERSION_ID="{release}"\n')
    return folder
