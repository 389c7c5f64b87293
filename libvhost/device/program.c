/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "device/plan.h"

#include <stdlib.h>
#include <string.h>

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

bool lv_program_reserve(struct lv_program *prog, uint32_t cap)
{
	struct libvhost_req *reqs;

	if (cap <= prog->cap)
		return true;
	reqs = realloc(prog->reqs, cap * sizeof(*reqs));

	if (!reqs)
		return false;
	prog->reqs = reqs;
	prog->cap = cap;
	return true;
}

static bool grow(struct lv_program *prog)
{
	return lv_program_reserve(prog, prog->cap ? prog->cap * 2 : 32);
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
