"""The emulated machine's kernel: Debian's, unpacked beside nothing that boots, and an initramfs for it."""

import os
import pathlib
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vswitch-emulated-machine"

# What mounts the host's files; all else is loaded from there.
FIRST_MODULES = ("virtio_console", "qemu_fw_cfg", "9pnet_virtio", "9p", "overlay")


class Kernel:
    """An unpacked Debian kernel package."""

    def __init__(self, root):
        self.root = root
        self.image = next(root.glob("boot/vmlinuz-*"))
        self.release = self.image.name.removeprefix("vmlinuz-")
        self.modules = root / "lib/modules" / self.release

    def module_files(self, names):
        """The files of these modules and of all they need, each after what it needs."""
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

    def initramfs(self):
        """A compressed archive with busybox, the first modules and `init`; made once for each version of them."""
        path = self.root / "initramfs"
        script = HERE / "init"
        if path.exists() and path.stat().st_mtime > script.stat().st_mtime:
            return path
        with tempfile.TemporaryDirectory() as directory:
            root = pathlib.Path(directory)
            for name in ("bin", "dev", "proc", "sys", "modules", "host", "root"):
                (root / name).mkdir()
            shutil.copy("/bin/busybox", root / "bin/busybox")
            (root / "bin/sh").symlink_to("busybox")
            shutil.copy(script, root / "init")
            (root / "init").chmod(0o755)
            order = []
            for file in self.module_files(FIRST_MODULES):
                plain = root / "modules" / file.name.removesuffix(".xz")
                plain.write_bytes(decompressed(file))
                order.append(plain.name)
            (root / "modules/order").write_text("\n".join(order) + "\n")
            new = path.with_suffix(".new")
            pack(root, new)
            new.rename(path)
        return path


def decompressed(file):
    if file.suffix != ".xz":
        return file.read_bytes()
    return subprocess.run(["xz", "-dc", file], check=True, stdout=subprocess.PIPE).stdout


def pack(root, path):
    """A reproducible initramfs of everything below `root`."""
    names = sorted(str(file.relative_to(root)) for file in root.rglob("*"))
    for name in names:
        os.utime(root / name, (0, 0), follow_symlinks=False)
    archive = subprocess.run(
        ["cpio", "--quiet", "--create", "--null", "--format=newc", "--owner=0:0", "--reproducible"],
        cwd=root, input="\0".join(names).encode(), check=True, stdout=subprocess.PIPE).stdout
    with path.open("wb") as file:
        subprocess.run(["gzip", "-1n"], input=archive, check=True, stdout=file)


def find():
    """The newest unpacked kernel; `scripts/setup --for emulated` puts it there."""
    roots = sorted(CACHE.glob("linux-*"), key=lambda root: root.stat().st_mtime)
    if not roots:
        raise SystemExit("vm: there is no kernel for the machine: run scripts/setup --for emulated")
    return Kernel(roots[-1])
