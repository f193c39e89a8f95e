/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The guard: counts what goes to a peer outside the tunnel, and drops it where egress is strict. connect() is where a
 * connection is redirected; the guard sees what came another way: connections older than the pod's enrolment, answers to
 * plain connections, packets that no connect() stands behind. The count is to be 0.
 *
 *   guard_egress    attached to the pod's cgroup: what its processes' sockets send
 *   guard_strict    the same, for pods with strict egress
 *
 *   guard_device    attached to a device of the pod's network namespace (tc): whatever leaves by it, also what no socket of
 *                   the pod's cgroup has sent
 *
 * The relay's sockets belong to the agent's cgroup and do not come to the first two. Behind a Service's address the guard knows no
 * peer: that becomes a pod's on the node.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include "dial.h"

/* In every namespace (include/net/flow.h). What a pod says to itself, and to its relay, leaves by it. */
#define LOOPBACK_DEVICE 1

#define MAX_EXTENSION_HEADERS 6

/* A packet as far as the guard reads it. */
struct packet {
	struct endpoint source;
	struct endpoint destination;
	__u32 protocol;
	__u32 offset; /* of the TCP or UDP header behind the IP header's first byte; 0: it has none */
	__u32 header; /* length of the TCP or UDP header; 0: there is no telling */
	__u8 flags;   /* of TCP */
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

/* Reads the TCP or UDP header. */
static __always_inline void read_ports(struct __sk_buff *skb, struct packet *packet)
{
	struct {
		__be16 source, destination;
		__u32 numbers[2];
		__u8 length, flags;
		__u16 rest;
	} header = {};
	__u32 start = packet->offset;

	if (!start)
		return;
	if (packet->protocol == UDP) {
		if (bpf_skb_load_bytes_relative(skb, start, &header, 8, BPF_HDR_START_NET))
			return;
		packet->header = 8;
	} else {
		if (bpf_skb_load_bytes_relative(skb, start, &header, sizeof(header), BPF_HDR_START_NET))
			return;
		packet->header = (header.length >> 4) * 4;
		packet->flags = header.flags;
	}
	packet->source.port = header.source;
	packet->destination.port = header.destination;
}

/* Reads the addresses; 0: no IP. */
static __always_inline int read_addresses(struct __sk_buff *skb, struct packet *packet)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return read_ip4(skb, packet);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && read_ip6(skb, packet);
}

/* Whether a packet that goes to a peer does so outside the tunnel. The relays' own has its port on one side, and so has
 * what another mesh's sidecar in the pod passes on for them. */
static __always_inline int is_outside_tunnel(const struct packet *packet)
{
	__be16 tunnel = bpf_htons(TUNNEL_PORT);

	return packet->protocol == UDP || (packet->protocol == TCP && packet->destination.port != tunnel &&
					   packet->source.port != tunnel);
}

/* Of a packet of `length` bytes: all of it where there is no telling. */
static __always_inline __u32 payload_of(__u32 length, const struct packet *packet)
{
	__u32 headers = packet->offset + packet->header;

	if (!packet->header)
		return length;
	return length > headers ? length - headers : 0;
}

/* Where a pod's packets are counted when the peer has no count of its own; NULL: it is not an enrolled pod's cgroup. */
static __always_inline struct guard_count *count_of_pod(__u64 pod, __u32 protocol)
{
	struct guard_key key = { .pod = pod, .protocol = protocol };

	return bpf_map_lookup_elem(&guard_counts, &key);
}

/* The same for a socket: that of the pod it belongs to. */
static __always_inline struct guard_count *count_of_sender(struct __sk_buff *skb, __u32 protocol, __u64 *pod)
{
	struct guard_count *count;

	for (int level = 1; level <= MAX_CGROUP_LEVEL; level++) {
		*pod = bpf_skb_ancestor_cgroup_id(skb, level);
		if (!*pod)
			return 0;
		count = count_of_pod(*pod, protocol);
		if (count)
			return count;
	}
	return 0;
}

/* The peer's own count, or the pod's. Of UDP, of which nothing is promised, nobody asks to whom it went; and a pod that
 * sends to more peers than its share must not take other pods' room. */
static __always_inline struct guard_count *count_of_peer(__u64 pod, const struct packet *packet,
							 struct guard_count *of_pod)
{
	struct guard_key key = { .pod = pod, .peer = packet->destination.address, .protocol = TCP };
	struct guard_count *count, none = {};

	if (packet->protocol != TCP)
		return of_pod;
	count = bpf_map_lookup_elem(&guard_counts, &key);
	if (count)
		return count;
	if (of_pod->peers >= MAX_COUNTED_PEERS)
		return of_pod;
	/* Asked for before it is taken: of all processors that do so at once, no more than the share see so few. */
	__sync_fetch_and_add(&of_pod->peers, 1);
	if (of_pod->peers > MAX_COUNTED_PEERS)
		return of_pod;
	bpf_map_update_elem(&guard_counts, &key, &none, BPF_NOEXIST);
	count = bpf_map_lookup_elem(&guard_counts, &key);
	return count ? count : of_pod;
}

static __always_inline void count_packet(const struct packet *packet, __u64 pod, struct guard_count *of_pod,
					 enum guard_place place, __u32 length, int dropped)
{
	struct guard_count *count = count_of_peer(pod, packet, of_pod);
	struct guard_traffic *seen = &count->seen[place];

	if (!count->first) {
		count->first = bpf_ktime_get_boot_ns();
		count->source = packet->source;
		count->destination = packet->destination;
	}
	__sync_fetch_and_add(&seen->packets, 1);
	__sync_fetch_and_add(&seen->bytes, length);
	__sync_fetch_and_add(&seen->payload, payload_of(length, packet));
	if (dropped)
		__sync_fetch_and_add(&seen->dropped, 1);
	count->last = bpf_ktime_get_boot_ns();
}

/* Says whether the packet may go on. */
static __always_inline int guard_cgroup(struct __sk_buff *skb, int strict)
{
	struct packet packet = {};
	struct guard_count *of_pod;
	__u64 pod;

	if (skb->ifindex == LOOPBACK_DEVICE)
		return reaches_relay(skb);
	if (!read_addresses(skb, &packet) || !bpf_map_lookup_elem(&peers, &packet.destination.address))
		return 1;
	skip_extensions(skb, &packet);
	read_ports(skb, &packet);
	if (!is_outside_tunnel(&packet))
		return 1;
	strict = strict && packet.protocol == TCP;
	of_pod = count_of_sender(skb, packet.protocol, &pod);
	if (of_pod)
		count_packet(&packet, pod, of_pod, AT_CGROUP, skb->len, strict);
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

/* Answers a SYN that the pod's device has let in past the tunnel: what a DNAT rule in the pod has sent on to somewhere that
 * is not the pod's own socket, where strict_inbound would have refused it. */
static __always_inline int answers_past_tunnel(const struct packet *packet)
{
	__u8 syn_ack = 0x12;

	return packet->protocol == TCP && (packet->flags & syn_ack) == syn_ack &&
	       packet->source.port != bpf_htons(TUNNEL_PORT) &&
	       !bpf_map_lookup_elem(&node_addresses, &packet->destination.address);
}

/* Asks for a connection to what is no peer, where strict egress would not let it. */
static __always_inline int asks_in_clear(const struct packet *packet)
{
	__u8 syn = 0x02, syn_ack = 0x12;

	return packet->protocol == TCP && (packet->flags & syn_ack) == syn &&
	       !bpf_map_lookup_elem(&peers, &packet->destination.address) && !allowed_in_clear(&packet->destination);
}

static __always_inline void count_on_device(const struct packet *packet, __u64 pod, __u32 reason)
{
	struct refusal_key key = { .cgroup = pod, .reason = reason };
	struct refusals now = { .count = 1, .at = bpf_ktime_get_boot_ns(), .destination = packet->destination };

	add_refusal(&key, &now);
}

static __always_inline int is_tagged(const struct __sk_buff *skb)
{
	return skb->vlan_present || skb->protocol == bpf_htons(ETH_P_8021Q) ||
	       skb->protocol == bpf_htons(ETH_P_8021AD);
}

/* Whether it is a packet in a packet. */
static __always_inline int is_packed(const struct packet *packet)
{
	return packet->protocol == IPPROTO_IPIP || packet->protocol == IPPROTO_IPV6 ||
	       packet->protocol == IPPROTO_GRE;
}

SEC("tc")
int guard_device(struct __sk_buff *skb)
{
	__u32 number = skb->tc_classid; /* the filter's, not the packet's (net/sched/cls_bpf.c) */
	struct guarded_device *device = bpf_map_lookup_elem(&guarded_devices, &number);
	struct packet packet = {};
	struct guard_count *of_pod;
	int dropped;

	if (!device)
		return TC_ACT_UNSPEC;
	/* A tag hides what it is: the peer's stack takes tag 0 off and reads on. */
	if (device->egress == STRICT && is_tagged(skb))
		return TC_ACT_SHOT;
	if (!read_addresses(skb, &packet))
		return TC_ACT_UNSPEC;
	skip_extensions(skb, &packet);
	if (device->egress == STRICT && is_packed(&packet) &&
	    bpf_map_lookup_elem(&peers, &packet.destination.address))
		return TC_ACT_SHOT;
	if (packet.protocol != TCP && packet.protocol != UDP)
		return TC_ACT_UNSPEC;
	read_ports(skb, &packet);
	if (device->inbound != PERMISSIVE && answers_past_tunnel(&packet)) {
		dropped = device->inbound == STRICT;
		count_on_device(&packet, device->pod, dropped ? REFUSED_INBOUND : DRY_RUN_INBOUND);
		if (dropped)
			return TC_ACT_SHOT;
	}
	if (device->egress == DRY_RUN && asks_in_clear(&packet))
		count_on_device(&packet, device->pod, DRY_RUN_EGRESS);
	if (!is_outside_tunnel(&packet) || !bpf_map_lookup_elem(&peers, &packet.destination.address))
		return TC_ACT_UNSPEC;
	dropped = device->egress == STRICT && packet.protocol == TCP;
	of_pod = count_of_pod(device->pod, packet.protocol);
	if (of_pod)
		count_packet(&packet, device->pod, of_pod, AT_DEVICE, skb->len - ETH_HLEN, dropped);
	return dropped ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}
