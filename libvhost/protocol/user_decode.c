/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * vhost-user message -> struct libvhost_req. A stranger wrote the bytes: the size is compared before anything is read,
 * and what was read is judged by lv_user_check.
 */
#include <errno.h>
#include <string.h>
#include "protocol/codec.h"
#include "protocol/user_wire.h"

struct source {
	const struct lv_user_msg *msg;
	const struct lv_user_session *session;
	uint8_t *scratch; /* at least LV_USER_SCRATCH bytes */
};

static const char bad_size[] = "payload size does not fit the message";

static bool negotiated(const struct source *s, int bit)
{
	return s->session->protocol_features >> bit & 1;
}

/* Copies a fixed payload of which the last bytes may be missing. */
static const char *get(const struct source *s, void *to, uint32_t size, uint32_t shortest)
{
	if (s->msg->hdr.size != size && s->msg->hdr.size != shortest)
		return bad_size;
	memset(to, 0, size);
	memcpy(to, s->msg->payload, s->msg->hdr.size);
	return NULL;
}

static uint32_t region_size(const struct source *s)
{
	return negotiated(s, LIBVHOST_PROTOCOL_F_XEN_MMAP) ? sizeof(struct lv_wire_region)
							   : offsetof(struct lv_wire_region, xen_flags);
}

static const char *get_table(struct libvhost_req *req, const struct source *s)
{
	const uint8_t *bytes = s->msg->payload;
	uint32_t stride = region_size(s);
	struct lv_wire_table head;

	if (s->msg->hdr.size < sizeof(head))
		return bad_size;
	memcpy(&head, bytes, sizeof(head));
	if (head.count > LV_WIRE_REGIONS)
		return "more than 8 regions in one table";
	if (s->msg->hdr.size != sizeof(head) + head.count * stride)
		return bad_size;
	if (s->msg->nfds != head.count)
		return "number of descriptors is not the number of regions";
	for (uint32_t i = 0; i < head.count; i++) {
		struct lv_wire_region w = {0};
		struct libvhost_region r;

		memcpy(&w, bytes + sizeof(head) + i * stride, stride);
		r = (struct libvhost_region){.gpa = w.gpa,
					     .size = w.size,
					     .user_addr = w.user_addr,
					     .mmap_offset = w.mmap_offset,
					     .fd = s->msg->fds[i],
					     .flags = LIBVHOST_REGION_HAS_FD,
					     .xen_flags = w.xen_flags,
					     .xen_domid = w.xen_domid};
		memcpy(s->scratch + i * sizeof(r), &r, sizeof(r));
	}
	req->arg.table = (struct libvhost_req_table){.count = head.count, .stride = sizeof(struct libvhost_region)};
	req->data_in = (uintptr_t)s->scratch;
	req->data_in_len = head.count * (uint32_t)sizeof(struct libvhost_region);
	return NULL;
}

static const char *get_region(struct libvhost_req *req, const struct source *s)
{
	uint8_t bytes[8 + sizeof(struct lv_wire_region)] = {0}; /* 8 bytes of padding come first */
	uint32_t size = 8 + region_size(s);
	const char *why = get(s, bytes, size, size);
	struct lv_wire_region w;

	if (why)
		return why;
	memcpy(&w, bytes + 8, sizeof(w));
	req->arg.region = (struct libvhost_req_region){.gpa = w.gpa,
						       .size = w.size,
						       .user_addr = w.user_addr,
						       .mmap_offset = w.mmap_offset,
						       .xen_flags = w.xen_flags,
						       .xen_domid = w.xen_domid};
	return NULL;
}

static const char *get_log(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_log w = {0};
	const char *why;

	if (!negotiated(s, LIBVHOST_PROTOCOL_F_LOG_SHMFD))
		return get(s, &req->arg.log.base, 8, 8);
	why = get(s, &w, sizeof(w), sizeof(w));
	req->arg.log.size = w.size;
	req->arg.log.offset = w.offset;
	return why;
}

static const char *get_state(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_state w = {0};
	const char *why = get(s, &w, sizeof(w), sizeof(w));

	req->index = w.index;
	req->arg.num = w.num;
	return why;
}

static const char *get_addr(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_addr w = {0};
	const char *why = get(s, &w, sizeof(w), sizeof(w));

	req->index = w.index;
	req->arg.addr = (struct libvhost_vring_addr){
		.flags = w.flags, .desc = w.desc, .used = w.used, .avail = w.avail, .log = w.log};
	return why;
}

/* A descriptor beside the "none" bit is legal and means nothing. */
static const char *get_vring_fd(struct libvhost_req *req, const struct source *s)
{
	uint64_t w = 0;
	const char *why = get(s, &w, sizeof(w), sizeof(w));

	if (why)
		return why;
	if (w & ~(uint64_t)(LV_WIRE_RING_INDEX | LV_WIRE_RING_NO_FD))
		return "unknown bits beside the queue index";
	req->index = w & LV_WIRE_RING_INDEX;
	if (w & LV_WIRE_RING_NO_FD)
		req->flags &= ~LIBVHOST_REQ_HAS_FD;
	else if (!(req->flags & LIBVHOST_REQ_HAS_FD))
		return "neither a descriptor nor the bit that says there is none";
	return NULL;
}

static const char *get_iotlb(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_iotlb w = {0};
	const char *why = get(s, &w, sizeof(w), LV_WIRE_IOTLB_SHORT);

	req->arg.iotlb = (struct libvhost_req_iotlb){
		.iova = w.iova, .size = w.size, .uaddr = w.uaddr, .perm = w.perm, .type = w.type};
	return why;
}

/* vhost-user spec, "VHOST_USER_SET_CONFIG": 0 guest write, 1 live migration; front-ends built on rust-vmm say 2 for the
 * latter. (They also say 1 for the former, which cannot be told from a migration.) */
static uint32_t config_flags(uint32_t op, uint32_t flags)
{
	return op == LIBVHOST_OP_SET_CONFIG && flags == 2 ? 1 : flags;
}

static const char *get_config(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_config w;

	if (s->msg->hdr.size < sizeof(w))
		return bad_size;
	memcpy(&w, s->msg->payload, sizeof(w));
	if (w.size > LV_WIRE_CONFIG || s->msg->hdr.size != sizeof(w) + w.size)
		return bad_size;
	req->arg.config = (struct libvhost_req_config){
		.offset = w.offset, .size = w.size, .flags = config_flags(req->op, w.flags)};
	if (req->op == LIBVHOST_OP_GET_CONFIG) {
		memset(s->scratch, 0, w.size);
		req->data_out = (uintptr_t)s->scratch;
		req->data_out_cap = w.size;
	} else {
		memcpy(s->scratch, (const uint8_t *)s->msg->payload + sizeof(w), w.size);
		req->data_in = (uintptr_t)s->scratch;
		req->data_in_len = w.size;
	}
	return NULL;
}

static const char *get_crypto(struct libvhost_req *req, const struct source *s)
{
	if (s->msg->hdr.size != LV_WIRE_CRYPTO && s->msg->hdr.size != LV_WIRE_CRYPTO_OLD)
		return bad_size;
	memcpy(s->scratch, s->msg->payload, s->msg->hdr.size);
	req->data_in = (uintptr_t)s->scratch;
	req->data_in_len = s->msg->hdr.size;
	return NULL;
}

static const char *get_inflight(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_inflight w = {0};
	const char *why = get(s, &w, sizeof(w), LV_WIRE_INFLIGHT_SHORT);

	req->arg.inflight = (struct libvhost_req_inflight){.mmap_size = w.mmap_size,
							   .mmap_offset = w.mmap_offset,
							   .num_queues = w.num_queues,
							   .queue_size = w.queue_size};
	return why;
}

static const char *get_transfer(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_transfer w = {0};
	const char *why = get(s, &w, sizeof(w), sizeof(w));

	req->arg.transfer = (struct libvhost_req_transfer){.direction = w.direction, .phase = w.phase};
	return why;
}

static const char *get_mmap(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_mmap w = {0};
	const char *why = get(s, &w, sizeof(w), sizeof(w));

	req->arg.mmap = (struct libvhost_req_mmap){
		.shmid = w.shmid, .fd_offset = w.fd_offset, .shm_offset = w.shm_offset, .len = w.len, .flags = w.flags};
	return why;
}

static const char *get_area(struct libvhost_req *req, const struct source *s)
{
	struct lv_wire_area w = {0};
	const char *why = get(s, &w, sizeof(w), sizeof(w));

	req->index = w.ring & LV_WIRE_RING_INDEX;
	req->arg.area = (struct libvhost_req_area){
		.flags = w.ring & ~(uint64_t)LV_WIRE_RING_INDEX, .size = w.size, .offset = w.offset};
	return why;
}

static const char *get_nothing(struct libvhost_req *req, const struct source *s)
{
	if (s->msg->hdr.size)
		return bad_size;
	if (req->op == LIBVHOST_OP_GET_SHMEM_CONFIG) {
		memset(s->scratch, 0, sizeof(struct lv_wire_shmem));
		req->data_out = (uintptr_t)s->scratch;
		req->data_out_cap = sizeof(struct lv_wire_shmem);
	}
	return NULL;
}

static const char *get_payload(struct libvhost_req *req, const struct lv_op *row, const struct source *s)
{
	switch (row->payload) {
	case LIBVHOST_PAYLOAD_U64:
		return get(s, &req->arg.u64, 8, 8);
	case LIBVHOST_PAYLOAD_STATE:
		return get_state(req, s);
	case LIBVHOST_PAYLOAD_ADDR:
		return get_addr(req, s);
	case LIBVHOST_PAYLOAD_TABLE:
		return get_table(req, s);
	case LIBVHOST_PAYLOAD_REGION:
		return get_region(req, s);
	case LIBVHOST_PAYLOAD_LOG:
		return get_log(req, s);
	case LIBVHOST_PAYLOAD_IOTLB:
		return get_iotlb(req, s);
	case LIBVHOST_PAYLOAD_CONFIG:
		return get_config(req, s);
	case LIBVHOST_PAYLOAD_CRYPTO:
		return get_crypto(req, s);
	case LIBVHOST_PAYLOAD_INFLIGHT:
		return get_inflight(req, s);
	case LIBVHOST_PAYLOAD_UUID:
		return get(s, req->arg.uuid, sizeof(req->arg.uuid), sizeof(req->arg.uuid));
	case LIBVHOST_PAYLOAD_TRANSFER:
		return get_transfer(req, s);
	case LIBVHOST_PAYLOAD_MMAP:
		return get_mmap(req, s);
	case LIBVHOST_PAYLOAD_AREA:
		return get_area(req, s);
	case LIBVHOST_PAYLOAD_VRING_FD:
		return get_vring_fd(req, s);
	default:
		return get_nothing(req, s);
	}
}

/* Legacy front-ends attach the region's descriptor to REM_MEM_REG; the specification lets them. */
static const char *take_fds(struct libvhost_req *req, const struct lv_op *row, const struct lv_user_msg *msg)
{
	if (row->payload == LIBVHOST_PAYLOAD_TABLE)
		return NULL; /* counted against the table */
	if (row->op == LIBVHOST_OP_REM_MEM_REG && msg->nfds <= 1)
		return NULL;
	if (msg->nfds > row->max_fds)
		return row->max_fds ? "more than one descriptor" : "takes no descriptor";
	if (msg->nfds) {
		req->fd = msg->fds[0];
		req->flags |= LIBVHOST_REQ_HAS_FD;
	}
	return NULL;
}

static const char *check_framing(const struct lv_user_hdr *hdr)
{
	if ((hdr->flags & 3) != LV_USER_VERSION)
		return "protocol version is not 1";
	if (hdr->flags & LV_USER_F_REPLY)
		return "a request that claims to be a reply";
	if (hdr->size > LV_USER_MAX_PAYLOAD)
		return "payload is larger than any message";
	return NULL;
}

int lv_user_decode(struct libvhost_req *req, const struct lv_user_msg *msg, bool from_backend,
		   const struct lv_user_session *session, void *scratch, size_t scratch_len, const char **why)
{
	const struct source s = {.msg = msg, .session = session, .scratch = scratch};
	const struct lv_op *row = lv_op_by_user(msg->hdr.request, from_backend);

	*req = (struct libvhost_req){.op = row ? row->op : LIBVHOST_OP_NONE};
	*why = check_framing(&msg->hdr);
	if (*why)
		return -EPROTO;
	if (!row) {
		*why = "unknown request";
		return -ENOSYS;
	}
	if (scratch_len < LV_USER_SCRATCH) {
		*why = "scratch buffer is too small";
		return -EINVAL;
	}
	*why = take_fds(req, row, msg);
	if (!*why)
		*why = get_payload(req, row, &s);
	if (!*why)
		*why = lv_user_check(req, row, session);
	return *why ? -EBADMSG : 0;
}
