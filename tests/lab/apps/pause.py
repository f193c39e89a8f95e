"""Two sides of one connection, of which each sends all it has and rests before it reads.

    python3 pause.py serve --port P --bytes N --seconds S
    python3 pause.py dial --host H --port P --bytes N --seconds S

Prints how much has gone shortly before it reads, how much has come when the other side has ended, and what has failed.
"""

import argparse
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "dial"])
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    if options.role == "dial":
        conn = socket.create_connection((options.host, options.port))
        conn.settimeout(None)
    else:
        listener = socket.create_server(("::", options.port), family=socket.AF_INET6, dualstack_ipv6=True)
        emit(event="listening")
        conn, _ = listener.accept()
    sender = Sender(conn, options.bytes)
    sender.start()
    # Not when it reads: the other side may have begun a little earlier, and have taken everything by then.
    time.sleep(options.seconds * 0.9)
    emit(event="rests", sent=sender.sent)
    time.sleep(options.seconds * 0.1)
    count = 0
    try:
        while data := conn.recv(1 << 20):
            count += len(data)
    except OSError as error:
        emit(event="failed", reading=str(error), bytes=count)
    sender.join()
    emit(event="end", bytes=count)


class Sender(threading.Thread):
    def __init__(self, conn, count):
        super().__init__()
        self.conn = conn
        self.count = count
        self.sent = 0

    def run(self):
        block = memoryview(bytes(1 << 20))
        try:
            while self.sent < self.count:
                self.sent += self.conn.send(block[: self.count - self.sent])
            self.conn.shutdown(socket.SHUT_WR)
        except OSError as error:
            emit(event="failed", sending=str(error), sent=self.sent)


main()
