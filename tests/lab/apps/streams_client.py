"""Opens streams that end in every way there is, and checks every byte that comes back.

    python3 streams_client.py --host H... --port P --first N --streams N [--concurrency N] [--seed N] [--killed]

Each stream has a number of its own, from --first on. Prints what became of them; with --killed a line for
each stream that is complete, so that whoever kills the program knows that it is at work.
"""

import argparse
import collections
import os
import random
import select
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit, error_name
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

# Of a thousand streams: most end cleanly, since only their tunnels are used again.
WAYS = [CLIENT_RESET] * 15 + [SERVER_RESET] * 15 + [LATE_RESET] * 30 + [SERVER_FIRST] * 300
WAYS += [ENDS] * (1000 - len(WAYS))

SILENCE_SECONDS = 20


class Client:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.poll = select.epoll()
        self.conns = {}
        self.next = options.first
        self.ends = collections.Counter()
        self.faults = collections.Counter()
        self.bytes = 0

    def run(self):
        started = time.monotonic()
        last = self.options.first + self.options.streams
        while self.next < last or self.conns:
            while self.next < last and len(self.conns) < self.options.concurrency:
                self.open(self.next)
                self.next += 1
            events = self.poll.poll(SILENCE_SECONDS)
            for descriptor, bits in events:
                if conn := self.conns.get(descriptor):
                    conn.ready(bits)
            if not events:
                for conn in list(self.conns.values()):
                    conn.stuck()
        emit(
            event="streams",
            ends={NAMES[how]: count for how, count in sorted(self.ends.items())},
            faults=dict(self.faults),
            bytes=self.bytes,
            seconds=time.monotonic() - started,
        )

    def open(self, number):
        how = KILLED if self.options.killed else self.random.choice(WAYS)
        host = self.options.host[number % len(self.options.host)]
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.connect((host, self.options.port))
        sock.setblocking(False)
        conn = Conn(self, sock, how, number)
        self.conns[sock.fileno()] = conn
        self.poll.register(sock, select.EPOLLIN)
        conn.begin()

    def size(self):
        """Often nothing at all or a little, now and then more than all buffers on the way hold."""
        kind = self.random.randrange(200)
        if kind == 0 or self.options.killed:
            return self.random.randrange(200_000)
        return 0 if kind < 20 else int(2 ** (self.random.random() * 13))


class Conn:
    def __init__(self, client, sock, how, number):
        self.client = client
        self.sock = sock
        self.how = how
        self.request = client.size()
        self.reply = client.size() + (1 if how == CLIENT_RESET else 0)
        self.number = number
        self.outgoing = Tagged(b"c", number)
        self.incoming = Tagged(b"s", number)
        self.server_ended = False

    def begin(self):
        header = HEADER.pack(MAGIC, self.how, self.number, self.request, self.reply)
        try:
            self.sock.send(header)
            if self.how != SERVER_FIRST:
                self.send()
        except OSError as error:
            self.broken(error)

    def ready(self, events):
        try:
            if events & select.EPOLLOUT:
                self.send()
            if events & ~select.EPOLLOUT and self.sock.fileno() in self.client.conns:
                self.read()
        except OSError as error:
            self.broken(error)

    def send(self):
        """Sends the request and then, where the client is to end, ends."""
        reading = 0 if self.server_ended else select.EPOLLIN
        if not send(self.sock, self.outgoing, self.request):
            return self.client.poll.modify(self.sock, reading | select.EPOLLOUT)
        if self.server_ended:
            return self.done()
        if self.how in (ENDS, KILLED):
            self.sock.shutdown(socket.SHUT_WR)
        self.client.poll.modify(self.sock, reading)

    def read(self):
        data = self.sock.recv(CHUNK)
        if not data:
            return self.ended()
        self.client.bytes += len(data)
        if not self.incoming.take(data):
            self.fault("bytes of another stream")
        if self.how == CLIENT_RESET:
            self.done(with_reset=True)

    def ended(self):
        """The server has ended."""
        if self.how == SERVER_RESET:
            self.fault("a clean end instead of a reset")
        elif self.incoming.count != self.reply:
            self.fault("an end before the end")
        self.server_ended = True
        if self.how in (SERVER_FIRST, LATE_RESET):
            return self.send()
        self.done()

    def broken(self, error):
        if self.how not in (SERVER_RESET, LATE_RESET):
            self.fault(error_name(error))
        self.done()

    def stuck(self):
        self.fault(f"stuck after {self.outgoing.count} of {self.request} and {self.incoming.count} of {self.reply}")
        self.done()

    def fault(self, what):
        self.client.faults[f"{NAMES[self.how]}: {what}"] += 1

    def done(self, with_reset=False):
        self.client.ends[self.how] += 1
        del self.client.conns[self.sock.fileno()]
        self.client.poll.unregister(self.sock)
        if with_reset:
            reset(self.sock)
        else:
            self.sock.close()
        if self.client.options.killed:
            emit(event="complete", stream=self.number)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", action="append", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--killed", action="store_true")
    Client(parser.parse_args()).run()


main()
