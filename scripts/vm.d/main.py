"""Runs a command in the emulated machine.

The machine has a NIC for Linux's own igb driver, with seven virtual functions and an embedded
switch, behind a virtual IOMMU; a second NIC, `wire0`, is the other end of its cable. Its root is
this machine's root, read-only, with a layer in memory over it: every program and every freshly
built binary is there, and nothing written there survives, except below the directories named with
--share.
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
Boots a virtual machine with an SR-IOV NIC (QEMU's igb), runs COMMAND in it as root, and ends with
its exit status. COMMAND's output is written here; its standard input is empty. The machine sees
this machine's files, read-only; what it writes is lost, except below --share.

In the machine:
  pf0, pf1, …   the NICs' physical functions, each with up to 7 virtual functions, down at first
  wire0         the other end of their cable: receives what any of the NICs sends to the wire
  /run/emulated-machine   exists, so that a program can tell where it runs
"""

CODES = """\
Exit status: COMMAND's own; 124 if the time was over (the machine is killed), 125 if the machine
did not start or died before COMMAND ended, 130 or 143 if this program was interrupted. The
console's text is kept in --console.
"""


def accelerator(wanted):
    """KVM only where the processor has it: a /dev/kvm without that may accept a machine and not run
    it."""
    if wanted != "auto":
        return wanted
    flags = set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags.update(line.split())
            break
    usable = flags & {"vmx", "svm"} and os.access("/dev/kvm", os.R_OK | os.W_OK)
    return "kvm" if usable else "tcg"


def parse():
    parser = argparse.ArgumentParser(
        prog="scripts/vm", description=ABOUT, epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--timeout", type=float, default=600, metavar="SECONDS",
           help="how long it may take (default 600)")
    option("--nics", type=int, default=1, choices=range(1, 5),
           help="how many SR-IOV NICs (default 1)")
    option("--cpus", type=int, default=2, help="how many processors (default 2)")
    option("--no-iommu", action="store_true", help="a machine without an IOMMU")
    option("--accel", choices=("auto", "tcg", "kvm"),
           default=os.environ.get("MTS_VM_ACCEL", "auto"),
           help="auto is kvm where the processor has it, else tcg (default auto)")
    option("--share", action="append", default=[], metavar="DIR", type=pathlib.Path,
           help="a directory that the machine may write")
    option("--env", action="append", default=[], metavar="NAME[=VALUE]",
           help="an environment variable")
    option("--console", metavar="FILE", type=pathlib.Path, help="keep the kernel's messages here")
    option("--verbose", action="store_true", help="say how long the boot took")
    option("command", nargs=argparse.REMAINDER, metavar="COMMAND",
           help="with its arguments; a single word with spaces is given to a shell")
    arguments = parser.parse_args()
    if arguments.command[:1] == ["--"]:
        del arguments.command[0]
    if not arguments.command:
        parser.error("no COMMAND: what should the machine run?")
    if len(arguments.command) == 1 and " " in arguments.command[0]:
        arguments.command = ["sh", "-c", *arguments.command]
    for share in arguments.share:
        if not share.is_dir():
            parser.error(f"--share {share}: not a directory")
    return arguments


def environment(variables):
    """{name: value} of `NAME=VALUE`, or of `NAME` with the value that it has here."""
    values = {}
    for variable in variables:
        name, given, value = variable.partition("=")
        values[name] = value if given else os.environ.get(name, "")
    return values


def attempt(arguments, deadline):
    """One boot; the command's exit status."""
    with machine.Machine(
        kernel=linux.find(), nics=arguments.nics, cpus=arguments.cpus, iommu=not arguments.no_iommu,
        accelerator=accelerator(arguments.accel),
        shares=[share.resolve() for share in arguments.share], console=arguments.console,
    ) as it:
        status = it.run(arguments.command, os.getcwd(), environment(arguments.env),
                        deadline - time.monotonic())
        if arguments.verbose:
            print(f"vm: {it.accelerator}, the command started {it.booted:.1f} s after the machine",
                  file=sys.stderr)
        return status


def main():
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    deadline = time.monotonic() + arguments.timeout
    try:
        try:
            return attempt(arguments, deadline)
        except machine.Crash as crash:
            print(f"vm: {crash}; trying once more", file=sys.stderr)
            return attempt(arguments, deadline)
    except machine.Failure as failure:
        print(f"vm: {failure}", file=sys.stderr)
        return failure.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
