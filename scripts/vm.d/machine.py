"""One run of the emulated machine: QEMU, its channels, and its end."""

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

# The second stage of the machine, in the host's own tree: it names the NICs and runs the command.
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
    for feature in tx gso tso gro lro rxvlan txvlan; do
        ethtool -K wire0 "$feature" off >/dev/null 2>&1
    done
    echo started >/run/status
    cd "$DIRECTORY"
    setsid env $ENVIRONMENT sh -c "$COMMAND" </dev/null >/run/stdout 2>/run/stderr
    echo "ended $?" >/run/status
    busybox poweroff -f
fi
"""

# TCG emulates a string instruction as a loop, one step for each byte. With the flags that call
# these instructions fast, the kernel would use them, and clearing memory would take ten times as
# long. A fifth level of page tables costs time too.
PROCESSORS = {"kvm": "max", "tcg": "max,erms=off,fsrm=off,fsrs=off,fzrm=off,la57=off"}

# With one thread for each processor, QEMU itself aborts now and then (`iotlb_to_section: Assertion
# … failed`), in the middle of a suite, and more often on a busy host.
ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=single"}

MODULES = ("virtio_net", "igb", "igbvf", "vfio-pci", "tun", "veth", "bridge", "nf_tables",
           "nft_meta_bridge")
CHANNELS = ("stdout", "stderr", "status")


class Failure(Exception):
    """The machine did not start, or ended too early."""

    def __init__(self, message, status=125):
        super().__init__(message)
        self.status = status


class Crash(Failure):
    """QEMU aborted before the command started: another try is safe."""


class Machine:
    """Nothing of it is left when the context ends."""

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
        """QEMU's command line."""
        return [str(part) for part in (
            "qemu-system-x86_64", "-name", "emulated", "-nodefaults", "-no-user-config",
            "-display", "none",
            *self.board(), *self.nic_devices(), *self.files(), *self.channels())]

    def board(self):
        emulated = self.accelerator == "tcg"
        settings = [
            "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off random.trust_cpu=on",
            # Under TCG the processor's counter is the host's. The kernel would compare it with
            # emulated timers, and distrust it.
            *(["tsc=reliable"] if emulated else []),
            *(["intel_iommu=on iommu=pt"] if self.iommu else []),
        ]
        return [
            "-machine", "q35,kernel-irqchip=split",
            # VF registers above 4 GiB do not work: see docs/design/emulated-machine.md.
            "-global", "q35-pcihost.pci-hole64-size=0",
            "-m", "2048", "-smp", self.cpus, "-cpu", PROCESSORS[self.accelerator],
            "-accel", ACCELERATORS[self.accelerator],
            "-no-reboot", "-kernel", self.kernel.image, "-initrd", kernel.initramfs(self.kernel),
            "-append", " ".join(settings),
            "-device", "virtio-rng-pci",
            *(["-device", "intel-iommu,intremap=on,caching-mode=on"] if self.iommu else []),
        ]

    def nic_devices(self):
        """`wire0` and the SR-IOV NICs, all on one hub."""
        options = ["-netdev", "hubport,id=wire,hubid=0",
                   "-device", "virtio-net-pci,netdev=wire,mac=52:54:00:ff:00:00"]
        for number in range(self.nics):
            mac = f"52:54:00:ff:01:{number:02x}"
            options += [
                "-device", f"pcie-root-port,id=slot{number},slot={number + 1},chassis=1",
                "-netdev", f"hubport,id=nic{number},hubid=0",
                "-device", f"igb,bus=slot{number},netdev=nic{number},mac={mac}",
            ]
        return options

    def files(self):
        """The host's tree, read-only, and the shared directories."""
        options = [
            "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
        ]
        for number, share in enumerate(self.shares):
            name = f"share{number}"
            options += [
                "-fsdev", f"local,id={name},path={share},security_model=none,multidevs=remap",
                "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}",
            ]
        return options

    def channels(self):
        """The console, what the command writes, and the machine's order."""
        options = [
            "-chardev", f"file,id=console,path={self.console or self.directory / 'console'}",
            "-serial", "chardev:console", "-device", "virtio-serial-pci",
        ]
        for channel in CHANNELS:
            options += [
                "-chardev", f"socket,id={channel},path={self.directory / channel}",
                "-device", f"virtserialport,chardev={channel},name={channel}",
            ]
        return [*options, "-fw_cfg", f"name=opt/order,file={self.directory / 'order'}"]

    def order(self, command, directory, environment):
        """What the machine is to do, as a shell script: settings of both stages, then the
        second."""
        variables = (shlex.quote(f"{name}={value}") for name, value in environment.items())
        settings = {
            "RELEASE": self.kernel.release,
            "MODULES": str(self.kernel.modules),
            "SHARES": " ".join(map(str, self.shares)),
            "LOAD": " ".join(MODULES),
            "DIRECTORY": directory,
            "ENVIRONMENT": " ".join(variables),
            "COMMAND": shlex.join(command),
        }
        lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
        return "\n".join(lines) + "\n" + SECOND_STAGE

    def run(self, command, directory, environment, timeout_s):
        """Runs a command and passes its output on; its exit status."""
        (self.directory / "order").write_text(self.order(command, directory, environment))
        sinks = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer,
                 "status": _Status(self, time.monotonic())}
        listeners = {channel: self.listen(channel) for channel in CHANNELS}
        with (self.directory / "qemu").open("wb") as log:
            # A process group of its own: the terminal's Ctrl-C is for this program, which ends
            # QEMU.
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, process_group=0)
        threads = [threading.Thread(target=_copy, args=(listeners[name], sinks[name]), daemon=True)
                   for name in CHANNELS]
        for thread in threads:
            thread.start()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            before = "the command ended" if self.booted else "the command started"
            raise Failure(f"{timeout_s:.0f} s were over before {before}; {self.last_lines()}",
                          124) from None
        if self.booted is None and self.status is None:
            kind = Crash if self.aborted() else Failure
            raise kind(f"{self.end()} before the command started; {self.last_lines()}")
        for thread in threads:
            thread.join(5)
        if self.status is None:
            raise Failure(f"{self.end()} while the command ran; {self.last_lines()}")
        return self.status

    def listen(self, channel):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.directory / channel))
        listener.listen(1)
        return listener

    def aborted(self):
        return -self.process.returncode in (signal.SIGABRT, signal.SIGSEGV)

    def end(self):
        """How the machine ended."""
        if self.aborted():
            return f"QEMU aborted ({signal.Signals(-self.process.returncode).name})"
        return "the machine ended"

    def last_lines(self):
        """The end of what QEMU and the machine's kernel wrote."""
        lines = []
        for file in (self.directory / "qemu", self.console or self.directory / "console"):
            if file.exists():
                written = file.read_text(errors="replace").splitlines()
                lines += [line.strip() for line in written if line.strip()][-5:]
        return "its last lines: " + " | ".join(lines) if lines else "it wrote nothing"


def _copy(listener, sink):
    connection, _ = listener.accept()
    listener.close()
    while piece := connection.recv(1 << 16):
        sink.write(piece)
        sink.flush()


class _Status:
    """Takes in what the machine reports of itself: `started`, then `ended N`."""

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
