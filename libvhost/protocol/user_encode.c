/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* struct libvhost_req -> vhost-user message. */
#include <errno.h>
#include <string.h>
#include "protocol/codec.h"
#include "protocol/user_wire.h"

void lv_user_hdr_put(void *wire, const struct lv_user_hdr *hdr)
{
	memcpy(wire, hdr, LV_USER_HDR);
}

struct lv_user_hdr lv_user_hdr_get(const void *wire)
{
	struct lv_user_hdr hdr;

	memcpy(&hdr, wire, LV_USER_HDR);
	return hdr;
}

_Static_assert(sizeof(struct lv_user_hdr) == LV_USER_HDR, "header");

static bool negotiated(const struct lv_user_session *session, int bit)
{
	return session->protocol_features >> bit & 1;
}

/* Payload under construction; full stays set once something did not fit. */
struct sink {
	uint8_t *buf;
	size_t cap, len;
	bool full;
};

static void put(struct sink *s, const void *bytes, size_t len)
{
	if (len > s->cap - s->len) {
		s->full = true;
		return;
	}
	if (len)
		memcpy(s->buf + s->len, bytes, len);
	s->len += len;
}

static void put_data_in(struct sink *s, const struct libvhost_req *req)
{
	put(s, (const void *)(uintptr_t)req->data_in, req->data_in_len);
}

static size_t region_size(const struct lv_user_session *session)
{
	return negotiated(session, LIBVHOST_PROTOCOL_F_XEN_MMAP) ? sizeof(struct lv_wire_region)
								 : offsetof(struct lv_wire_region, xen_flags);
}

static void put_table(struct sink *s, const struct libvhost_req *req, const struct lv_user_session *session, int *fds,
		      uint32_t *nfds)
{
	const struct lv_wire_table head = {.count = req->arg.table.count};

	put(s, &head, sizeof(head));
	for (uint32_t i = 0; i < head.count; i++) {
		uint64_t at = req->data_in + (uint64_t)i * req->arg.table.stride;
		const struct libvhost_region *r = (const void *)(uintptr_t)at;
		const struct lv_wire_region w = {.gpa = r->gpa,
						 .size = r->size,
						 .user_addr = r->user_addr,
						 .mmap_offset = r->mmap_offset,
						 .xen_flags = r->xen_flags,
						 .xen_domid = r->xen_domid};

		put(s, &w, region_size(session));
		fds[(*nfds)++] = r->fd;
	}
}

static void put_region(struct sink *s, const struct libvhost_req *req, const struct lv_user_session *session)
{
	const struct libvhost_req_region *r = &req->arg.region;
	const struct lv_wire_region w = {.gpa = r->gpa,
					 .size = r->size,
					 .user_addr = r->user_addr,
					 .mmap_offset = r->mmap_offset,
					 .xen_flags = r->xen_flags,
					 .xen_domid = r->xen_domid};
	const uint64_t padding = 0;

	put(s, &padding, sizeof(padding));
	put(s, &w, region_size(session));
}

static void put_log(struct sink *s, const struct libvhost_req *req, const struct lv_user_session *session)
{
	const struct lv_wire_log w = {.size = req->arg.log.size, .offset = req->arg.log.offset};

	if (negotiated(session, LIBVHOST_PROTOCOL_F_LOG_SHMFD))
		put(s, &w, sizeof(w));
	else
		put(s, &req->arg.log.base, sizeof(req->arg.log.base));
}

static void put_addr(struct sink *s, const struct libvhost_req *req)
{
	const struct libvhost_vring_addr *a = &req->arg.addr;
	const struct lv_wire_addr w = {.index = req->index,
				       .flags = a->flags,
				       .desc = a->desc,
				       .used = a->used,
				       .avail = a->avail,
				       .log = a->log};

	put(s, &w, sizeof(w));
}

static void put_iotlb(struct sink *s, const struct libvhost_req *req)
{
	const struct libvhost_req_iotlb *m = &req->arg.iotlb;
	const struct lv_wire_iotlb w = {
		.iova = m->iova, .size = m->size, .uaddr = m->uaddr, .perm = m->perm, .type = m->type};

	put(s, &w, sizeof(w));
}

/* A request for configuration carries the room for the bytes: peers insist on it. */
static void put_config(struct sink *s, const struct libvhost_req *req)
{
	static const uint8_t room[LV_WIRE_CONFIG];
	const struct libvhost_req_config *c = &req->arg.config;
	const struct lv_wire_config w = {.offset = c->offset, .size = c->size, .flags = c->flags};

	put(s, &w, sizeof(w));
	if (req->op == LIBVHOST_OP_GET_CONFIG)
		put(s, room, c->size);
	else
		put_data_in(s, req);
}

static void put_inflight(struct sink *s, const struct libvhost_req *req)
{
	const struct libvhost_req_inflight *f = &req->arg.inflight;
	const struct lv_wire_inflight w = {.mmap_size = f->mmap_size,
					   .mmap_offset = f->mmap_offset,
					   .num_queues = f->num_queues,
					   .queue_size = f->queue_size};

	put(s, &w, sizeof(w));
}

static void put_mmap(struct sink *s, const struct libvhost_req *req)
{
	const struct libvhost_req_mmap *m = &req->arg.mmap;
	const struct lv_wire_mmap w = {.shmid = m->shmid,
				       .fd_offset = m->fd_offset,
				       .shm_offset = m->shm_offset,
				       .len = m->len,
				       .flags = m->flags};

	put(s, &w, sizeof(w));
}

static void put_area(struct sink *s, const struct libvhost_req *req)
{
	const struct libvhost_req_area *a = &req->arg.area;
	const struct lv_wire_area w = {.ring = req->index | a->flags, .size = a->size, .offset = a->offset};

	put(s, &w, sizeof(w));
}

static void put_u64(struct sink *s, uint64_t value)
{
	put(s, &value, sizeof(value));
}

static void put_payload(struct sink *s, const struct libvhost_req *req, const struct lv_op *row,
			const struct lv_user_session *session)
{
	const struct lv_wire_state state = {.index = req->index, .num = req->arg.num};
	const struct lv_wire_transfer transfer = {.direction = req->arg.transfer.direction,
						  .phase = req->arg.transfer.phase};

	switch (row->payload) {
	case LIBVHOST_PAYLOAD_U64:
		put_u64(s, req->arg.u64);
		return;
	case LIBVHOST_PAYLOAD_VRING_FD:
		put_u64(s, req->index | (req->flags & LIBVHOST_REQ_HAS_FD ? 0 : LV_WIRE_RING_NO_FD));
		return;
	case LIBVHOST_PAYLOAD_STATE:
		put(s, &state, sizeof(state));
		return;
	case LIBVHOST_PAYLOAD_ADDR:
		put_addr(s, req);
		return;
	case LIBVHOST_PAYLOAD_REGION:
		put_region(s, req, session);
		return;
	case LIBVHOST_PAYLOAD_LOG:
		put_log(s, req, session);
		return;
	case LIBVHOST_PAYLOAD_IOTLB:
		put_iotlb(s, req);
		return;
	case LIBVHOST_PAYLOAD_CONFIG:
		put_config(s, req);
		return;
	case LIBVHOST_PAYLOAD_CRYPTO:
		put_data_in(s, req);
		return;
	case LIBVHOST_PAYLOAD_INFLIGHT:
		put_inflight(s, req);
		return;
	case LIBVHOST_PAYLOAD_UUID:
		put(s, req->arg.uuid, sizeof(req->arg.uuid));
		return;
	case LIBVHOST_PAYLOAD_TRANSFER:
		put(s, &transfer, sizeof(transfer));
		return;
	case LIBVHOST_PAYLOAD_MMAP:
		put_mmap(s, req);
		return;
	case LIBVHOST_PAYLOAD_AREA:
		put_area(s, req);
		return;
	default:
		return;
	}
}

/* Feature words beyond the first have no message; ioctl-only operations have none at all. */
static const char *unsayable(const struct libvhost_req *req, const struct lv_op *row)
{
	if (!row->user && row->op != LIBVHOST_OP_RAW)
		return "has no vhost-user message";
	if (row->op == LIBVHOST_OP_SET_FEATURES)
		for (int i = 1; i < LIBVHOST_FEATURE_WORDS; i++)
			if (req->arg.features[i])
				return "vhost-user carries 64 feature bits only";
	return NULL;
}

static struct lv_user_hdr header(const struct libvhost_req *req, const struct lv_op *row,
				 const struct lv_user_session *session, uint32_t hdr_flags, size_t len)
{
	struct lv_user_hdr hdr = {.request = row->user, .flags = LV_USER_VERSION, .size = (uint32_t)len};
	bool own = lv_user_has_reply(req, session, false);

	if (row->op == LIBVHOST_OP_RAW) {
		hdr.request = req->arg.raw.request;
		hdr.flags = req->arg.raw.flags;
	} else if (!own && lv_user_has_reply(req, session, true)) {
		hdr.flags |= hdr_flags & LV_USER_F_NEED_REPLY;
	}
	return hdr;
}

int lv_user_encode(const struct libvhost_req *req, const struct lv_user_session *session, uint32_t hdr_flags, void *buf,
		   size_t cap, int *fds, uint32_t *nfds, const char **why)
{
	const struct lv_op *row = lv_op(req->op);
	struct lv_user_hdr hdr;
	struct sink s;

	if (!row) {
		*why = "unknown operation";
		return -EINVAL;
	}
	*why = unsayable(req, row);
	if (*why)
		return -ENOTSUP;
	*why = lv_user_check(req, row, session);
	if (*why)
		return -EINVAL;
	*nfds = 0;
	s = (struct sink){.buf = (uint8_t *)buf + LV_USER_HDR, .cap = cap < LV_USER_HDR ? 0 : cap - LV_USER_HDR};
	if (row->op == LIBVHOST_OP_RAW)
		put_data_in(&s, req);
	else if (row->payload == LIBVHOST_PAYLOAD_TABLE)
		put_table(&s, req, session, fds, nfds);
	else
		put_payload(&s, req, row, session);
	if (s.full || cap < LV_USER_HDR) {
		*why = "message does not fit the buffer";
		return -EMSGSIZE;
	}
	if (req->flags & LIBVHOST_REQ_HAS_FD)
		fds[(*nfds)++] = req->fd;
	hdr = header(req, row, session, hdr_flags, s.len);
	lv_user_hdr_put(buf, &hdr);
	return (int)(LV_USER_HDR + s.len);
}
