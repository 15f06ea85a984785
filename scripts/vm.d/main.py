"""Runs a command in the emulated machine.

The machine has a NIC that Linux's own igb driver drives, with seven virtual functions and an embedded switch, behind
a virtual IOMMU; a second NIC, `wire0`, is what the first one's cable leads to. Its root is this machine's root,
read-only, with a layer in memory over it: every program and every freshly built binary is there, and nothing that is
written there survives, except below the directories named with --share.
"""

import argparse
import os
import pathlib
import signal
import sys
import time

import linux
import machine

ABOUT = """\
Boots a virtual machine with an SR-IOV NIC (QEMU's igb), runs COMMAND in it as root, and ends as it ends. What COMMAND
writes is written here, its standard input is empty. The machine sees this machine's files, read-only; what it writes
is forgotten, but for --share.

In the machine:
  pf0, pf1, …   the NICs' physical functions, each with up to 7 virtual functions, down at first
  wire0         the cable: what leaves any of the NICs, and the way in
  /run/emulated-machine   is there, so that a program can tell where it is
"""

CODES = """\
Exit status: COMMAND's own; 124 if the time was over (the machine is killed), 125 if the machine did not start or died
before COMMAND ended, 130 or 143 if this program was interrupted. The console's text is kept in --console.
"""


def accelerator(wanted):
    """KVM only where the processor says it can: a /dev/kvm without that has been seen to accept a machine and not run it."""
    if wanted != "auto":
        return wanted
    flags = set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags.update(line.split())
            break
    return "kvm" if flags & {"vmx", "svm"} and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/vm", description=ABOUT, epilog=CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="how long it may take (default 600)")
    parser.add_argument("--nics", type=int, default=1, choices=range(1, 5), help="how many SR-IOV NICs (default 1)")
    parser.add_argument("--cpus", type=int, default=2, help="how many processors (default 2)")
    parser.add_argument("--no-iommu", action="store_true", help="a machine without an IOMMU")
    parser.add_argument("--accel", choices=("auto", "tcg", "kvm"), default=os.environ.get("MTS_VM_ACCEL", "auto"),
                        help="auto is kvm where the processor has it, else tcg, which needs nothing (default auto)")
    parser.add_argument("--share", action="append", default=[], metavar="DIR", type=pathlib.Path,
                        help="a directory that the machine may write")
    parser.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]", help="an environment variable")
    parser.add_argument("--console", metavar="FILE", type=pathlib.Path, help="keep the kernel's messages here")
    parser.add_argument("--verbose", action="store_true", help="say how long the boot took")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND",
                        help="with its arguments; a single word with spaces is given to a shell")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no COMMAND: what should the machine run?")
    if len(command) == 1 and " " in command[0]:
        command = ["sh", "-c", command[0]]
    for share in arguments.share:
        if not share.is_dir():
            parser.error(f"--share {share}: not a directory")
    environment = {}
    for variable in arguments.env:
        name, given, value = variable.partition("=")
        environment[name] = value if given else os.environ.get(name, "")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    deadline = time.monotonic() + arguments.timeout

    def attempt():
        with machine.Machine(
            kernel=linux.find(), nics=arguments.nics, cpus=arguments.cpus, iommu=not arguments.no_iommu,
            accelerator=accelerator(arguments.accel), shares=[share.resolve() for share in arguments.share],
            console=arguments.console,
        ) as it:
            status = it.run(command, os.getcwd(), environment, deadline - time.monotonic())
            if arguments.verbose:
                print(f"vm: {it.accelerator}, the command started {it.booted:.1f} s after the machine", file=sys.stderr)
            return status

    try:
        try:
            return attempt()
        except machine.Crash as crash:
            print(f"vm: {crash}; once more", file=sys.stderr)
            return attempt()
    except machine.Failure as failure:
        print(f"vm: {failure}", file=sys.stderr)
        return failure.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
