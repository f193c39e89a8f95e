"""Many connections whose server answers and closes, and whose client reads late. Each side waits for SIGUSR1.

    python3 late.py serve --port P
    python3 late.py dial --host H --port P --sizes N,N,N

The client asks for so many bytes on each connection and ends its side at once. It prints which answers were cut.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from stream import emit

SECONDS_BETWEEN = 0.06

go = threading.Event()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "dial"])
    parser.add_argument("--host")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sizes", default="")
    options = parser.parse_args()
    signal.signal(signal.SIGUSR1, lambda *_: go.set())
    if options.role == "serve":
        serve(options.port)
    else:
        dial(options.host, options.port, [int(size) for size in options.sizes.split(",")])


def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    emit(event="listening")
    number = 0
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=answer, args=(conn, number), daemon=True).start()
        number += 1


def answer(conn, number):
    asked = b""
    while data := conn.recv(100):
        asked += data
    emit(event="asked", number=number)
    go.wait()
    time.sleep(number * SECONDS_BETWEEN)
    emit(event="answers", number=number)
    conn.sendall(bytes(int(asked)))
    conn.close()


def dial(host, port, sizes):
    conns = []
    for size in sizes:
        conn = socket.create_connection((host, port))
        conn.sendall(str(size).encode())
        conn.shutdown(socket.SHUT_WR)
        conns.append(conn)
    # Not go.wait(): the signal's handler runs in this thread, and would have to interrupt it there.
    while not go.is_set():
        time.sleep(0.05)
    cut = []
    for conn, size in zip(conns, sizes):
        count = 0
        try:
            while data := conn.recv(1 << 16):
                count += len(data)
            error = None
        except OSError as caught:
            error = str(caught)
        if count != size or error:
            cut.append({"size": size, "count": count, "error": error})
    emit(event="end", answers=len(sizes), cut=cut)


main()
