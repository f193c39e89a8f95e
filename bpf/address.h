/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Addresses as all programs have them: IPv4 as ::ffff:a.b.c.d, so that one key serves both families. */
#pragma once

#include "maps.h"

#define AF_INET_MAPPED bpf_htonl(0x0000ffff) /* third word of ::ffff:a.b.c.d */
#define LOOPBACK4 bpf_htonl(0x7f000001)

/* One 32-bit access to a context field, as the verifier wants it: clang would merge neighbours into 64-bit
 * ones or compute the field's offset. */
#define WORD(field) (*(volatile __u32 *)&(field))

static __always_inline struct address mapped(__be32 ipv4)
{
	return (struct address){ .words = { 0, 0, AF_INET_MAPPED, ipv4 } };
}

static __always_inline int is_mapped(const struct address *a)
{
	return a->words[0] == 0 && a->words[1] == 0 && a->words[2] == AF_INET_MAPPED;
}

static __always_inline int is_loopback(const struct address *a)
{
	if (is_mapped(a))
		return (a->words[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return a->words[0] == 0 && a->words[1] == 0 && a->words[2] == 0 && a->words[3] == bpf_htonl(1);
}

static __always_inline int is_unspecified(const struct address *a)
{
	return a->words[0] == 0 && a->words[1] == 0 && a->words[3] == 0 &&
	       (a->words[2] == 0 || a->words[2] == AF_INET_MAPPED);
}

static __always_inline int same(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

static __always_inline struct address address6(const struct bpf_sock_addr *ctx)
{
	return (struct address){
		.words = { WORD(ctx->user_ip6[0]), WORD(ctx->user_ip6[1]), WORD(ctx->user_ip6[2]),
			   WORD(ctx->user_ip6[3]) }
	};
}

static __always_inline void set_address6(struct bpf_sock_addr *ctx, const struct address *a)
{
	WORD(ctx->user_ip6[0]) = a->words[0];
	WORD(ctx->user_ip6[1]) = a->words[1];
	WORD(ctx->user_ip6[2]) = a->words[2];
	WORD(ctx->user_ip6[3]) = a->words[3];
}
