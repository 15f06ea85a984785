"""All flows of a chaos run, in one process: steady UDP in both directions, each frame numbered.

    sender.py < FLOWS     the first line is a JSON list of flows; each further line is a question

A flow is {"name", "ends": [[netns, address], [netns, address]], "per_second"}. The sockets are in
the namespaces; they outlive the interfaces there. Each question is a word, and each answer one JSON
object by flow:

    whole   seconds since which no frame is missing; null if the newest ones are
    cut     the account of every frame since the last cut; see accounting.py

The process ends with its input.
"""

import dataclasses
import json
import os
import selectors
import socket
import struct
import sys
import time

from accounting import Ledger
from counting import inside

PORT = 5600
PAYLOAD = 200
HEADER = struct.Struct("!4sHQ")
MAGIC = b"chao"
SO_RCVBUFFORCE = 33
IP_FREEBIND, IPV6_FREEBIND = 15, 78
# How late a frame may arrive that is not missing: longer than any pause of a busy machine's
# scheduler, shorter than any outage of interest.
GRACE_S = 0.3
# For frames in flight at a cut. A busy machine takes its time.
SETTLE_S = 2


class Flow:
    """Numbered datagrams from one socket to another."""

    def __init__(self, index, flow, sockets):
        (netns, source), (_, self._to) = flow["ends"]
        self.name = flow["name"]
        self.ledger = Ledger()
        self._index, self._from = index, sockets[netns, source]
        self._padding = bytes(PAYLOAD - HEADER.size)

    def send(self, now):
        number = self.ledger.send(now)
        message = HEADER.pack(MAGIC, self._index, number) + self._padding
        try:
            self._from.sendto(message, (self._to, PORT))
        except OSError:
            # No route, no address or no interface.
            self.ledger.refuse(number)


def bound(netns, address):
    """A socket in the namespace, also if the address is not there yet."""
    ipv6 = ":" in address
    with inside(netns):
        end = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    end.setsockopt(*((socket.IPPROTO_IPV6, IPV6_FREEBIND) if ipv6
                     else (socket.IPPROTO_IP, IP_FREEBIND)), 1)
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    end.setblocking(False)
    end.bind((address, PORT))
    return end


class Sender:
    """The loop: sends what is due, receives what is there, answers what is asked."""

    def __init__(self, flows):
        ends = {tuple(end) for flow in flows for end in flow["ends"]}
        sockets = {end: bound(*end) for end in sorted(ends)}
        self._flows = [Flow(index, flow, sockets) for index, flow in enumerate(flows)]
        self._every_s = 1 / flows[0]["per_second"]
        self._ready = selectors.DefaultSelector()
        for end in sockets.values():
            self._ready.register(end, selectors.EVENT_READ, self._receive)
        os.set_blocking(0, False)
        self._ready.register(0, selectors.EVENT_READ, self._asked)
        self._input = b""
        self._ended = False
        # The cut that waits for frames in flight: the marks, and until when.
        self._cut = None

    def run(self):
        due = time.monotonic()
        while not self._ended:
            now = time.monotonic()
            if now >= due:
                for flow in self._flows:
                    flow.send(time.monotonic())
                # A burst for what was missed would fill queues.
                due = max(due + self._every_s, now)
            for key, _ in self._ready.select(max(0, due - time.monotonic())):
                key.data(key.fileobj)
            self._finish_cut()

    def _receive(self, end):
        for _ in range(64):
            try:
                message = end.recv(2048)
            except OSError:
                return
            if len(message) >= HEADER.size:
                magic, index, number = HEADER.unpack_from(message)
                if magic == MAGIC and index < len(self._flows):
                    self._flows[index].ledger.arrive(number)

    def _asked(self, _):
        try:
            read = os.read(0, 4096)
        except BlockingIOError:
            return
        self._ended = not read
        self._input += read
        *questions, self._input = self._input.split(b"\n")
        for question in questions:
            if question == b"whole":
                now = time.monotonic()
                answer({flow.name: seconds(flow.ledger.whole_since(now, GRACE_S), now)
                        for flow in self._flows})
            elif question == b"cut":
                self._cut = ([(flow, flow.ledger.mark()) for flow in self._flows],
                             time.monotonic() + SETTLE_S)

    def _finish_cut(self):
        if self._cut is None:
            return
        marks, until = self._cut
        if time.monotonic() > until or all(flow.ledger.is_settled(mark) for flow, mark in marks):
            self._cut = None
            answer({flow.name: dataclasses.asdict(flow.ledger.cut(mark)) for flow, mark in marks})


def seconds(since, now):
    """JSON has no infinity."""
    return None if since is None else min(now - since, 1e9)


def answer(document):
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    # Unbuffered: what follows the first line is read from the descriptor.
    first = b""
    while not first.endswith(b"\n"):
        first += os.read(0, 1)
    sender = Sender(json.loads(first))
    answer({})
    sender.run()
