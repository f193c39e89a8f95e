/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The layouts and maps that the programs share with the agent. Their TypeScript twins are in
 * src/kernel/maps.ts; src/kernel/maps_test.ts compares the two through this object's BTF.
 *
 * Addresses are always 16 bytes in network byte order; IPv4 is held as ::ffff:a.b.c.d, so one key serves
 * both families. Ports are in network byte order. Padding is explicit and zero: hash maps compare keys as
 * raw bytes.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct address {
	__be32 words[4];
};

/* An address and a port, as an application wrote them or as it should see them. */
struct endpoint {
	struct address address;
	__be16 port;
	__u16 padding;
};

/* One end of a TCP connection in one network namespace. The cookie is the kernel's 64-bit name of the
 * namespace: never reused while the node runs, unlike its inode number. */
struct socket_key {
	__u64 netns_cookie;
	struct endpoint endpoint;
	__u32 padding;
};

/* An enrolled pod of this node. */
struct pod {
	struct address own[2]; /* its IPv4 and its IPv6 address; zero where it has none */
	__be16 outbound_port;  /* of the outbound listener on the pod's loopback */
	__u16 padding;
};

/* Where an application wanted to go before connect() was redirected. */
struct dialled {
	struct endpoint destination;
	__u16 ipv4;    /* 1: redirected to 127.0.0.1, 0: to ::1 */
	__u16 arrived; /* 1: the relay's end of the connection is there (dial.h) */
};

/* A connection from the inbound relay to an application. */
struct origin {
	struct endpoint client;	     /* whose it really is */
	struct endpoint application; /* where it goes: nothing else that comes from there is this client's */
};

/* What the registry says of the pod behind a peer's address. */
struct peer {
	__u32 identity;   /* key of `identities` */
	__u32 generation; /* never the same for two pods that had the address one after the other */
	__u16 ready;	  /* 1: its node's agent can serve it, 0: the relays wait a little for that */
	__u16 slice;	  /* key of `slices`, 0: none */
};

/* A slice of the registry, as "node/namespace/name", zero-padded: 63 + 1 + 12 + 1 + 253 bytes at most, and one zero. */
struct slice {
	char text[336];
};

/* A SPIFFE ID, zero-padded: 9 + 255 + 4 + 63 + 4 + 253 bytes at most, and one zero. */
struct identity {
	char text[592];
};

/* A Service's address and port: which set of `backends` its connections are spread over. */
struct frontend {
	__u32 set;
	__u32 count;	/* of backends in the set, numbered from 0 */
	__u32 affinity; /* seconds for which a client stays with its backend; 0: it need not */
};

struct backend_key {
	__u32 set;
	__u32 index;
};

/* The backend that a client of a sticky Service was given. */
struct affinity {
	struct endpoint backend;
	__u32 padding;
	__u64 used; /* milliseconds since 1970 */
};

/* An address range as LPM tries want it; IPv4's prefixes are 96 bits longer. */
struct range {
	__u32 prefix_length;
	struct address address;
};

#define MAX_RULE_PORTS 16

/* A range in which there may be peers that nobody knows. */
struct refusal {
	__u32 by_rules; /* 1: what `egress_rules` allows there may be connected in clear all the same */
};

/* What outlives an agent of what it knows. */
struct routing_state {
	__u32 known; /* 1: since these maps were made, an agent has read everything once */
};

/* What a pod with strict egress may connect to in a range inside the cluster. */
struct egress_rule {
	__u16 every_port; /* 1: all of them */
	__u16 count;
	__be16 ports[MAX_RULE_PORTS];
};

/* Why a connect() was refused. src/kernel/refusals.ts has the same numbers. */
enum refusal_reason {
	REFUSED_UNDECIDED = 1, /* by hold: the agent has not decided on the pod */
	REFUSED_NAMESPACE = 2, /* no listener in the process's namespace: the pod is held, or that namespace is not the pod's */
	REFUSED_SOCKET = 3,    /* what was dialled could not be noted at the socket */
	REFUSED_EGRESS = 4,    /* strict egress: it would have gone in clear to somewhere inside the cluster */
	REFUSED_RANGE = 5,     /* there may be a peer that nobody knows */
	REFUSED_INBOUND = 6,   /* strict inbound, on the pod's device: an answer to a connection that met no tunnel */
	/* Not refused, but what strict egress and strict inbound would have refused: */
	DRY_RUN_EGRESS = 7,
	DRY_RUN_INBOUND = 8,
};

struct refusal_key {
	__u64 cgroup; /* the pod's; 0: any that the agent has not decided on */
	__u32 reason;
	__u32 padding;
};

/* How often, and what of the last time. */
struct refusals {
	__u64 count;
	__u64 netns_cookie;
	__u64 at;		     /* nanoseconds since the machine started */
	struct endpoint destination; /* as the process wrote it */
	__u32 process;		     /* its ID, as the node sees it */
};

/* Who sent to a peer outside the tunnel. */
struct guard_key {
	__u64 pod;	     /* its cgroup's ID */
	struct address peer; /* zero: those that have no count of their own */
	__u32 protocol;	     /* TCP or UDP */
	__u32 padding;
};

/* Which of the guards has seen a packet: both may have seen the same. */
enum guard_place { AT_CGROUP = 0, AT_DEVICE = 1 };

struct guard_traffic {
	__u64 packets; /* as the kernel hands them on: one may be 64 KiB */
	__u64 bytes;   /* from the IP header on */
	__u64 payload; /* bytes behind the TCP or UDP header: none in what opens, acknowledges or ends a connection */
	__u64 dropped; /* how many of the packets went no further */
};

struct guard_count {
	struct guard_traffic seen[2]; /* by enum guard_place */
	__u64 first;		      /* nanoseconds since the machine started */
	__u64 last;
	struct endpoint source; /* of the first */
	struct endpoint destination;
	__u64 peers; /* where the key names none: how many have asked for a count of their own */
};

/* How many peers of a pod have a count of their own: more than people read, and so few that 4,096 pods, which is what
 * `pods` takes, find room for them all, and for their own two besides. */
#define MAX_COUNTED_PEERS 13

enum strictness { PERMISSIVE = 0, STRICT = 1, DRY_RUN = 2 };

/* A pod whose device is guarded. */
struct guarded_device {
	__u64 pod;     /* its cgroup's ID */
	__u32 egress;  /* enum strictness */
	__u32 inbound;
};

/* Addresses of every enrolled pod in the cluster. Written by the agent. To connect, being there is the message;
 * the relays read the value. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct address);
	__type(value, struct peer);
} peers SEC(".maps");

/* The SPIFFE IDs that `peers` refers to by number: few, however many pods there are. No program reads them; the
 * map is the agent's way of telling all of its threads without a copy in each. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct identity);
} identities SEC(".maps");

/* Where `peers` come from. No program reads them: an agent that starts sees what has gone from the registry while no
 * agent ran, or just before. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65535);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct slice);
} slices SEC(".maps");

/* Network namespace cookie to enrolled pod. Written by the agent once the pod's listeners are open, read by
 * connect and getsockname. A pod whose programs are attached but that is missing here is held: its
 * connections to peers are refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u64);
	__type(value, struct pod);
} pods SEC(".maps");

/* Cgroup IDs of the pods of this node that the agent has decided on: those with programs of their own, and those that
 * are not annotated. Written by the agent, read by hold. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u64);
	__type(value, __u32);
} decided SEC(".maps");

/* What each redirected socket had dialled. Written by connect, read by sockops, getpeername and
 * getsockname; freed by the kernel with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct dialled);
} dialled_sockets SEC(".maps");

/* The application's end of a redirected connection to the destination it had dialled. Written by sockops
 * when the source port is known, taken (read and deleted) by the outbound relay after accept(). LRU: what
 * nobody took makes room; a connection whose entry is gone is closed by the relay. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct socket_key);
	__type(value, struct endpoint);
} flows SEC(".maps");

/* The relays' own outbound listeners: whoever else has the port, while the agent is away, is not meant. Written by the
 * agent, by the socket's descriptor, which nobody in a pod can; read by connect; freed by the kernel with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, __u32);
} listeners SEC(".maps");

/* The inbound relay's end of a connection to the local application to whose it is. Written by the inbound relay
 * before it connects and deleted when it closes; read by sockops when the application's socket is born. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct socket_key);
	__type(value, struct origin);
} origins SEC(".maps");

/* The client of each socket that an application accepts or will accept. Written by sockops, read by getpeername; freed
 * by the kernel with the socket, so it outlasts the relay's end, which may be closed before accept(). */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct endpoint);
} served_sockets SEC(".maps");

/* Services with an enrolled endpoint. Written by the agent. As with `peers`, connect only asks whether it is there;
 * the outbound relay chooses a backend. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct endpoint);
	__type(value, struct frontend);
} frontends SEC(".maps");

/* The endpoints that a frontend's connections may go to from this node. A set never changes: a new one is written
 * and the frontend pointed to it. No program reads them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct backend_key);
	__type(value, struct endpoint);
} backends SEC(".maps");

/* Which backend a pod stays with: (its network namespace, the frontend) to backend. Written and read by the outbound
 * relays of all workers. LRU: what is forgotten is chosen anew. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct socket_key);
	__type(value, struct affinity);
} affinities SEC(".maps");

/* The ranges inside the cluster and what strict egress allows there; an address in none is outside. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct range);
	__type(value, struct egress_rule);
} egress_rules SEC(".maps");

/* Where connections are refused instead of taken for plain, because what is known does not tell whether there is a peer:
 * the longest range decides, and what is in `peers` or `frontends` is known. Written by the agent, read by connect and
 * hold. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct range);
	__type(value, struct refusal);
} refused_ranges SEC(".maps");

/* One entry. No program reads it; an agent tells the next one. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct routing_state);
} routing_state SEC(".maps");

/* This node's own addresses, from which kubelet probes. Written by the agent. With IPVS, every ClusterIP is one. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct address);
	__type(value, __u32);
} node_addresses SEC(".maps");

/* What the programs have refused. Written by connect, hold and guard_device, read by the agent, which forgets pods that are
 * gone. Nothing is evicted, since that would hide what strict would refuse from whoever tries it by a dry run: there is
 * room for every reason of 4,096 pods, and for those that nobody has decided on, together. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct refusal_key);
	__type(value, struct refusals);
} kernel_refusals SEC(".maps");

/* What went to peers outside the tunnel. The agent makes two entries for every enrolled pod, which name no peer: one for
 * TCP, one for UDP. So there is always one to count in, whatever other pods do and however little memory there is; who has
 * none is not enrolled. The guard adds some for single peers, within the pod's own share. Read and cleared by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct guard_key);
	__type(value, struct guard_count);
} guard_counts SEC(".maps");

/* The number that a device's filter has been given to whose device it is: a filter knows no more of itself. Written by the
 * agent, read by guard_device. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct guarded_device);
} guarded_devices SEC(".maps");
