"""Tries to share ports with whoever listens there (SO_REUSEPORT), at each ADDRESS/PORT that is given.

Prints a JSON object for each: whether that went. With --uid, as each of these users one after the other.
"""

import argparse
import json
import os
import socket
import sys
import time

SO_REUSEPORT = 15


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("places", nargs="+", metavar="ADDRESS/PORT")
    parser.add_argument("--uid", type=int, action="append", default=[])
    parser.add_argument("--hold", action="store_true", help="keep the first one, as soon as it is free, and tell of each connection there")
    options = parser.parse_args()
    if options.hold:
        return hold(*options.places[0].rsplit("/", 1))
    for uid in options.uid or [os.getuid()]:
        os.setresuid(-1, uid, -1)
        for place in options.places:
            address, port = place.rsplit("/", 1)
            print(json.dumps({"event": "join", "uid": uid, "place": place, "end": join(address, int(port))}))
            sys.stdout.flush()
        os.setresuid(-1, 0, -1)


def hold(address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        print(json.dumps({"event": "waiting"}), flush=True)
        while True:
            try:
                sock.bind((address, int(port)))
                break
            except OSError:
                time.sleep(0.001)
        sock.listen(64)
        print(json.dumps({"event": "listening"}), flush=True)
        while True:
            taken = sock.accept()[0]
            taken.settimeout(1)
            print(json.dumps({"event": "stolen", "text": taken.recv(100).decode(errors="replace")}), flush=True)


def join(address, port):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_REUSEPORT, 1)
        try:
            sock.bind((address, port))
            sock.listen(16)
        except OSError as error:
            return os.strerror(error.errno)
        return "joined"


main()
