/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Any bytes as guest memory with a ring in it: what the device role hands out lies inside guest memory, a ring that
 * breaks the rules ends as broken, and nothing runs for ever.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/libvhost.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 0x4000, DESC = 0, AVAIL = 0x1000, USED = 0x2000, PIECES = 64 };

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static uint8_t *guest;

static void prepare(void)
{
	void *at;

	if (libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, MEMORY) || libvhost_mem_commit(mem, 0, NULL) ||
	    libvhost_mem_translate(mem, 0, MEMORY, &at, NULL))
		abort();
	guest = at;
}

static void check_pieces(const struct libvhost_chain *chain)
{
	uint64_t lengths[2] = {0, 0};

	if (chain->n_read + chain->n_write > chain->iov_cap)
		__builtin_trap();
	for (uint32_t i = 0; i < chain->n_read + chain->n_write; i++) {
		const uint8_t *base = chain->iov[i].base;

		if (base < guest || base > guest + MEMORY || chain->iov[i].len > (size_t)(guest + MEMORY - base))
			__builtin_trap();
		lengths[i >= chain->n_read] += chain->iov[i].len;
	}
	if (lengths[0] != chain->read_len || lengths[1] != chain->write_len)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct libvhost_vq_opts opts = {.size = sizeof(opts), .role = LIBVHOST_VQ_DEVICE, .avail = AVAIL, .used = USED};
	struct libvhost_iov iov[PIECES];
	struct libvhost_vq *vq = NULL;

	if (!mem)
		prepare();
	if (size < 2)
		return 0;
	opts.num = 1u << (data[0] & 7);
	opts.features = 1ull << 32 | (data[0] & 8 ? 1ull << 28 : 0) | (data[0] & 16 ? 1ull << 29 : 0);
	opts.base = data[1];
	size = size - 2 < MEMORY ? size - 2 : MEMORY;
	memset(guest, 0, MEMORY);
	/* descriptors first, then as much of the available ring as it takes, the rest anywhere */
	for (size_t i = 0, at = 0; i < size; i++, at++) {
		if (at == opts.num * 16u)
			at = AVAIL;
		if (at == AVAIL + 6 + opts.num * 2u)
			at = USED;
		guest[at % MEMORY] = data[2 + i];
	}
	if (libvhost_vq_new(ctx, mem, &opts, &vq))
		return 0;
	for (uint32_t taken = 0;; taken++) {
		struct libvhost_chain chain = {.size = sizeof(chain), .iov = iov, .iov_cap = PIECES};

		if (libvhost_vq_pop(vq, &chain) != 1)
			break;
		if (taken > opts.num)
			__builtin_trap(); /* the available index may run ahead by at most the ring */
		check_pieces(&chain);
		if (taken & 1)
			continue;
		if (libvhost_vq_push(vq, chain.head, chain.write_len))
			break;
		(void)libvhost_vq_flush(vq);
	}
	(void)libvhost_vq_notify_enable(vq, 1);
	libvhost_vq_free(vq);
	return 0;
}
