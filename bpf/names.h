/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* getpeername4/6 and getsockname4/6: the addresses that an application sees of its connections. */
#pragma once

#include "address.h"
#include "constants.h"

/* ---- getpeername, accept ---------------------------------------------------------------------------- */

/* Fills `seen` with the peer that the application should see, or returns 0: the real one is right. */
static __always_inline int visible_peer(struct bpf_sock_addr *ctx, struct endpoint *seen)
{
	struct dialled *dialled;
	struct endpoint *client;

	if (!ctx->sk)
		return 0;
	dialled = bpf_sk_storage_get(&dialled_sockets, ctx->sk, 0, 0);
	if (dialled) {
		*seen = dialled->destination;
		return 1;
	}
	client = bpf_sk_storage_get(&served_sockets, ctx->sk, 0, 0);
	if (!client)
		return 0;
	*seen = *client;
	return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	struct endpoint seen;

	if (visible_peer(ctx, &seen)) {
		ctx->user_ip4 = seen.address.words[3];
		ctx->user_port = seen.port;
	}
	return ALLOW;
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	struct endpoint seen;

	if (visible_peer(ctx, &seen)) {
		set_address6(ctx, &seen.address);
		ctx->user_port = seen.port;
	}
	return ALLOW;
}

/* ---- getsockname ------------------------------------------------------------------------------------ */

/* The pod's own address for a redirected socket whose real one is loopback, else NULL. */
static __always_inline const struct address *visible_self(struct bpf_sock_addr *ctx, const struct address *real)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct dialled *dialled;
	struct pod *pod;

	if (!ctx->sk || !is_loopback(real))
		return 0;
	dialled = bpf_sk_storage_get(&dialled_sockets, ctx->sk, 0, 0);
	if (!dialled)
		return 0;
	pod = bpf_map_lookup_elem(&pods, &netns);
	if (!pod)
		return 0;
	return dialled->ipv4 ? &pod->own[0] : &pod->own[1];
}

SEC("cgroup/getsockname4")
int getsockname4(struct bpf_sock_addr *ctx)
{
	struct address real = mapped(ctx->user_ip4);
	const struct address *own = visible_self(ctx, &real);

	if (own)
		ctx->user_ip4 = own->words[3];
	return ALLOW;
}

SEC("cgroup/getsockname6")
int getsockname6(struct bpf_sock_addr *ctx)
{
	struct address real = address6(ctx);
	const struct address *own = visible_self(ctx, &real);

	if (own)
		set_address6(ctx, own);
	return ALLOW;
}
