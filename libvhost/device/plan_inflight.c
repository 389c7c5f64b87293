/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The inflight region in programs: asking for it, judging the answer, handing it over. vhost-user only. */
#include "device/compile.h"

#include <errno.h>
#include "device/inflight.h"

struct lv_inflight_shape lv_inflight_shape(const struct lv_record *rec)
{
	struct lv_inflight_shape shape = {.packed = rec->acked[0] & LV_BIT(LV_F_RING_PACKED)};
	uint32_t i;

	for (i = 0; i < rec->num_queues; i++) {
		if (!(rec->queue[i].flags & LV_RQ_SET))
			continue;
		shape.queues = i + 1;
		if (rec->queue[i].num > shape.num)
			shape.num = rec->queue[i].num;
	}
	return shape;
}

uint64_t lv_inflight_bytes(const struct lv_inflight_shape *shape)
{
	return shape->queues * lv_inflight_queue_bytes(shape->num, shape->packed);
}

bool lv_inflight_fits(const struct lv_record *rec, const struct lv_inflight_shape *need)
{
	return need->queues <= rec->inflight_queues && need->num <= rec->inflight_num &&
	       need->packed == !!(rec->flags & LV_RF_INFLIGHT_PACKED);
}

void lv_inflight_note(struct lv_record *rec, const struct lv_inflight_shape *shape, uint64_t bytes, uint64_t offset)
{
	rec->inflight_bytes = bytes;
	rec->inflight_offset = offset;
	rec->inflight_queues = shape->queues;
	rec->inflight_num = shape->num;
	rec->flags = (rec->flags & ~(uint32_t)LV_RF_INFLIGHT_PACKED) | LV_RF_INFLIGHT |
		     (shape->packed ? LV_RF_INFLIGHT_PACKED : 0);
}

bool lv_inflight_due(const struct lv_compile *c)
{
	const struct lv_record *rec = c->env->rec;

	return c->plan->kind != LV_PLAN_RESUME && c->env->lead && !(rec->flags & LV_RF_INFLIGHT) &&
	       rec->protocol_acked & LV_BIT(LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD);
}

struct libvhost_req *lv_add_get_inflight(struct lv_compile *c)
{
	const struct lv_inflight_shape shape = lv_inflight_shape(c->env->rec);
	struct libvhost_req *req = lv_add(c, LIBVHOST_OP_GET_INFLIGHT_FD);

	req->arg.inflight.num_queues = (uint16_t)shape.queues;
	req->arg.inflight.queue_size = (uint16_t)shape.num;
	return req;
}

static int bad_region(struct lv_compile *c, const struct libvhost_req *req, const char *why)
{
	const struct lv_inflight_shape shape = lv_inflight_shape(c->env->rec);
	struct lv_where where = LV_WHERE_NONE;

	where.op = req->op;
	return lv_fail_at(c->err, -EPROTO, LIBVHOST_EK_PROTOCOL, &where,
			  "%s: GET_INFLIGHT_FD answered a region of %llu bytes at %llu in a file of %llu: %s; %u %s "
			  "queues of %u entries take %llu bytes",
			  c->env->caps->peer, (unsigned long long)req->result[0], (unsigned long long)req->result[1],
			  (unsigned long long)c->env->inflight_file, why, shape.queues,
			  shape.packed ? "packed" : "split", shape.num, (unsigned long long)lv_inflight_bytes(&shape));
}

int lv_take_inflight(struct lv_compile *c)
{
	const struct lv_inflight_shape shape = lv_inflight_shape(c->env->rec);
	const struct libvhost_req *req = lv_done(c->prog, LIBVHOST_OP_GET_INFLIGHT_FD);
	uint64_t bytes, offset;

	if (!req)
		return 0;
	bytes = req->result[0];
	offset = req->result[1];
	if (!c->env->inflight_file)
		return bad_region(c, req, "the descriptor is not " LV_INFLIGHT_FILE);
	if (bytes < lv_inflight_bytes(&shape))
		return bad_region(c, req, "that is too small");
	if (bytes > LV_INFLIGHT_MAX_BYTES)
		return bad_region(c, req, "that is more than any device needs");
	if (offset > c->env->inflight_file || bytes > c->env->inflight_file - offset)
		return bad_region(c, req, "the file is shorter");
	lv_inflight_note(c->env->rec, &shape, bytes, offset);
	return 0;
}

void lv_add_set_inflight(struct lv_compile *c)
{
	const struct lv_record *rec = c->env->rec;
	struct libvhost_req *req;

	if (!(rec->flags & LV_RF_INFLIGHT) || !c->env->lead || c->env->inflight_fd < 0)
		return;
	req = lv_add(c, LIBVHOST_OP_SET_INFLIGHT_FD);
	req->flags |= LIBVHOST_REQ_HAS_FD;
	req->fd = c->env->inflight_fd;
	req->arg.inflight.mmap_size = rec->inflight_bytes;
	req->arg.inflight.mmap_offset = rec->inflight_offset;
	req->arg.inflight.num_queues = (uint16_t)rec->inflight_queues;
	req->arg.inflight.queue_size = (uint16_t)rec->inflight_num;
}

/* Features decide the layout, sizes create the rings: what a back-end has to know before it can make a region. */
int lv_inflight_plan(struct lv_compile *c)
{
	uint64_t words[LIBVHOST_FEATURE_WORDS];

	if (c->plan->step)
		return lv_take_inflight(c);
	lv_next_program(c, 1);
	lv_features_wire(c->env->rec, LV_BIT(LV_F_PROTOCOL), words);
	lv_add_u64(c, LIBVHOST_OP_SET_FEATURES, words[0]);
	lv_add_ring_sizes(c);
	lv_add_get_inflight(c);
	return 1;
}
