/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Bytes of a request, which lie in as many pieces as its driver likes. */
#ifndef VHOSTCTL_PIECES_H
#define VHOSTCTL_PIECES_H

#include <stdbool.h>
#include <string.h>
#include <vhost/vq.h>

struct pieces {
	struct libvhost_iov *iov;
	uint32_t n;
};

/* Takes n bytes off the front of the first piece. */
static inline void pieces_advance(struct pieces *p, size_t n)
{
	p->iov->base = (char *)p->iov->base + n;
	p->iov->len -= n;
	if (!p->iov->len) {
		p->iov++;
		p->n--;
	}
}

/* Takes len bytes off the front, or all there are. Returns how many. */
static inline size_t pieces_skip(struct pieces *p, size_t len)
{
	size_t done = 0;

	while (p->n && done < len) {
		const size_t step = p->iov->len < len - done ? p->iov->len : len - done;

		pieces_advance(p, step);
		done += step;
	}
	return done;
}

/* The same, and copies them: each byte of guest memory is read or written once. */
static inline size_t pieces_copy(struct pieces *p, void *flat, size_t len, bool to_pieces)
{
	size_t done = 0;

	while (p->n && done < len) {
		const size_t step = p->iov->len < len - done ? p->iov->len : len - done;

		if (to_pieces)
			memcpy(p->iov->base, (char *)flat + done, step);
		else
			memcpy((char *)flat + done, p->iov->base, step);
		pieces_advance(p, step);
		done += step;
	}
	return done;
}

static inline bool pieces_aligned(const struct pieces *p, uint32_t align)
{
	for (uint32_t i = 0; i < p->n; i++)
		if (((uintptr_t)p->iov[i].base | p->iov[i].len) % align)
			return false;
	return true;
}

#endif
