"""Many connections at once, of which one side is fast and the other slow.

    python3 crowd.py read --port P [--rate BYTES_PER_SECOND]
    python3 crowd.py send --host H --port P --connections N

The reader takes that much from each connection; the sender sends as much as each takes. Both print a line
every second: connections, and bytes so far.
"""

import argparse
import os
import resource
import select
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit

TICKS = 10  # of the reader, a second
BLOCK = bytes(1 << 16)


class Teller:
    """Prints what has happened, once a second."""

    def __init__(self):
        self.bytes = self.broken = 0
        self.due = time.monotonic() + 1

    def tell(self, connections):
        if time.monotonic() >= self.due:
            self.due += 1
            emit(event="second", connections=connections, bytes=self.bytes, broken=self.broken)


def read(options):
    listener = socket.create_server(("::", options.port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    listener.setblocking(False)
    emit(event="listening")
    socks, teller = [], Teller()
    while True:
        due = time.monotonic() + 1 / TICKS
        try:
            while True:
                socks.append(listener.accept()[0])
                socks[-1].setblocking(False)
        except BlockingIOError:
            pass
        for sock in socks:
            try:
                teller.bytes += len(sock.recv(options.rate // TICKS))
            except BlockingIOError:
                pass
            except OSError:
                teller.broken += 1
        teller.tell(len(socks))
        time.sleep(max(0, due - time.monotonic()))


def send(options):
    poll, socks, teller = select.epoll(), {}, Teller()
    for _ in range(options.connections):
        sock = socket.create_connection((options.host, options.port))
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        poll.register(sock, select.EPOLLOUT)
    while socks:
        for descriptor, _ in poll.poll(0.2):
            try:
                teller.bytes += socks[descriptor].send(BLOCK)
            except BlockingIOError:
                pass
            except OSError:
                teller.broken += 1
                poll.unregister(descriptor)
                socks.pop(descriptor).close()
        teller.tell(len(socks))


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["read", "send"])
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--rate", type=int, default=10_000)
    options = parser.parse_args()
    (read if options.role == "read" else send)(options)


main()
