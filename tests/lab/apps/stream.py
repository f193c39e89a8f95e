"""What both programs share: events, pseudo-random streams, and what a socket says about its ends."""

import errno
import hashlib
import json
import random
import socket
import struct
import sys
import threading

BLOCK = 1 << 20
SEED = 7
SO_PEERNAME = 28  # asm-generic/socket.h; Python has no name for it

_print_lock = threading.Lock()


def emit(**event):
    line = json.dumps(event) + "\n"
    with _print_lock:
        sys.stdout.write(line)
        sys.stdout.flush()


def blocks(seed, count):
    """`count` pseudo-random bytes. One block is made, then varied: cheaper than the network."""
    base = random.Random(seed).randbytes(BLOCK)
    number = 0
    while count > 0:
        turn = number * 7919 % BLOCK
        block = number.to_bytes(8, "big") + base[turn + 8 :] + base[:turn]
        yield block[:count] if count < len(block) else block
        count -= min(count, len(block))
        number += 1


def send_stream(sock, seed, count):
    """Sends the stream and returns its SHA-256."""
    digest = hashlib.sha256()
    for block in blocks(seed, count):
        sock.sendall(block)
        digest.update(block)
    return digest.hexdigest()


class Received:
    """Counts and hashes what comes until EOF; keeps the first bytes to show them."""

    def __init__(self):
        self.count = 0
        self.head = b""
        self._digest = hashlib.sha256()

    def read_to_end(self, sock):
        while data := sock.recv(1 << 18):
            self.count += len(data)
            self._digest.update(data)
            if len(self.head) < 1024:
                self.head += data[: 1024 - len(self.head)]
        return self

    @property
    def sha256(self):
        return self._digest.hexdigest()


def duplex(sock, seed, count):
    """Sends a stream and receives to EOF at the same time; the last byte sent ends our side."""
    result = {"sent": count}
    failure = []

    def send():
        try:
            result["sentSha256"] = send_stream(sock, seed, count)
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            failure.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    received = Received().read_to_end(sock)
    sender.join()
    if failure:
        raise failure[0]
    return {**result, "received": received.count, "receivedSha256": received.sha256}


def reset(sock):
    """Closes with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def error_name(error):
    if isinstance(error, TimeoutError) and error.errno is None:
        return "timeout"
    return errno.errorcode.get(error.errno, type(error).__name__)


def end_of(sock):
    """[address, port] of getpeername() and getsockname(), and what SO_PEERNAME says."""
    is_ipv6 = sock.family == socket.AF_INET6
    # The kernel refuses a length beyond sizeof(struct sockaddr_in or sockaddr_in6).
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERNAME, 28 if is_ipv6 else 16)
    port = struct.unpack_from("!H", raw, 2)[0]
    address = raw[8:24] if is_ipv6 else raw[4:8]
    return {
        "getpeername": list(sock.getpeername()[:2]),
        "getsockname": list(sock.getsockname()[:2]),
        "soPeername": [socket.inet_ntop(sock.family, address), port],
    }
