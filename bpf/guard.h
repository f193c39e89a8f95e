/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The guard: counts what goes to a peer outside the tunnel, and drops it where egress is strict. connect() is where a
 * connection is redirected; the guard sees what came another way: connections older than the pod's enrolment, answers to
 * plain connections, packets that no connect() stands behind. The count is to be 0.
 *
 *   guard_egress    attached to the pod's cgroup: what its processes' sockets send
 *   guard_strict    the same, for pods with strict egress
 *
 * The relay's sockets belong to the agent's cgroup and do not come here. Behind a Service's address the guard knows no
 * peer: that becomes a pod's on the node.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

/* In every namespace (include/net/flow.h). What a pod says to itself, and to its relay, leaves by it. */
#define LOOPBACK_DEVICE 1

#define MAX_EXTENSION_HEADERS 6

/* In the place of a pod, with no peer and protocol: what there was no room for. src/kernel/guard_counts.ts makes the entry. */
#define OTHER_PODS (~0ULL)

/* A packet as far as the guard reads it. */
struct packet {
	struct endpoint source;
	struct endpoint destination;
	__u32 protocol;
	__u32 offset; /* of the TCP or UDP header behind the IP header's first byte; 0: it has none */
};

/* Reads the IP header; 0: no IP, or cut short. */
static __always_inline int read_ip4(struct __sk_buff *skb, struct packet *packet)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return 0;
	packet->source.address = mapped(ip.saddr);
	packet->destination.address = mapped(ip.daddr);
	packet->protocol = ip.protocol;
	/* A later fragment has no ports, and no payload that could be told apart. */
	packet->offset = ip.frag_off & bpf_htons(0x1fff) ? 0 : ip.ihl * 4;
	return 1;
}

static __always_inline int is_extension(__u32 header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_ROUTING || header == IPPROTO_FRAGMENT ||
	       header == IPPROTO_DSTOPTS;
}

static __always_inline int read_ip6(struct __sk_buff *skb, struct packet *packet)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes_relative(skb, 0, &ip, sizeof(ip), BPF_HDR_START_NET))
		return 0;
	__builtin_memcpy(&packet->source.address, &ip.saddr, sizeof(struct address));
	__builtin_memcpy(&packet->destination.address, &ip.daddr, sizeof(struct address));
	packet->protocol = ip.nexthdr;
	packet->offset = sizeof(ip);
	return 1;
}

/* Goes on to the TCP or UDP header, past IPv6's extensions. */
static __always_inline void skip_extensions(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[4];

	for (int i = 0; i < MAX_EXTENSION_HEADERS && is_extension(packet->protocol); i++) {
		if (bpf_skb_load_bytes_relative(skb, packet->offset, header, sizeof(header), BPF_HDR_START_NET))
			return;
		if (packet->protocol == IPPROTO_FRAGMENT) {
			packet->protocol = header[0];
			if (header[2] || header[3] & 0xf8) { /* a later one */
				packet->offset = 0;
				return;
			}
			packet->offset += 8;
		} else {
			packet->protocol = header[0];
			packet->offset += (header[1] + 1) * 8;
		}
	}
}

/* Reads the ports; says how many bytes the TCP or UDP header has. */
static __always_inline __u32 read_ports(struct __sk_buff *skb, struct packet *packet)
{
	struct {
		__be16 source, destination;
		__u32 numbers[2];
		__u8 length, flags;
		__u16 rest;
	} header = {};
	__u32 wanted = packet->protocol == UDP ? 8 : sizeof(header);

	if (!packet->offset)
		return 0;
	if (wanted == 8) {
		if (bpf_skb_load_bytes_relative(skb, packet->offset, &header, 8, BPF_HDR_START_NET))
			return 0;
	} else if (bpf_skb_load_bytes_relative(skb, packet->offset, &header, sizeof(header), BPF_HDR_START_NET)) {
		return 0;
	}
	packet->source.port = header.source;
	packet->destination.port = header.destination;
	return packet->protocol == UDP ? 8 : (header.length >> 4) * 4;
}

static __always_inline void count_packet(const struct packet *packet, const struct guard_key *key, __u32 length,
					 __u32 payload, int dropped)
{
	struct guard_key others = {};
	struct guard_count *count = bpf_map_lookup_elem(&guard_counts, key);

	if (!count) {
		struct guard_count first = {
			.first = bpf_ktime_get_boot_ns(),
			.source = packet->source,
			.destination = packet->destination,
		};

		bpf_map_update_elem(&guard_counts, key, &first, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&guard_counts, key);
	}
	if (!count) {
		others.pod = OTHER_PODS;
		count = bpf_map_lookup_elem(&guard_counts, &others);
	}
	if (!count)
		return;
	__sync_fetch_and_add(&count->packets, 1);
	__sync_fetch_and_add(&count->bytes, length);
	__sync_fetch_and_add(&count->payload, payload);
	if (dropped)
		__sync_fetch_and_add(&count->dropped, 1);
	count->last = bpf_ktime_get_boot_ns();
}

/* Reads a packet that goes to a peer outside the tunnel; 0: it does not. */
static __always_inline int is_outside_tunnel(struct __sk_buff *skb, struct packet *packet, __u32 *header)
{
	__be16 tunnel = bpf_htons(TUNNEL_PORT);

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!read_ip4(skb, packet))
			return 0;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) || !read_ip6(skb, packet)) {
		return 0;
	}
	if (!bpf_map_lookup_elem(&peers, &packet->destination.address))
		return 0;
	skip_extensions(skb, packet);
	if (packet->protocol != TCP && packet->protocol != UDP)
		return 0;
	*header = read_ports(skb, packet);
	/* The relays' own, and what another mesh's sidecar in the pod passes on for them. */
	return packet->protocol == UDP ||
	       (packet->destination.port != tunnel && packet->source.port != tunnel);
}

/* Of a packet of `length` bytes: all of it where there is no telling. */
static __always_inline __u32 payload_of(__u32 length, const struct packet *packet, __u32 header)
{
	if (!header)
		return length;
	return length > packet->offset + header ? length - packet->offset - header : 0;
}

/* The cgroup of the pod whose socket sends this, as far as the agent knows it. */
static __always_inline __u64 sending_pod(struct __sk_buff *skb)
{
	for (int level = 1; level <= MAX_CGROUP_LEVEL; level++) {
		__u64 cgroup = bpf_skb_ancestor_cgroup_id(skb, level);

		if (!cgroup)
			break;
		if (bpf_map_lookup_elem(&decided, &cgroup))
			return cgroup;
	}
	return bpf_skb_cgroup_id(skb);
}

/* Says whether the packet may go on. */
static __always_inline int guard_cgroup(struct __sk_buff *skb, int strict)
{
	struct packet packet = {};
	struct guard_key key = {};
	__u32 header = 0;

	if (skb->ifindex == LOOPBACK_DEVICE || !is_outside_tunnel(skb, &packet, &header))
		return 1;
	strict = strict && packet.protocol == TCP;
	key.pod = sending_pod(skb);
	key.peer = packet.destination.address;
	key.protocol = packet.protocol;
	count_packet(&packet, &key, skb->len, payload_of(skb->len, &packet, header), strict);
	return !strict;
}

SEC("cgroup_skb/egress")
int guard_egress(struct __sk_buff *skb)
{
	return guard_cgroup(skb, 0);
}

SEC("cgroup_skb/egress")
int guard_strict(struct __sk_buff *skb)
{
	return guard_cgroup(skb, 1);
}
