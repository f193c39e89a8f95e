"""Two sides of one connection, of which each sends all it has and rests before it reads.

    python3 pause.py serve --port P --bytes N --seconds S
    python3 pause.py dial --host H --port P --bytes N --seconds S

Prints how much has come when the other side has ended.
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
    sender = threading.Thread(target=send, args=(conn, options.bytes))
    sender.start()
    time.sleep(options.seconds)
    emit(event="reads", waiting=sender.is_alive())
    count = 0
    while data := conn.recv(1 << 20):
        count += len(data)
    sender.join()
    emit(event="end", bytes=count)


def send(conn, count):
    conn.sendall(bytes(count))
    conn.shutdown(socket.SHUT_WR)


main()
