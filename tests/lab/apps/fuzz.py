"""Sends a tunnel port whatever comes to mind, before and inside of TLS, the same for the same seed.

    python3 fuzz.py --host H --port P --attempts N --seed N [--certificate F --key F --open HEX] [--hold]

With a certificate each attempt is a good handshake and then nonsense, else nonsense from the first byte. --hold
keeps all connections open, unfinished, until its input ends.
"""

import collections
import os
import random
import socket
import ssl
import sys

sys.path.insert(0, os.path.dirname(__file__))
from intruder import arguments, client_hello, context, open_many
from stream import emit, error_name, reset


def main():
    open_many()
    parser = arguments()
    parser.add_argument("--attempts", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--open", default="", help="a good OPEN frame")
    parser.add_argument("--hold", action="store_true")
    options = parser.parse_args()
    tls = context(options)
    good = client_hello(tls)
    ends, held = collections.Counter(), []
    for number in range(options.attempts):
        rand = random.Random(options.seed * 1_000_000 + number)
        try:
            sock = socket.create_connection((options.host, options.port), timeout=15)
            if options.certificate:
                sock = tls.wrap_socket(sock)
                inside(sock, rand, bytes.fromhex(options.open), options.hold)
            else:
                outside(sock, rand, good, options.hold)
            if options.hold:
                held.append(sock)
                ends["held"] += 1
            else:
                ends[finish(sock, rand)] += 1
        except ssl.SSLError as error:
            ends[error.reason or str(error)] += 1
        except OSError as error:
            ends[error_name(error)] += 1
    emit(event="attempts", ends=dict(ends))
    if options.hold:
        sys.stdin.read()


def outside(sock, rand, hello, unfinished):
    """Noise, a ClientHello with something wrong, or a part of one."""
    if unfinished:
        return sock.sendall(hello[: rand.randrange(6, len(hello))])
    kind = rand.randrange(4)
    if kind == 0:
        data = rand.randbytes(rand.randrange(2000))
    elif kind == 1:  # a record's header, and then noise
        length = rand.randrange(1 << 16)
        data = bytes([rand.choice([20, 21, 22, 23]), 3, rand.randrange(5)]) + length.to_bytes(2, "big")
        data += rand.randbytes(min(length, 4000))
    elif kind == 2:
        data = mutated(hello, rand)
    else:
        data = hello[: rand.randrange(len(hello))]
    in_pieces(sock.sendall, data, rand)


def inside(sock, rand, good, unfinished):
    """Frames with something wrong, in records of any size; or records that nobody has encrypted."""
    if unfinished:
        return sock.sendall(good[: rand.randrange(1, len(good))])
    kind = rand.randrange(5)
    if kind == 0:
        return os.write(sock.fileno(), b"\x17\x03\x03" + rand.randbytes(rand.randrange(2, 3000)))
    data = good if kind > 1 else b""
    if kind == 2:  # a stream that begins as it should
        sock.sendall(data)
        data = sock.recv(64)[:0]
    data += b"".join(frame(rand) for _ in range(rand.randrange(6)))
    if kind == 4:  # the OPEN too
        data = mutated(data, rand)
    in_pieces(sock.sendall, data, rand)


def frame(rand):
    kind = rand.randrange(8)
    length = {1: 38, 3: 2, 4: rand.choice([1, 100, 16380])}.get(kind, 0)
    if rand.randrange(4) == 0:
        length = rand.randrange(1 << rand.randrange(1, 15))
    return bytes([kind, rand.randrange(8) == 0]) + length.to_bytes(2, "big") + rand.randbytes(length)


def mutated(data, rand):
    data = bytearray(data)
    for _ in range(rand.randrange(1, 5)):
        at = rand.randrange(len(data))
        how = rand.randrange(4)
        if how == 0:
            data[at] = rand.randrange(256)
        elif how == 1:
            data[at] ^= 1 << rand.randrange(8)
        elif how == 2:
            data[at:at] = rand.randbytes(rand.randrange(1, 20))
        else:
            del data[at : at + rand.randrange(1, 20)]
        data = data or bytearray(1)
    return bytes(data)


def in_pieces(sendall, data, rand):
    while data:
        length = rand.choice([1, 5, 100, 1 << 16])
        sendall(data[:length])
        data = data[length:]
        if length == 1 and rand.randrange(3) == 0:
            return sendall(data) if data else None


def finish(sock, rand):
    """Resets, closes, or ends and waits for the other side to do so."""
    how = rand.randrange(3)
    if how == 0:
        reset(sock)
        return "reset"
    if how == 1:
        sock.close()
        return "closed"
    socket.socket.shutdown(sock, socket.SHUT_WR)
    while sock.recv(65536):
        pass
    sock.close()
    return "eof"


main()
