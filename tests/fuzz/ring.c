/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Any bytes as guest memory with a ring in it, of either format: what the device role hands out lies inside guest
 * memory, what the driver role gives back was in flight, a ring that breaks the rules ends as broken, and nothing runs
 * for ever.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/libvhost.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 0x4000, DESC = 0, AVAIL = 0x1000, USED = 0x2000, PIECES = 64 };

#define PACKED	 (1ull << 34)
#define IN_ORDER (1ull << 35)

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

/* Descriptors first, then as much of the available ring as it takes, the rest anywhere. */
static void spread(const struct libvhost_vq_opts *opts, const uint8_t *data, size_t size)
{
	const size_t avail = opts->features & PACKED ? 4 : 6 + opts->num * 2u;

	for (size_t i = 0, at = 0; i < size; i++, at++) {
		if (at == opts->num * 16u)
			at = AVAIL;
		if (at == AVAIL + avail)
			at = USED;
		guest[at % MEMORY] = data[i];
	}
}

static void serve(struct libvhost_vq *vq, uint32_t num)
{
	struct libvhost_iov iov[PIECES];

	for (uint32_t taken = 0;; taken++) {
		struct libvhost_chain chain = {.size = sizeof(chain), .iov = iov, .iov_cap = PIECES};

		if (libvhost_vq_pop(vq, &chain) != 1)
			break;
		if (taken > 4 * num)
			__builtin_trap(); /* what is completed in the memory of the fuzzer is not offered again for ever
					   */
		check_pieces(&chain);
		if (taken & 1)
			continue;
		if (libvhost_vq_push(vq, chain.head, chain.write_len))
			break;
		(void)libvhost_vq_flush(vq);
	}
	(void)libvhost_vq_notify_enable(vq, 1);
}

/* Offers some, lets the input overwrite the ring, and takes what seems to be complete. */
static void drive(struct libvhost_vq *vq, const struct libvhost_vq_opts *opts, const uint8_t *data, size_t size)
{
	const struct libvhost_buf bufs[2] = {{.gpa = 0x3000, .len = 16}, {.gpa = 0x3100, .len = 32}};
	struct libvhost_used used[4];
	uint64_t back = 0, n = 0;
	uint32_t count;

	while (n < opts->num && libvhost_vq_add(vq, bufs + (n & 1), n & 1 ? 0 : 1, 1, n) == 0)
		n++;
	(void)libvhost_vq_kick(vq);
	spread(opts, data, size);
	do {
		count = 4;
		if (libvhost_vq_get_used(vq, used, &count))
			break;
		for (uint32_t i = 0; i < count; i++) {
			if (used[i].token >= n || back >> used[i].token & 1 || used[i].len > 32)
				__builtin_trap();
			back |= 1ull << used[i].token;
		}
	} while (count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct libvhost_vq_opts opts = {.size = sizeof(opts), .avail = AVAIL, .used = USED};
	struct libvhost_vq *vq = NULL;

	if (!mem)
		prepare();
	if (size < 3)
		return 0;
	opts.features = 1ull << 32 | (data[0] & 8 ? 1ull << 28 : 0) | (data[0] & 16 ? 1ull << 29 : 0) |
			(data[0] & 32 ? PACKED : 0) | (data[0] & 64 ? IN_ORDER : 0);
	opts.num = opts.features & PACKED ? 1 + data[2] % 33u : 1u << (data[2] & 7);
	opts.role = data[0] & 128 && opts.num <= 64 ? LIBVHOST_VQ_DRIVER : LIBVHOST_VQ_DEVICE;
	if (opts.features & PACKED && data[0] & 4) {
		opts.flags = LIBVHOST_VQ_HAS_BASE;
		opts.base = (data[1] & 0x7fu) | (data[1] & 0x80u) << 8;
		opts.base |= opts.base << 16;
	} else {
		opts.base = data[1];
	}
	data += 3;
	size = size - 3 < MEMORY ? size - 3 : MEMORY;
	memset(guest, 0, MEMORY);
	if (opts.role == LIBVHOST_VQ_DEVICE)
		spread(&opts, data, size);
	if (libvhost_vq_new(ctx, mem, &opts, &vq))
		return 0;
	if (opts.role == LIBVHOST_VQ_DEVICE)
		serve(vq, opts.num);
	else
		drive(vq, &opts, data, size);
	libvhost_vq_free(vq);
	return 0;
}
