"""Streams of which each byte says whose it is: what streams_client.py and streams_server.py agree on."""

import socket
import struct

# How a stream goes and ends.
ENDS = 0  # the client ends, then the server answers and ends
SERVER_FIRST = 1  # the server answers and ends, then the client goes on and ends
CLIENT_RESET = 2  # the client resets in the middle of the answer
SERVER_RESET = 3  # the server resets in the middle of the answer
LATE_RESET = 4  # the server answers and ends, and resets a moment later, whatever the client does then
KILLED = 5  # like ENDS, but by a client that may be killed at any time
NAMES = ["ends", "server-first", "client-reset", "server-reset", "late-reset", "killed"]

HEADER = struct.Struct("!2sBxQII")  # magic, how, id, bytes of the request, bytes of the answer
MAGIC = b"kg"
PERIOD = 16
CHUNK = 1 << 16


class Tagged:
    """One direction of one stream: the same 16 bytes again and again, which no other direction has."""

    def __init__(self, direction, number):
        self._tag = direction + b"%015x" % number
        self.count = 0

    def next(self, length):
        """The next `length` bytes to be sent, of which `advance` tells how many were."""
        start = self.count % PERIOD
        return (self._tag * (length // PERIOD + 2))[start : start + length]

    def advance(self, sent):
        self.count += sent

    def take(self, data):
        """Whether what was received is what follows, and nothing else."""
        is_own = data == self.next(len(data))
        self.count += len(data)
        return is_own


def send(sock, tagged, total):
    """Sends what the socket takes of `total` bytes: whether that was all."""
    while tagged.count < total:
        try:
            tagged.advance(sock.send(tagged.next(min(CHUNK, total - tagged.count))))
        except BlockingIOError:
            return False
    return True


RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()
