"""One run of the emulated machine: QEMU, its channels, and its end."""

import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import kernel

# What the second stage of the machine does, in the host's own tree: names the NICs, then runs the command.
SECOND_STAGE = """\
if [ "$1" = start ]; then
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
    hostname emulated
    ip link set lo up
    for module in $LOAD; do modprobe "$module"; done
    number=0
    for device in $(ls -d /sys/bus/pci/drivers/igb/0000:* 2>/dev/null | sort); do
        ip link set "$(ls "$device/net")" name "pf$number" && number=$((number + 1))
    done
    for device in /sys/bus/virtio/drivers/virtio_net/virtio*; do
        ip link set "$(ls "$device/net")" name wire0
    done
    for feature in tx gso tso gro lro rxvlan txvlan; do ethtool -K wire0 "$feature" off >/dev/null 2>&1; done
    echo started >/run/status
    cd "$DIRECTORY"
    setsid env $ENVIRONMENT sh -c "$COMMAND" </dev/null >/run/stdout 2>/run/stderr
    echo "ended $?" >/run/status
    busybox poweroff -f
fi
"""

# A translated processor does not have the string instructions that say of themselves that they are fast: under TCG each
# byte of them is a step of a loop, and clearing memory takes ten times as long. Nor a fifth level of page tables.
PROCESSORS = {"kvm": "max", "tcg": "max,erms=off,fsrm=off,fsrs=off,fzrm=off,la57=off"}

# With a thread for each processor, QEMU itself aborts now and then (`iotlb_to_section: Assertion … failed`): in the middle of
# a suite, and the more often the busier the host is.
ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=single"}

MODULES = ("virtio_net", "igb", "igbvf", "vfio-pci", "tun", "veth", "bridge", "nf_tables", "nft_meta_bridge")


class Failure(Exception):
    """The machine did not do its part."""

    def __init__(self, message, status=125):
        super().__init__(message)
        self.status = status


class Crash(Failure):
    """QEMU itself broke down before the command started: nothing has been done yet."""


class Machine:
    """Everything of it is gone when the context ends."""

    def __init__(self, kernel, nics, cpus, iommu, accelerator, shares, console):
        self.kernel, self.nics, self.cpus, self.iommu = kernel, nics, cpus, iommu
        self.accelerator, self.shares, self.console = accelerator, shares, console
        self.process, self.booted, self.status = None, None, None

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="vm-"))
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self):
        pci_hole = ["-global", "q35-pcihost.pci-hole64-size=0"]  # see docs: VF registers above 4 GiB do not work
        command = [
            "qemu-system-x86_64", "-name", "emulated", "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35,kernel-irqchip=split", *pci_hole, "-m", "2048", "-smp", str(self.cpus), "-cpu", PROCESSORS[self.accelerator],
            "-accel", ACCELERATORS[self.accelerator],
            "-no-reboot", "-kernel", self.kernel.image, "-initrd", kernel.initramfs(self.kernel),
            # Under TCG the processor's counter is the host's: to compare it with emulated timers would find it wrong.
            "-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off random.trust_cpu=on "
                       + ("tsc=reliable " if self.accelerator == "tcg" else "")
                       + ("intel_iommu=on iommu=pt" if self.iommu else ""),
            "-chardev", f"file,id=console,path={self.console or self.directory / 'console'}",
            "-serial", "chardev:console",
            "-device", "virtio-rng-pci",
            "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-netdev", "hubport,id=wire,hubid=0", "-device", "virtio-net-pci,netdev=wire,mac=52:54:00:ff:00:00",
            "-device", "virtio-serial-pci",
        ]
        if self.iommu:
            command += ["-device", "intel-iommu,intremap=on,caching-mode=on"]
        for number in range(self.nics):
            command += [
                "-device", f"pcie-root-port,id=slot{number},slot={number + 1},chassis=1",
                "-netdev", f"hubport,id=nic{number},hubid=0",
                "-device", f"igb,bus=slot{number},netdev=nic{number},mac=52:54:00:ff:01:{number:02x}",
            ]
        for number, share in enumerate(self.shares):
            command += [
                "-fsdev", f"local,id=share{number},path={share},security_model=none,multidevs=remap",
                "-device", f"virtio-9p-pci,fsdev=share{number},mount_tag=share{number}",
            ]
        for channel in ("stdout", "stderr", "status"):
            command += [
                "-chardev", f"socket,id={channel},path={self.directory / channel}",
                "-device", f"virtserialport,chardev={channel},name={channel}",
            ]
        command += ["-fw_cfg", f"name=opt/order,file={self.directory / 'order'}"]
        return [str(part) for part in command]

    def order(self, command, directory, environment):
        """What the machine is to do, as a shell script: settings for both stages, then the second stage."""
        settings = {
            "RELEASE": self.kernel.release,
            "MODULES": str(self.kernel.modules),
            "SHARES": " ".join(map(str, self.shares)),
            "LOAD": " ".join(MODULES),
            "DIRECTORY": directory,
            "ENVIRONMENT": " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items()),
            "COMMAND": shlex.join(command),
        }
        lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
        return "\n".join(lines) + "\n" + SECOND_STAGE

    def run(self, command, directory, environment, timeout):
        """Runs a command and hands on what it writes; its exit status."""
        (self.directory / "order").write_text(self.order(command, directory, environment))
        listeners = {}
        for channel in ("stdout", "stderr", "status"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.directory / channel))
            listener.listen(1)
            listeners[channel] = listener
        started = time.monotonic()
        log = (self.directory / "qemu").open("wb")
        # A group of its own: the terminal's Ctrl-C is for us, and we end it.
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, process_group=0)
        sinks = {
            "stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer, "status": _Status(self, started),
        }
        threads = []
        for channel, listener in listeners.items():
            thread = threading.Thread(target=_copy, args=(listener, sinks[channel]), daemon=True)
            thread.start()
            threads.append(thread)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{timeout:.0f} s were over before the command ended"
                          f"{'' if self.booted else '; it had not even started'}; {self.last_words()}", 124) from None
        if self.booted is None and self.status is None:
            kind = Crash if self.aborted() else Failure
            raise kind(f"{self.end()} before the command started; {self.last_words()}")
        for thread in threads:
            thread.join(5)
        if self.status is None:
            raise Failure(f"{self.end()} while the command ran; {self.last_words()}")
        return self.status

    def aborted(self):
        return -self.process.returncode in (signal.SIGABRT, signal.SIGSEGV)

    def end(self):
        """How the machine ended."""
        if self.aborted():
            return f"QEMU aborted ({signal.Signals(-self.process.returncode).name})"
        return "the machine ended"

    def last_words(self):
        """The end of what QEMU and the machine's kernel wrote."""
        lines = []
        for file in (self.directory / "qemu", self.console or self.directory / "console"):
            if file.exists():
                lines += [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()][-5:]
        return "its last lines: " + " | ".join(lines) if lines else "it said nothing"


def _copy(listener, sink):
    connection, _ = listener.accept()
    listener.close()
    while piece := connection.recv(1 << 16):
        sink.write(piece)
        sink.flush()


class _Status:
    """Takes in what the machine says of itself: `started`, then `ended N`."""

    def __init__(self, machine, started):
        self.machine, self.started, self.text = machine, started, b""

    def write(self, piece):
        self.text += piece
        for line in self.text.decode().splitlines():
            word, *rest = line.split()
            if word == "started" and self.machine.booted is None:
                self.machine.booted = time.monotonic() - self.started
            if word == "ended" and rest:
                self.machine.status = int(rest[0])

    def flush(self):
        pass
