"""Good traffic, and how much of it arrives.

Sent and delivered are numbers of frames, counted by the kernel where they leave the sender's
interface and where they arrive at the receiver's; both directions count where there are answers.
"""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import time

from counting import Counters

FLOW = pathlib.Path(__file__).with_name("flow.py")
PYTHON = "/usr/bin/python3"


@dataclasses.dataclass
class Good:
    """The outcome of one flow. The report has these names."""

    name: str
    sent: int
    delivered: int
    rate: str

    @property
    def lost(self):
        return self.sent - self.delivered


@contextlib.contextmanager
def counted(a, b, protocol, answer_s=1):
    """Counts frames between two hosts: yields a function that returns those sent and delivered."""
    ipv6 = protocol.startswith("ip6")
    ends = (a.ipv6, b.ipv6) if ipv6 else (a.ipv4, b.ipv4)
    there = f"{protocol} and src host {ends[0]} and dst host {ends[1]}"
    back = f"{protocol} and src host {ends[1]} and dst host {ends[0]}"
    with Counters([a.leaving(there), b.leaving(back)]) as sent, \
            Counters([b.arriving(there), a.arriving(back)]) as delivered:
        def settled():
            settle(sent.value, delivered.value, 2 * answer_s)
            return sent.value(), delivered.value()
        yield settled


def settle(sent, delivered, patience_s=2):
    """Waits for frames in flight: milliseconds on an idle machine, longer on a busy one."""
    deadline = time.monotonic() + patience_s
    while delivered() < sent() and time.monotonic() < deadline:
        time.sleep(0.01)


def ping(a, b, *, ipv6=False, payload=56, seconds, per_second, answer_s=1):
    """Echo requests and their answers, with "don't fragment"."""
    address = b.ipv6 if ipv6 else b.ipv4
    count = int(seconds * per_second)
    size = payload + (48 if ipv6 else 28)
    protocol = "ip6 proto 58 and (ip6[40] = 128 or ip6[40] = 129)" if ipv6 else "icmp"
    with counted(a, b, protocol, answer_s) as settled:
        done = a.run(["ping", "-q", "-M", "do", "-c", str(count), "-i", str(1 / per_second), "-W",
                      str(answer_s), "-s", str(payload),
                      address], capture_output=True, text=True)
        rtt = done.stdout.rpartition("= ")[2].split("/")
        rate = f"{float(rtt[1]) * 1000:.0f} µs a round" if len(rtt) > 1 else "no answer"
        return Good(f"ping {'v6' if ipv6 else 'v4'}, {size}-byte packets: {a.name} ↔ {b.name}",
                    *settled(), rate)


@contextlib.contextmanager
def iperf3_server(host, address):
    """An iperf3 server for one client."""
    server = host.start(["iperf3", "-s", "-1", "-B", address, "--forceflush"],
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in server.stdout:
            if "listening" in line:
                break
        yield server
    finally:
        server.terminate()
        server.communicate()


def iperf3_client(host, address, seconds, *options):
    """The final report of iperf3's client; empty if it could not run."""
    done = host.run(["iperf3", "-c", address, "-t", f"{max(1, round(seconds))}", "--json",
                     *options],
                    capture_output=True, text=True)
    try:
        return json.loads(done.stdout).get("end", {})
    except json.JSONDecodeError:
        return {}


def iperf3(a, b, *, udp=False, ipv6=False, seconds, bits):
    """iperf3 from a to b, at a rate in bits per second at which every frame must arrive."""
    address = b.ipv6 if ipv6 else b.ipv4
    protocol = f"ip6 proto {17 if udp else 6}" if ipv6 else ("udp" if udp else "tcp")
    with iperf3_server(b, address) as server, counted(a, b, protocol) as settled:
        # 1400 bytes and the headers of either IP fit the MTU.
        end = iperf3_client(a, address, seconds, "-b", str(bits),
                            *(["-u", "-l", "1400"] if udp else []))
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
        received = end.get("sum" if udp else "sum_received", {}).get("bits_per_second", 0)
        name = f"iperf3 {'UDP' if udp else 'TCP'} {'v6' if ipv6 else 'v4'}: {a.name} → {b.name}"
        return Good(name, *settled(), f"{received / 1e6:.0f} Mbit/s")


@dataclasses.dataclass
class Speed:
    """The rate of one stream. The report has these names."""

    name: str
    bits_per_second: int


def speed(a, b, *, seconds):
    """One TCP stream as fast as it goes: TCP loses frames to find its rate, so none are
    compared."""
    with iperf3_server(b, b.ipv4):
        received = iperf3_client(a, b.ipv4, seconds).get("sum_received", {}).get("bits_per_second",
                                                                                 0)
    return Speed(f"one TCP stream as fast as it goes: {a.name} → {b.name}", round(received))


class Flow:
    """A UDP flow that runs until it is stopped; each datagram has a sequence number."""

    def __init__(self, a, b, *, ipv6=False, port, per_second, payload):
        self.name = f"UDP {'v6' if ipv6 else 'v4'}, {payload} bytes: {a.name} → {b.name}"
        self._to, self._port, self._per_second = b, port, per_second
        address = b.ipv6 if ipv6 else b.ipv4
        self._arrived = self.arriving()
        pipe = {"stdout": subprocess.PIPE, "text": True}
        self._receiver = b.start([PYTHON, FLOW, "receive", address, str(port)], **pipe)
        if self._receiver.stdout.readline() != "ready\n":
            raise RuntimeError(f"{b.name} cannot listen on {address} port {port}")
        self._sender = a.start([PYTHON, FLOW, "send", address, str(port), str(per_second),
                                str(payload)], **pipe)
        # On a busy machine the start takes seconds; stopped before it handles signals, the sender
        # could not report its count.
        if self._sender.stdout.readline() != "ready\n":
            raise RuntimeError(f"{a.name} cannot send to {address} port {port}")
        self.departures, self.arrivals = [], []

    def stop(self, whole=True):
        """Ends the flow; its outcome. Waiting for missing frames makes sense only for a flow that
        should be `whole`."""
        self._sender.terminate()
        self.departures = json.loads(self._sender.communicate()[0])["departures"]
        sent = len(self.departures)
        if whole:
            settle(lambda: sent, self._arrived.value)
        self._arrived.close()
        time.sleep(0.1)
        self._receiver.terminate()
        self.arrivals = json.loads(self._receiver.communicate()[0])["arrivals"]
        delivered = len({number for number, _ in self.arrivals})
        return Good(self.name, sent, delivered, f"{self._per_second} frames/s")

    def abandon(self):
        for process in (self._sender, self._receiver):
            if process.poll() is None:
                process.kill()
                process.communicate()

    def arriving(self):
        """Counts the flow's frames at the receiver."""
        return self._to.arriving(f"udp dst port {self._port}")

    def passed(self, begin, end):
        """The number of frames that were sent after `begin` and arrived before `end`."""
        return sum(self.departures[number] > begin and moment < end for number,
                   moment in self.arrivals)

    def silence(self, moment):
        """Seconds without an arrival around a moment; None if there was none after it."""
        before = max((time for _, time in self.arrivals if time <= moment), default=moment)
        after = min((time for _, time in self.arrivals if time > moment), default=None)
        return None if after is None else after - before


@contextlib.contextmanager
def running(flows):
    """Stops the flows at the end of the block, also after an exception."""
    try:
        yield flows
    finally:
        for flow in flows:
            flow.abandon()


def all_good(pairs, seconds, pace):
    """Every kind of traffic, between every pair."""
    port = 5300
    for a, b in pairs:
        pings = {"seconds": seconds, "per_second": pace.pings_per_second}
        yield ping(a, b, **pings)
        yield ping(a, b, ipv6=True, **pings)
        yield ping(a, b, payload=1472, **pings)
        yield ping(a, b, ipv6=True, payload=1452, **pings)
        yield iperf3(a, b, seconds=seconds, bits=pace.tcp_bits)
        yield iperf3(a, b, ipv6=True, seconds=seconds, bits=pace.tcp_bits)
        yield iperf3(a, b, udp=True, seconds=seconds, bits=pace.udp_bits)
        flow = Flow(a, b, port=port, per_second=pace.burst_per_second, payload=48)
        flow.name = f"DNS-sized UDP: {a.name} → {b.name}"
        with running([flow]):
            time.sleep(seconds)
            yield flow.stop()
