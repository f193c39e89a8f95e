"""Answers streams of streams_client.py as each asks for, and checks every byte that comes.

    python3 streams_server.py --port P [--seed N]

Prints {"event": "listening"}, and at the end of its input what it has seen.
"""

import argparse
import collections
import heapq
import os
import random
import select
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit
from tagged import (
    CHUNK,
    CLIENT_RESET,
    ENDS,
    HEADER,
    KILLED,
    LATE_RESET,
    MAGIC,
    NAMES,
    SERVER_FIRST,
    SERVER_RESET,
    Tagged,
    reset,
    send,
)

LATE_SECONDS = 0.003


class Server:
    def __init__(self, options):
        self.random = random.Random(options.seed)
        self.poll = select.epoll()
        self.conns = {}
        self.late = []
        self.seen = set()
        self.streams = collections.Counter()
        self.faults = collections.Counter()
        self.bytes = 0
        self.listener = socket.create_server(
            ("::", options.port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True
        )
        self.listener.setblocking(False)
        self.poll.register(self.listener, select.EPOLLIN)
        self.poll.register(0, select.EPOLLIN)

    def run(self):
        emit(event="listening")
        while True:
            wait = max(0, self.late[0][0] - time.monotonic()) if self.late else -1
            for descriptor, events in self.poll.poll(wait):
                if descriptor == self.listener.fileno():
                    self.accept()
                elif descriptor == 0:
                    return self.tell()
                elif conn := self.conns.get(descriptor):
                    conn.ready(events)
            while self.late and self.late[0][0] <= time.monotonic():
                conn = heapq.heappop(self.late)[2]
                if conn.sock.fileno() >= 0:
                    conn.close(with_reset=True)

    def accept(self):
        for _ in range(64):
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            self.conns[sock.fileno()] = Conn(self, sock)
            self.poll.register(sock, select.EPOLLIN)

    def tell(self):
        emit(
            event="seen",
            streams={NAMES[how]: count for how, count in sorted(self.streams.items())},
            open=len(self.conns),
            faults=dict(self.faults),
            bytes=self.bytes,
        )


class Conn:
    """One stream: its header, then whatever the client's way of it asks for."""

    def __init__(self, server, sock):
        self.server = server
        self.sock = sock
        self.head = b""
        self.how = None
        self.has_ended = False

    def ready(self, events):
        try:
            if events & select.EPOLLOUT:
                self.answer()
            if events & ~select.EPOLLOUT and self.is_open:
                self.read()
        except OSError:
            self.ended("reset")

    @property
    def is_open(self):
        return self.sock.fileno() in self.server.conns

    def read(self):
        data = self.sock.recv(CHUNK)
        if not data:
            return self.ended("eof")
        self.server.bytes += len(data)
        if self.how is None:
            data = self.begin(data)
        if data and not self.incoming.take(data):
            self.fault("bytes of another stream")

    def begin(self, data):
        """Reads the header, and returns what lies behind it."""
        self.head += data
        if len(self.head) < HEADER.size:
            return b""
        magic, how, number, self.request, self.reply = HEADER.unpack_from(self.head)
        if magic != MAGIC or how >= len(NAMES):
            self.fault("bytes that are no stream's")
            self.close()
            return b""
        self.how = how
        if number in self.server.seen:
            self.fault("a stream that has come before")
        self.server.seen.add(number)
        self.server.streams[how] += 1
        self.incoming = Tagged(b"c", number)
        self.outgoing = Tagged(b"s", number)
        if how not in (ENDS, KILLED):
            self.answer()
        return self.head[HEADER.size :] if self.is_open else b""

    def answer(self):
        if not send(self.sock, self.outgoing, self.reply):
            return self.wait(select.EPOLLOUT)
        if self.how == SERVER_RESET:
            return self.close(with_reset=True)
        if self.how in (ENDS, KILLED):
            return self.close()
        if self.how != CLIENT_RESET:
            self.sock.shutdown(socket.SHUT_WR)
        if self.how == LATE_RESET:
            due = time.monotonic() + self.server.random.random() * LATE_SECONDS
            heapq.heappush(self.server.late, (due, id(self), self))
        self.wait(0)

    def wait(self, more):
        self.server.poll.modify(self.sock, more | (0 if self.has_ended else select.EPOLLIN))

    def ended(self, end):
        """The client has ended, or broken the connection."""
        if self.how is None:
            if self.head:
                self.fault(f"{end} in a header")
            return self.close()
        if self.how == CLIENT_RESET:
            if end == "eof":
                self.fault("a clean end instead of a reset")
        elif self.how in (ENDS, SERVER_FIRST) and (end, self.incoming.count) != ("eof", self.request):
            self.fault(f"{end} before the end")
        if self.how == LATE_RESET:
            return self.forget()  # it closes by itself
        if end == "reset" or self.how not in (ENDS, KILLED):
            return self.close()
        self.has_ended = True
        self.answer()

    def fault(self, what):
        name = "none" if self.how is None else NAMES[self.how]
        self.server.faults[f"{name}: {what}"] += 1

    def forget(self):
        if self.server.conns.pop(self.sock.fileno(), None):
            self.server.poll.unregister(self.sock)

    def close(self, with_reset=False):
        self.forget()
        if with_reset:
            reset(self.sock)
        else:
            self.sock.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    Server(parser.parse_args()).run()


main()
