/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Whose process it is that calls connect(), and the count of what it was refused. */
#pragma once

#include "address.h"

/* Deeper than any pod's cgroup lies: kind in Docker nests kubelet's tree below three more levels. */
#define MAX_CGROUP_LEVEL 16

/* The cgroup of the pod that the process belongs to, if the agent knows that; else 0. */
static __always_inline __u64 decided_pod(void)
{
	for (int level = 1; level <= MAX_CGROUP_LEVEL; level++) {
		__u64 cgroup = bpf_get_current_ancestor_cgroup_id(level);

		if (!cgroup)
			return 0;
		if (bpf_map_lookup_elem(&decided, &cgroup))
			return cgroup;
	}
	return 0;
}

/* Counts one by pod and reason: `now` is the last. Two at a time may both be the first, and one of them be forgotten: the
 * number is for people. Where there is no memory for another entry, only the number says that there was one more. */
static __always_inline void add_refusal(const struct refusal_key *key, struct refusals *now)
{
	struct refusals *before = bpf_map_lookup_elem(&kernel_refusals, key);

	if (before)
		now->count += before->count;
	if (bpf_map_update_elem(&kernel_refusals, key, now, BPF_ANY) && before)
		__sync_fetch_and_add(&before->count, 1);
}

/* Counts a refused connect(), by pod and reason. Pods that nobody has decided on have one count together: a process may
 * make itself as many cgroups as it likes. */
static __noinline void count_refusal(struct bpf_sock_addr *ctx, const struct endpoint *to, __u32 reason)
{
	struct refusal_key key = { .cgroup = decided_pod(), .reason = reason };
	struct refusals now = {
		.count = 1,
		.netns_cookie = bpf_get_netns_cookie(ctx),
		.at = bpf_ktime_get_boot_ns(),
		.destination = *to,
		.process = bpf_get_current_pid_tgid() >> 32,
	};

	add_refusal(&key, &now);
}
