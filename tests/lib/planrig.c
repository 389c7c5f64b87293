/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "planrig.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#define MIB256 0x10000000ull

struct planrig *planrig_new(uint32_t dialect, uint32_t virtio_id, uint32_t num_queues)
{
	struct planrig *rig = calloc(1, sizeof(*rig));

	CHECK(rig);
	lv_errslot_init(&rig->err);
	lv_program_init(&rig->prog);
	rig->rec = lv_record_new(virtio_id, num_queues);
	CHECK(rig->rec);
	rig->caps.size = sizeof(rig->caps);
	rig->caps.dialect = dialect;
	rig->caps.addr_kind = dialect == LIBVHOST_DIALECT_USER	   ? LIBVHOST_ADDR_COOKIE
			      : dialect == LIBVHOST_DIALECT_KERNEL ? LIBVHOST_ADDR_HVA
								   : LIBVHOST_ADDR_IOVA;
	rig->caps.flags = dialect == LIBVHOST_DIALECT_USER ? LIBVHOST_TRANSPORT_BACKEND_CHANNEL : 0;
	rig->caps.max_regions = dialect == LIBVHOST_DIALECT_USER ? 8 : 64;
	strcpy(rig->caps.peer, "test:peer");
	rig->features[0] = F30 | MODERN;
	rig->queues = num_queues;
	rig->slots = 32;
	for (int i = 0; i < LIBVHOST_MAX_QUEUES; i++)
		rig->fds[i] = (struct lv_queue_fds){FD_KICK + i, FD_CALL + i, FD_ERR + i, FD_MASK + i};
	rig->env = (struct lv_plan_env){
		.caps = &rig->caps,
		.rec = rig->rec,
		.fds = rig->fds,
		.count = num_queues,
		.lead = true,
		.wanted_queues = num_queues,
		.inflight_fd = -1,
	};
	planrig_memory(rig, 1);
	return rig;
}

void planrig_free(struct planrig *rig)
{
	if (rig->env.peer_mem != rig->env.mem)
		free((void *)(uintptr_t)rig->env.peer_mem);
	free((void *)(uintptr_t)rig->env.mem);
	lv_program_free(&rig->prog);
	lv_errslot_destroy(&rig->err);
	free(rig->rec);
	free(rig);
}

void planrig_queue(struct planrig *rig, uint32_t i, uint32_t flags)
{
	uint64_t at = 0x10000ull * (i + 1);

	rig->rec->queue[i] = (struct lv_record_queue){
		.flags = LV_RQ_SET | flags,
		.num = 256,
		.base = 0x10 * i,
		.desc = at,
		.avail = at + 0x1000,
		.used = at + 0x2000,
	};
	rig->bases[i] = 0x100 + i;
}

void planrig_memory(struct planrig *rig, uint32_t regions)
{
	struct lv_snapshot *snap = calloc(1, sizeof(*snap) + regions * sizeof(snap->maps[0]));

	CHECK(snap);
	snap->count = regions;
	for (uint32_t i = 0; i < regions; i++) {
		uint64_t gpa = (uint64_t)i << 32;

		snap->maps[i] = (struct lv_map){
			.gpa = gpa,
			.size = MIB256,
			.user_addr = LV_COOKIE_BASE + gpa,
			.hva = (uint8_t *)(uintptr_t)(0x70000000u + i * MIB256),
			.fd = 20 + (int)i,
		};
	}
	if (rig->env.mem != rig->env.peer_mem)
		free((void *)(uintptr_t)rig->env.mem);
	rig->env.mem = snap;
}

void planrig_sent(struct planrig *rig)
{
	if (rig->env.mem != rig->env.peer_mem)
		free((void *)(uintptr_t)rig->env.peer_mem);
	rig->env.peer_mem = rig->env.mem;
}

static void answer_status(struct planrig *rig, struct libvhost_req *req)
{
	if (req->op == LIBVHOST_OP_SET_STATUS)
		rig->status = req->arg.u64 & ~rig->refuse_status;
	else
		req->result[0] = rig->status;
}

static void answer(struct planrig *rig, struct libvhost_req *req)
{
	bool refused = req->op == rig->fail_op && rig->passed++ >= rig->fail_after;

	refused |= req->op == LIBVHOST_OP_GET_INFLIGHT_FD && !rig->region;
	req->state = refused ? LIBVHOST_REQ_FAILED : LIBVHOST_REQ_DONE;
	req->err = refused ? -EIO : 0;
	if (refused)
		return;
	switch (req->op) {
	case LIBVHOST_OP_GET_FEATURES:
		req->result[0] = rig->features[0];
		break;
	case LIBVHOST_OP_GET_FEATURES_ARRAY:
		memcpy(req->result, rig->features, sizeof(req->result)); /* as <vhost/req.h> says */
		break;
	case LIBVHOST_OP_GET_PROTOCOL_FEATURES:
		req->result[0] = rig->protocol;
		break;
	case LIBVHOST_OP_GET_BACKEND_FEATURES:
		req->result[0] = rig->backend;
		break;
	case LIBVHOST_OP_GET_QUEUE_NUM:
		req->result[0] = rig->queues;
		break;
	case LIBVHOST_OP_GET_MAX_MEM_SLOTS:
		req->result[0] = rig->slots;
		break;
	case LIBVHOST_OP_VDPA_GET_IOVA_RANGE:
		req->result[0] = rig->iova_first;
		req->result[1] = rig->iova_last;
		break;
	case LIBVHOST_OP_GET_VRING_BASE:
		req->result[0] = rig->bases[req->index];
		break;
	case LIBVHOST_OP_GET_CONFIG:
		memset((void *)(uintptr_t)req->data_out, 0xcf, rig->config_len);
		req->data_out_len = rig->config_len;
		break;
	case LIBVHOST_OP_GET_INFLIGHT_FD:
		req->result[0] = rig->region;
		req->result[1] = rig->region_offset;
		rig->env.inflight_file = rig->region_file;
		rig->env.inflight_fd = FD_REGION;
		break;
	case LIBVHOST_OP_SET_STATUS:
	case LIBVHOST_OP_GET_STATUS:
		answer_status(rig, req);
		break;
	}
}

/* Requests before a failed one are confirmed, those after it unknown, as a pipelined peer leaves them. */
static int execute(struct planrig *rig)
{
	bool failed = false;

	rig->waits++;
	for (uint32_t i = 0; i < rig->prog.count; i++) {
		struct libvhost_req *req = &rig->prog.reqs[i];

		if (req->flags & LIBVHOST_REQ_BARRIER) {
			rig->waits++;
			if (failed)
				break;
		}
		if (failed) {
			req->state = LIBVHOST_REQ_UNKNOWN;
			continue;
		}
		answer(rig, req);
		failed = req->state == LIBVHOST_REQ_FAILED && !(req->flags & LIBVHOST_REQ_OPTIONAL);
	}
	return failed ? -EIO : 0;
}

static LV_PRINTF(2, 3) void note(struct planrig *rig, const char *fmt, ...)
{
	size_t used = strlen(rig->text);
	va_list args;

	va_start(args, fmt);
	vsnprintf(rig->text + used, sizeof(rig->text) - used, fmt, args);
	va_end(args);
}

static void note_table(struct planrig *rig, const struct libvhost_req *req)
{
	for (uint32_t i = 0; req->data_in && i < req->arg.table.count; i++) {
		const struct libvhost_region *r =
			(const void *)((const uint8_t *)(uintptr_t)req->data_in + i * (size_t)req->arg.table.stride);

		note(rig, "    gpa %#" PRIx64 " size %#" PRIx64 " user %#" PRIx64 " offset %#" PRIx64 "%s\n", r->gpa,
		     r->size, r->user_addr, r->mmap_offset, r->flags & LIBVHOST_REGION_HAS_FD ? " fd" : "");
	}
}

/* One request per line, with its barrier before it and its table below it. */
static void note_program(struct planrig *rig)
{
	for (uint32_t i = 0; i < rig->prog.count; i++) {
		const struct libvhost_req *req = &rig->prog.reqs[i];
		char line[512];

		libvhost_req_text(req, line, sizeof(line));
		note(rig, "%s%s\n", req->flags & LIBVHOST_REQ_BARRIER ? "-- barrier --\n" : "", line);
		if (req->op == LIBVHOST_OP_SET_MEM_TABLE)
			note_table(rig, req);
	}
}

int planrig_run(struct planrig *rig, enum lv_plan_kind kind)
{
	static const char *const names[] = {"[connect]\n",  "[start]\n",       "[stop]\n",
					    "[resume]\n",   "[memory]\n",      "[reset]\n",
					    "[inflight]\n", "[start queue]\n", "[stop queue]\n"};
	int ret, first = 1;

	lv_plan_begin(&rig->plan, kind, rig->caps.dialect);
	lv_program_clear(&rig->prog);
	rig->waits = 0;
	rig->passed = 0;
	note(rig, "%s", names[kind]);
	for (;;) {
		ret = lv_plan_next(&rig->plan, &rig->env, &rig->prog, &rig->err);
		if (ret != 1)
			return ret;
		if (!first)
			note(rig, "-- next program --\n");
		first = 0;
		note_program(rig);
		if (rig->look)
			rig->look(rig);
		ret = execute(rig);
		if (ret) {
			lv_plan_harvest(&rig->plan, &rig->env, &rig->prog);
			return ret;
		}
	}
}

void planrig_connect(struct planrig *rig)
{
	CHECK_EQ(planrig_run(rig, LV_PLAN_CONNECT), 0);
	memcpy(rig->rec->acked, rig->rec->offered, sizeof(rig->rec->acked));
	rig->text[0] = 0;
}

/* The file without comment lines. */
static char *read_golden(const char *name)
{
	const char *top = getenv("top_srcdir");
	char path[512], line[512];
	char *all = calloc(1, sizeof(((struct planrig *)0)->text));
	FILE *f;

	snprintf(path, sizeof(path), "%s/tests/golden/%s.txt", top ? top : ".", name);
	f = fopen(path, "re");
	if (!f)
		lv_test_fail(__FILE__, __LINE__, "cannot read %s", path);
	while (fgets(line, sizeof(line), f))
		if (line[0] != '#')
			strcat(all, line);
	fclose(f);
	return all;
}

static const char *line_end(const char *s)
{
	return s + strcspn(s, "\n");
}

/* Lines that differ, TAP-commented: enough to review a program by eye. */
static void show_diff(const char *want, const char *got)
{
	while (*want || *got) {
		size_t w = (size_t)(line_end(want) - want), g = (size_t)(line_end(got) - got);

		if (w == g && !memcmp(want, got, w)) {
			printf("#   %.*s\n", (int)w, want);
		} else {
			if (*want)
				printf("# - %.*s\n", (int)w, want);
			if (*got)
				printf("# + %.*s\n", (int)g, got);
		}
		want += w + (want[w] == '\n');
		got += g + (got[g] == '\n');
	}
}

void planrig_golden(struct planrig *rig, const char *name)
{
	char *want = read_golden(name);
	bool same = !strcmp(want, rig->text);

	if (!same)
		show_diff(want, rig->text);
	free(want);
	if (!same)
		lv_test_fail(__FILE__, __LINE__, "program differs from tests/golden/%s.txt (- wanted, + compiled)",
			     name);
}

const char *planrig_error(struct planrig *rig, uint32_t *kind)
{
	static struct libvhost_error e;

	e.size = sizeof(e);
	CHECK_EQ(lv_errslot_read(&rig->err, &e), 0);
	if (kind)
		*kind = e.kind;
	return e.text;
}

bool planrig_says(const struct planrig *rig, const char *text)
{
	return strstr(rig->text, text);
}

bool planrig_in_order(const struct planrig *rig, const char *first, const char *second)
{
	const char *a = strstr(rig->text, first), *b = strstr(rig->text, second);

	return a && b && a < b;
}

void planrig_expect(struct planrig *rig, uint32_t kind, const char *part)
{
	uint32_t is;
	const char *text = planrig_error(rig, &is);

	CHECK_EQ(is, kind);
	CHECK_HAS(text, part);
	CHECK_HAS(text, "test:peer");
}
