"""Sends in clear to many addresses, past connect(): to each a TCP segment and a datagram, nobody answers.

    python3 scatter.py --prefix 10.200 --count N --port P --text TEXT

The addresses are PREFIX.0.0, PREFIX.0.1 and so on. Needs CAP_NET_RAW, which many runtimes give.
"""

import argparse
import json
import socket
import struct


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--text", required=True)
    options = parser.parse_args()
    text = options.text.encode()
    # Data of a connection that there is not: the checksum is of no interest.
    segment = struct.pack("!HHIIBBHHH", 40000, options.port, 1, 1, 5 << 4, 0x18, 1000, 0, 0) + text
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(options.count):
        host = f"{options.prefix}.{number >> 8}.{number & 255}"
        raw.sendto(segment, (host, 0))
        udp.sendto(text, (host, options.port))
    print(json.dumps({"event": "scattered", "count": options.count}), flush=True)


main()
