"""One end of a paced UDP flow with sequence numbers; traffic.py runs it inside a host's namespace.

    flow.py send ADDRESS PORT FRAMES_PER_SECOND PAYLOAD_BYTES
    flow.py receive ADDRESS PORT

Each prints "ready" when the receiver listens, or the sender begins. Both run until SIGTERM and then
print what they saw, as one JSON object. Times are CLOCK_MONOTONIC seconds, which all namespaces
share.
"""

import json
import signal
import socket
import struct
import sys
import time

SO_RCVBUFFORCE = 33
# How often to check for SIGTERM while nothing arrives.
STOP_CHECK_S = 0.05


# Set by SIGTERM and checked between two frames: an exception could separate a frame and its count.
stopped = False


def stop(*_):
    global stopped
    stopped = True


def udp_socket(address):
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def send(address, port, per_second, payload):
    sender = udp_socket(address)
    sender.connect((address, port))
    padding = bytes(payload - 8)
    departures, refused, next_time = [], 0, time.monotonic()
    print("ready", flush=True)
    while not stopped:
        message = struct.pack("!Q", len(departures)) + padding
        moment = time.monotonic()
        try:
            sender.send(message)
            departures.append(moment)
        except OSError:
            # No neighbour while the switch is down, or an ICMP error: the frame was not sent.
            refused += 1
        next_time += 1 / per_second
        time.sleep(max(0, next_time - time.monotonic()))
    return {"departures": departures, "refused": refused}


def receive(address, port):
    receiver = udp_socket(address)
    receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    receiver.bind((address, port))
    receiver.settimeout(STOP_CHECK_S)
    arrivals = []
    print("ready", flush=True)
    while True:
        try:
            message = receiver.recv(2048)
        except TimeoutError:
            # Stopped, and the socket is empty.
            if stopped:
                return {"arrivals": arrivals}
            continue
        arrivals.append((struct.unpack_from("!Q", message)[0], time.monotonic()))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    role, address, *numbers = sys.argv[1:]
    print(json.dumps({"send": send, "receive": receive}[role](address, *map(int, numbers))))
