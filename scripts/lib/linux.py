"""Debian's kernel as `scripts/setup --for emulated` unpacks it, and initramfs archives for it."""

import os
import pathlib
import subprocess

_CACHES = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
CACHE = _CACHES / "vswitch-emulated-machine"


class Kernel:
    """An unpacked Debian kernel package."""

    def __init__(self, root):
        self.root = root
        self.image = next(root.glob("boot/vmlinuz-*"))
        self.release = self.image.name.removeprefix("vmlinuz-")
        self.modules = root / "lib/modules" / self.release

    def module_files(self, names):
        """The files of these modules and their dependencies, each after its own."""
        files = []
        for name in names:
            shown = subprocess.run(
                ["modprobe", "--show-depends", "-d", self.root, "-S", self.release, name],
                check=True, capture_output=True, text=True).stdout
            for line in shown.splitlines():
                kind, *rest = line.split()
                if kind == "insmod" and pathlib.Path(rest[0]) not in files:
                    files.append(pathlib.Path(rest[0]))
        return files

    def put_modules(self, names, directory):
        """Writes these modules and their dependencies, uncompressed, and their order of loading as
        `order`."""
        directory.mkdir()
        order = []
        for file in self.module_files(names):
            plain = directory / file.name.removesuffix(".xz")
            plain.write_bytes(decompressed(file))
            order.append(plain.name)
        (directory / "order").write_text("\n".join(order) + "\n")


def decompressed(file):
    if file.suffix != ".xz":
        return file.read_bytes()
    return subprocess.run(["xz", "-dc", file], check=True, stdout=subprocess.PIPE).stdout


def pack(root):
    """The bytes of an initramfs with everything below `root`. Equal names, modes and contents give
    equal bytes."""
    names = sorted(str(file.relative_to(root)) for file in root.rglob("*"))
    for name in names:
        os.utime(root / name, (0, 0), follow_symlinks=False)
    return subprocess.run(
        ["cpio", "--quiet", "--create", "--null", "--format=newc", "--owner=0:0", "--reproducible"],
        cwd=root, input="\0".join(names).encode(), check=True, stdout=subprocess.PIPE).stdout


def find():
    """The newest unpacked kernel; `scripts/setup --for emulated` puts it there."""
    roots = sorted(CACHE.glob("linux-*"), key=lambda root: root.stat().st_mtime)
    if not roots:
        raise SystemExit("no kernel for virtual machines is here: run scripts/setup --for emulated")
    return Kernel(roots[-1])
