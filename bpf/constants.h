/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Numbers of the kernel and of ours that several programs know. */
#pragma once

#define AF_INET 2
#define SOCK_STREAM 1
#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25
#define TCP 6
#define UDP 17
#define MPTCP 262

#define TUNNEL_PORT 18443

/* Nobody can listen there, so the kernel answers ECONNREFUSED, which applications retry, where DENY would say EPERM. */
#define NO_PORT 0

/* What a program on a cgroup returns to let the call, or the packet, go on. */
#define ALLOW 1
