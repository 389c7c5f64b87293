/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "device/plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "protocol/codec.h"

/* Blocks, newest first. A program needs a handful at most: one table each. */
struct lv_arena {
	struct lv_arena *next;
	max_align_t bytes[];
};

static void arena_free(struct lv_program *prog)
{
	while (prog->arena) {
		struct lv_arena *next = prog->arena->next;

		free(prog->arena);
		prog->arena = next;
	}
}

void lv_program_init(struct lv_program *prog)
{
	memset(prog, 0, sizeof(*prog));
}

void lv_program_clear(struct lv_program *prog)
{
	arena_free(prog);
	prog->count = 0;
	prog->nomem = false;
}

void lv_program_free(struct lv_program *prog)
{
	arena_free(prog);
	free(prog->reqs);
	lv_program_init(prog);
}

static bool grow(struct lv_program *prog)
{
	uint32_t cap = prog->cap ? prog->cap * 2 : 32;
	struct libvhost_req *reqs = realloc(prog->reqs, cap * sizeof(*reqs));

	if (!reqs)
		return false;
	prog->reqs = reqs;
	prog->cap = cap;
	return true;
}

struct libvhost_req *lv_program_add(struct lv_program *prog, uint32_t op, uint32_t index)
{
	struct libvhost_req *req;

	if (prog->count == prog->cap && !grow(prog)) {
		prog->nomem = true;
		req = &prog->dummy;
	} else {
		req = &prog->reqs[prog->count++];
	}
	memset(req, 0, sizeof(*req));
	req->op = op;
	req->index = index;
	return req;
}

void *lv_program_alloc(struct lv_program *prog, size_t bytes)
{
	struct lv_arena *block = calloc(1, sizeof(*block) + bytes);

	if (!block) {
		prog->nomem = true;
		return NULL;
	}
	block->next = prog->arena;
	prog->arena = block;
	return block->bytes;
}

/* Appends like printf and stays at the end of the buffer once it is full. */
static LV_PRINTF(4, 5) void say(char *buf, size_t cap, size_t *used, const char *fmt, ...)
{
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(buf + *used, cap - *used, fmt, args);
	va_end(args);
	*used = len > 0 && (size_t)len < cap - *used ? *used + (size_t)len : cap - 1;
}

static void say_table(const struct libvhost_req *req, char *buf, size_t cap, size_t *used)
{
	uint32_t i;

	for (i = 0; req->data_in && i < req->arg.table.count; i++) {
		const struct libvhost_region *r =
			(const void *)((const uint8_t *)(uintptr_t)req->data_in + i * (size_t)req->arg.table.stride);

		say(buf, cap, used, "    gpa %#" PRIx64 " size %#" PRIx64 " user %#" PRIx64 " offset %#" PRIx64 "%s\n",
		    r->gpa, r->size, r->user_addr, r->mmap_offset, r->flags & LIBVHOST_REGION_HAS_FD ? " fd" : "");
	}
}

void lv_program_text(const struct lv_program *prog, char *buf, size_t cap)
{
	size_t used = 0;
	uint32_t i;

	if (!cap)
		return;
	buf[0] = 0;
	for (i = 0; i < prog->count; i++) {
		const struct libvhost_req *req = &prog->reqs[i];
		char line[512];

		libvhost_req_text(req, line, sizeof(line));
		say(buf, cap, &used, "%s%s\n", req->flags & LIBVHOST_REQ_BARRIER ? "-- barrier --\n" : "", line);
		if (req->op == LIBVHOST_OP_SET_MEM_TABLE)
			say_table(req, buf, cap, &used);
	}
}
