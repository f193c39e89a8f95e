"""
For neighbour_test.ts: connections that no listener knows of (SYN cookies), and who takes them.

    cookies.py flood ADDRESS PORT SECONDS    keeps the listener's queue full, so that it answers others by cookies
    cookies.py victim ADDRESS PORT SECONDS   many connections at once, each of which says "secret" when it is connected
    cookies.py thief ADDRESS PORT SECONDS    takes the port as soon as it is free, and says what it is sent there
"""
import json
import selectors
import socket
import struct
import sys
import time

TCP_DEFER_ACCEPT = 9


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def late(address, port):
    """A connection that does not answer the SYN-ACK for a while: it stays in the listener's queue."""
    s = socket.socket()
    s.setblocking(False)
    s.setsockopt(socket.IPPROTO_TCP, TCP_DEFER_ACCEPT, 30)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.connect_ex((address, port))
    return s


def flood(address, port, end):
    held = [late(address, port) for _ in range(100)]
    say("flooding")
    while time.monotonic() < end:
        for i in range(len(held)):
            held[i].close()
            held[i] = late(address, port)
    say("ended")


def victim(address, port, end):
    ready = selectors.DefaultSelector()
    since = {}
    while time.monotonic() < end:
        while len(since) < 100:
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex((address, port))
            ready.register(s, selectors.EVENT_WRITE)
            since[s] = time.monotonic()
        for key, _ in ready.select(0.05):
            s = key.fileobj
            try:
                if key.events == selectors.EVENT_WRITE:
                    s.send(b"secret")
                    ready.modify(s, selectors.EVENT_READ)
                    continue
                s.recv(100)
            except OSError:
                pass
            ready.unregister(s)
            s.close()
            del since[s]
        for s in [s for s, began in since.items() if time.monotonic() - began > 6]:
            ready.unregister(s)
            s.close()
            del since[s]
    say("ended")


def thief(address, port, end):
    while True:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
            break
        except OSError:
            s.close()
    # A queue of its own that has overflowed lately: it takes cookies, which are the node's.
    s.listen(1)
    own = [late(address, port) for _ in range(8)]
    say("listening")
    time.sleep(0.002)
    for one in own:
        one.close()
    s.listen(4096)
    s.settimeout(0.2)
    while time.monotonic() < end:
        try:
            one, peer = s.accept()
            one.settimeout(0.5)
            text = one.recv(100).decode()
            if text:
                say("stolen", text=text, peer=peer)
        except OSError:
            pass
    say("ended")


role, address, port, seconds = sys.argv[1:]
{"flood": flood, "victim": victim, "thief": thief}[role](address, int(port), time.monotonic() + float(seconds))
