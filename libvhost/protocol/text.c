/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A request on one line. Descriptor numbers are never printed: the text is the same in every run. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "core/error.h"
#include "protocol/codec.h"

struct text {
	char *buf;
	size_t cap, len;
};

LV_PRINTF(2, 3) static void say(struct text *t, const char *fmt, ...)
{
	va_list args;
	int n;

	if (t->len + 1 >= t->cap)
		return;
	va_start(args, fmt);
	n = vsnprintf(t->buf + t->len, t->cap - t->len, fmt, args);
	va_end(args);
	if (n > 0)
		t->len = t->len + (size_t)n < t->cap ? t->len + (size_t)n : t->cap - 1;
}

/* Reads return a number instead of giving one. */
static void say_state(struct text *t, const struct libvhost_req *req)
{
	switch (req->op) {
	case LIBVHOST_OP_GET_VRING_BASE:
	case LIBVHOST_OP_GET_VRING_ENDIAN:
	case LIBVHOST_OP_GET_VRING_BUSYLOOP_TIMEOUT:
	case LIBVHOST_OP_VDPA_GET_VRING_SIZE:
	case LIBVHOST_OP_VRING_KICK:
	case LIBVHOST_OP_BACKEND_VRING_CALL:
	case LIBVHOST_OP_BACKEND_VRING_ERR:
	case LIBVHOST_OP_VDPA_GET_VRING_GROUP:
	case LIBVHOST_OP_VDPA_GET_VRING_DESC_GROUP:
		say(t, " queue %u", req->index);
		return;
	case LIBVHOST_OP_VDPA_SET_GROUP_ASID:
		say(t, " group %u asid %u", req->index, req->arg.num);
		return;
	default:
		say(t, " queue %u num %u", req->index, req->arg.num);
		return;
	}
}

static void say_addr(struct text *t, const struct libvhost_req *req)
{
	const struct libvhost_vring_addr *a = &req->arg.addr;

	say(t, " queue %u desc %#" PRIx64 " avail %#" PRIx64 " used %#" PRIx64, req->index, a->desc, a->avail, a->used);
	if (a->flags & 1)
		say(t, " log %#" PRIx64, a->log);
}

static void say_iotlb(struct text *t, const struct libvhost_req *req)
{
	static const char *const types[] = {"?",	   "miss",	  "update",   "invalidate",
					    "access-fail", "batch-begin", "batch-end"};
	const struct libvhost_req_iotlb *m = &req->arg.iotlb;

	say(t, " %s iova %#" PRIx64 " size %#" PRIx64 " uaddr %#" PRIx64 " perm %u",
	    types[m->type < sizeof(types) / sizeof(*types) ? m->type : 0], m->iova, m->size, m->uaddr, m->perm);
	if (m->asid)
		say(t, " asid %u", m->asid);
}

static void say_config(struct text *t, const struct libvhost_req *req)
{
	const struct libvhost_req_config *c = &req->arg.config;

	say(t, " offset %u size %u", c->offset, c->size);
	if (req->op == LIBVHOST_OP_SET_CONFIG)
		say(t, " flags %u", c->flags);
}

static void say_inflight(struct text *t, const struct libvhost_req *req)
{
	const struct libvhost_req_inflight *f = &req->arg.inflight;

	say(t, " queues %u size %u", f->num_queues, f->queue_size);
	if (req->op == LIBVHOST_OP_SET_INFLIGHT_FD)
		say(t, " bytes %#" PRIx64 " offset %#" PRIx64, f->mmap_size, f->mmap_offset);
}

static void say_uuid(struct text *t, const struct libvhost_req *req)
{
	say(t, " ");
	for (int i = 0; i < 16; i++)
		say(t, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", req->arg.uuid[i]);
}

static void say_mmap(struct text *t, const struct libvhost_req *req)
{
	const struct libvhost_req_mmap *m = &req->arg.mmap;

	say(t, " shmid %u offset %#" PRIx64 " size %#" PRIx64, m->shmid, m->shm_offset, m->len);
	if (req->op == LIBVHOST_OP_BACKEND_SHMEM_MAP)
		say(t, " file offset %#" PRIx64 "%s", m->fd_offset, m->flags & 1 ? " rw" : " ro");
}

static void say_region(struct text *t, const struct libvhost_req *req)
{
	const struct libvhost_req_region *r = &req->arg.region;

	say(t, " gpa %#" PRIx64 " size %#" PRIx64 " user %#" PRIx64 " offset %#" PRIx64, r->gpa, r->size, r->user_addr,
	    r->mmap_offset);
}

static void say_area(struct text *t, const struct libvhost_req *req)
{
	const struct libvhost_req_area *a = &req->arg.area;

	if (a->flags)
		say(t, " queue %u remove", req->index);
	else
		say(t, " queue %u size %#" PRIx64 " offset %#" PRIx64, req->index, a->size, a->offset);
}

static void say_features(struct text *t, const struct libvhost_req *req)
{
	int top = LIBVHOST_FEATURE_WORDS - 1;

	while (top > 0 && !req->arg.features[top])
		top--;
	say(t, " %#" PRIx64, req->arg.features[top]);
	while (top-- > 0)
		say(t, "%016" PRIx64, req->arg.features[top]);
}

static void say_raw(struct text *t, const struct libvhost_req *req)
{
	say(t, " request %u flags %#x %u bytes", req->arg.raw.request, req->arg.raw.flags, req->data_in_len);
}

/* Operations that only ioctls have. */
static void say_ioctl(struct text *t, const struct libvhost_req *req, const struct lv_op *row)
{
	switch (row->ioctl_arg) {
	case LV_IARG_STATE:
		say_state(t, req);
		return;
	case LV_IARG_FILE:
		say(t, " queue %u", req->index);
		return;
	case LV_IARG_WORKER:
		say(t, " queue %u", req->index);
		if (row->op == LIBVHOST_OP_ATTACH_VRING_WORKER)
			say(t, " worker %" PRIu64, req->arg.u64);
		return;
	case LV_IARG_SCSI:
		if (req->data_in)
			say(t, " %.*s", (int)req->data_in_len, (const char *)(uintptr_t)req->data_in);
		return;
	case LV_IARG_FEATURES:
		if (row->op == LIBVHOST_OP_SET_FEATURES_ARRAY)
			say_features(t, req);
		return;
	default:
		break;
	}
	switch (row->op) {
	case LIBVHOST_OP_FREE_WORKER:
	case LIBVHOST_OP_SCSI_SET_EVENTS_MISSED:
	case LIBVHOST_OP_VSOCK_SET_GUEST_CID:
	case LIBVHOST_OP_VSOCK_SET_RUNNING:
	case LIBVHOST_OP_SET_FORK_FROM_OWNER:
		say(t, " %" PRIu64, req->arg.u64);
		return;
	case LIBVHOST_OP_SET_BACKEND_FEATURES:
		say(t, " %#" PRIx64, req->arg.u64);
		return;
	default:
		return;
	}
}

static void say_payload(struct text *t, const struct libvhost_req *req, const struct lv_op *row)
{
	switch (row->payload) {
	case LIBVHOST_PAYLOAD_U64:
		if (row->op == LIBVHOST_OP_SET_FEATURES)
			say_features(t, req);
		else
			say(t, " %#" PRIx64, req->arg.u64);
		return;
	case LIBVHOST_PAYLOAD_STATE:
		say_state(t, req);
		return;
	case LIBVHOST_PAYLOAD_ADDR:
		say_addr(t, req);
		return;
	case LIBVHOST_PAYLOAD_TABLE:
		say(t, " %u region%s", req->arg.table.count, req->arg.table.count == 1 ? "" : "s");
		return;
	case LIBVHOST_PAYLOAD_REGION:
		say_region(t, req);
		return;
	case LIBVHOST_PAYLOAD_LOG:
		say(t, " size %#" PRIx64 " offset %#" PRIx64, req->arg.log.size, req->arg.log.offset);
		return;
	case LIBVHOST_PAYLOAD_IOTLB:
		say_iotlb(t, req);
		return;
	case LIBVHOST_PAYLOAD_CONFIG:
		say_config(t, req);
		return;
	case LIBVHOST_PAYLOAD_INFLIGHT:
		say_inflight(t, req);
		return;
	case LIBVHOST_PAYLOAD_UUID:
		say_uuid(t, req);
		return;
	case LIBVHOST_PAYLOAD_TRANSFER:
		say(t, "%s", req->arg.transfer.direction ? " load" : " save");
		return;
	case LIBVHOST_PAYLOAD_MMAP:
		say_mmap(t, req);
		return;
	case LIBVHOST_PAYLOAD_AREA:
		say_area(t, req);
		return;
	case LIBVHOST_PAYLOAD_VRING_FD:
		say(t, " queue %u", req->index);
		return;
	default:
		if (row->op == LIBVHOST_OP_RAW)
			say_raw(t, req);
		else
			say_ioctl(t, req, row);
		return;
	}
}

/* Where a descriptor is one of two choices, its absence is worth a word. */
static bool fd_is_choice(const struct lv_op *row)
{
	return row->payload == LIBVHOST_PAYLOAD_VRING_FD || row->ioctl_arg == LV_IARG_FILE ||
	       row->ioctl_arg == LV_IARG_INT_FD;
}

void libvhost_req_text(const struct libvhost_req *req, char *buf, size_t cap)
{
	const struct lv_op *row = lv_op(req->op);
	struct text t = {.buf = buf, .cap = cap};

	if (!cap)
		return;
	buf[0] = 0;
	if (!row) {
		say(&t, "unknown operation %u", req->op);
		return;
	}
	say(&t, "%s", row->name);
	say_payload(&t, req, row);
	if (req->flags & LIBVHOST_REQ_HAS_FD)
		say(&t, " fd");
	else if (fd_is_choice(row))
		say(&t, " no fd");
}
