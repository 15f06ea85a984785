"""Counts frames in the kernel, on the interfaces that they pass.

A counter is a packet socket with a capture filter. It is never read: the kernel itself counts each
frame that the filter accepts, so no frame is missed at any rate, and frames that do not match cost
no time.
"""

import contextlib
import ctypes
import socket
import struct

from scapy.arch.common import compile_filter

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000

_DLT_EN10MB = 1
_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SO_ATTACH_FILTER = 26

# Classic BPF: load the frame's direction, and continue only if it is (or is not) outgoing.
_LOAD_DIRECTION = (0x20, 0, 0, 0xFFFFF000 + 4)
_OUTGOING = 4
_REJECT = (0x06, 0, 0, 0)


@contextlib.contextmanager
def inside(netns):
    """Runs the block in a network namespace. A socket made in it stays there."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{netns}", "rb") as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor):
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _compiled(expression):
    """The filter's instructions, as libpcap compiles them for Ethernet; 8 bytes each."""
    program = compile_filter(expression, linktype=_DLT_EN10MB)
    return ctypes.string_at(program.bf_insns, program.bf_len * 8)


class Counter:
    """Frames that match `expression` on one interface, either those that leave by it or those that
    arrive."""

    def __init__(self, netns, interface, expression, *, outgoing):
        # "Jump if equal" skips the rejection in one case, and reaches it in the other.
        only_if = (0x15, *((1, 0) if outgoing else (0, 1)), _OUTGOING)
        program = b"".join(struct.pack("HBBI", *step)
                           for step in (_LOAD_DIRECTION, only_if, _REJECT))
        program += _compiled(expression)
        code = ctypes.create_string_buffer(program)
        with inside(netns):
            # Protocol 0 until the filter is attached: no unfiltered frame is ever counted.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER,
                                    struct.pack("HL", len(program) // 8, ctypes.addressof(code)))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            self._socket.bind((interface, _ETH_P_ALL))
        self._total = 0

    def value(self):
        """The number of frames so far."""
        # Reading the kernel's counter resets it.
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._total += struct.unpack("II", statistics)[0]
        return self._total

    def close(self):
        self._socket.close()


class Counters:
    """Several counters as one."""

    def __init__(self, counters):
        self._counters = list(counters)

    def value(self):
        return sum(counter.value() for counter in self._counters)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for counter in self._counters:
            counter.close()
