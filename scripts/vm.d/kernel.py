"""The emulated machine's initramfs, which mounts the host's files."""

import pathlib
import shutil
import subprocess
import tempfile

import linux

HERE = pathlib.Path(__file__).resolve().parent

# Needed to mount the host's files; all other modules are loaded from there.
FIRST_MODULES = ("virtio_console", "qemu_fw_cfg", "9pnet_virtio", "9p", "overlay")


def initramfs(kernel):
    """A compressed archive with busybox, the first modules and `init`. It is kept, and made again
    when `init` has changed."""
    path = kernel.root / "initramfs"
    script = HERE / "init"
    if path.exists() and path.stat().st_mtime > script.stat().st_mtime:
        return path
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for name in ("bin", "dev", "proc", "sys", "host", "root"):
            (root / name).mkdir()
        shutil.copy("/bin/busybox", root / "bin/busybox")
        (root / "bin/sh").symlink_to("busybox")
        shutil.copy(script, root / "init")
        (root / "init").chmod(0o755)
        kernel.put_modules(FIRST_MODULES, root / "modules")
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            subprocess.run(["gzip", "-1n"], input=linux.pack(root), check=True, stdout=file)
        new.rename(path)
    return path
