/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What the values of a vhost-user request must satisfy. Called for requests we send and for those we receive. */
#include "protocol/codec.h"
#include "protocol/user_wire.h"

#define MAX_RING_SIZE 32768u /* virtio 1.3, 2.7: queue size is at most 2^15 */

static bool wraps(uint64_t start, uint64_t size)
{
	return start > UINT64_MAX - size;
}

/* I/O virtual addresses have no end marker: a range may reach the last byte of the address space. */
static bool beyond_last(uint64_t start, uint64_t size)
{
	return size && size - 1 > UINT64_MAX - start;
}

/* File ranges end up in mmap, whose offset is signed; this also keeps rounding to pages from wrapping. */
static bool outside_file(uint64_t offset, uint64_t size)
{
	return wraps(offset, size) || offset + size > INT64_MAX;
}

static const char *check_region(uint64_t gpa, uint64_t size, uint64_t user_addr, uint64_t offset)
{
	if (!size)
		return "region of size 0";
	if (wraps(gpa, size))
		return "guest-physical range of a region wraps";
	if (wraps(user_addr, size))
		return "user address range of a region wraps";
	if (outside_file(offset, size))
		return "file range of a region wraps";
	return NULL;
}

static const char *check_table(const struct libvhost_req *req)
{
	const struct libvhost_req_table *t = &req->arg.table;

	if (t->count > LV_WIRE_REGIONS)
		return "more than 8 regions in one table";
	if (!t->count)
		return NULL;
	if (!req->data_in || t->stride < sizeof(struct libvhost_region) || t->stride % 8 ||
	    req->data_in_len / t->stride < t->count)
		return "table does not lie in data_in";
	for (uint32_t i = 0; i < t->count; i++) {
		const struct libvhost_region *r = (const void *)(uintptr_t)(req->data_in + (uint64_t)i * t->stride);
		const char *why = check_region(r->gpa, r->size, r->user_addr, r->mmap_offset);

		if (why)
			return why;
		if (!(r->flags & LIBVHOST_REGION_HAS_FD) || r->fd < 0)
			return "region without descriptor";
	}
	return NULL;
}

static const char *check_state(const struct libvhost_req *req)
{
	switch (req->op) {
	case LIBVHOST_OP_SET_VRING_NUM:
		return !req->arg.num || req->arg.num > MAX_RING_SIZE ? "ring size outside 1..32768" : NULL;
	case LIBVHOST_OP_SET_VRING_ENABLE:
		return req->arg.num > 1 ? "neither enable (1) nor disable (0)" : NULL;
	case LIBVHOST_OP_SET_VRING_ENDIAN:
		return req->arg.num > 1 ? "byte order is neither little (0) nor big (1)" : NULL;
	default:
		return NULL;
	}
}

/* vhost-user spec, "IOTLB message": the front-end updates and invalidates, the back-end misses and fails. */
static const char *check_iotlb(const struct libvhost_req *req, bool from_backend)
{
	const struct libvhost_req_iotlb *m = &req->arg.iotlb;

	if (from_backend ? m->type != 1 && m->type != 4 : m->type != 2 && m->type != 3)
		return "IOTLB message type does not fit the direction";
	if (m->perm > 3 || (m->type == 2 && !m->perm))
		return "IOTLB permission outside 1..3";
	if (!m->size && m->type != 1 && m->type != 4)
		return "IOTLB range of size 0";
	if (beyond_last(m->iova, m->size) || (m->type == 2 && wraps(m->uaddr, m->size)))
		return "IOTLB range wraps";
	return NULL;
}

static const char *check_config(const struct libvhost_req *req)
{
	const struct libvhost_req_config *c = &req->arg.config;

	if (!c->size || c->size > LV_WIRE_CONFIG)
		return "configuration size outside 1..256";
	if (c->offset > UINT32_MAX - c->size)
		return "configuration range wraps";
	if (req->op == LIBVHOST_OP_GET_CONFIG)
		return !req->data_out || req->data_out_cap < c->size ? "data_out is smaller than the size asked for"
								     : NULL;
	if (c->flags > 1)
		return "unknown configuration flags";
	return !req->data_in || req->data_in_len != c->size ? "data_in does not have the size given" : NULL;
}

static const char *check_inflight(const struct libvhost_req *req)
{
	const struct libvhost_req_inflight *f = &req->arg.inflight;

	if (!f->num_queues || f->num_queues > LIBVHOST_MAX_QUEUES)
		return "number of queues outside 1..256";
	if (!f->queue_size || f->queue_size > MAX_RING_SIZE)
		return "queue size outside 1..32768";
	if (req->op == LIBVHOST_OP_GET_INFLIGHT_FD)
		return NULL;
	if (!f->mmap_size)
		return "inflight region of size 0";
	return outside_file(f->mmap_offset, f->mmap_size) ? "inflight region wraps" : NULL;
}

static const char *check_mmap(const struct libvhost_req *req)
{
	const struct libvhost_req_mmap *m = &req->arg.mmap;

	if (!m->len)
		return "mapping of size 0";
	if (wraps(m->shm_offset, m->len) || outside_file(m->fd_offset, m->len))
		return "mapping wraps";
	return m->flags > 1 ? "unknown mapping flags" : NULL;
}

static const char *check_area(const struct libvhost_req *req)
{
	const struct libvhost_req_area *a = &req->arg.area;

	if (a->flags & ~(uint64_t)LV_WIRE_AREA_REMOVE)
		return "unknown flags of a notifier area";
	if (a->flags)
		return NULL;
	if (!a->size)
		return "notifier area of size 0";
	return outside_file(a->offset, a->size) ? "notifier area wraps" : NULL;
}

static const char *check_u64(const struct libvhost_req *req)
{
	if (req->op == LIBVHOST_OP_SET_STATUS && req->arg.u64 > 0xff)
		return "device status has 8 bits";
	if (req->op == LIBVHOST_OP_SEND_RARP && req->arg.u64 >> 48)
		return "MAC address has 6 bytes";
	if (req->op == LIBVHOST_OP_NET_SET_MTU && req->arg.u64 > 0xffff)
		return "MTU has 16 bits";
	return NULL;
}

static const char *check_crypto(const struct libvhost_req *req)
{
	if (req->data_in && (req->data_in_len == LV_WIRE_CRYPTO || req->data_in_len == LV_WIRE_CRYPTO_OLD))
		return NULL;
	return "crypto session has neither 1072 nor 632 bytes";
}

static const char *check_payload(const struct libvhost_req *req, const struct lv_op *row)
{
	const struct libvhost_req_region *r = &req->arg.region;

	switch (row->payload) {
	case LIBVHOST_PAYLOAD_U64:
		return check_u64(req);
	case LIBVHOST_PAYLOAD_STATE:
		return check_state(req);
	case LIBVHOST_PAYLOAD_ADDR:
		return req->arg.addr.flags > 1 ? "unknown ring address flags" : NULL;
	case LIBVHOST_PAYLOAD_TABLE:
		return check_table(req);
	case LIBVHOST_PAYLOAD_REGION:
		return check_region(r->gpa, r->size, r->user_addr, r->mmap_offset);
	case LIBVHOST_PAYLOAD_IOTLB:
		return check_iotlb(req, row->inbound != LV_INBOUND_NONE);
	case LIBVHOST_PAYLOAD_CONFIG:
		return check_config(req);
	case LIBVHOST_PAYLOAD_CRYPTO:
		return check_crypto(req);
	case LIBVHOST_PAYLOAD_INFLIGHT:
		return check_inflight(req);
	case LIBVHOST_PAYLOAD_TRANSFER:
		return req->arg.transfer.direction > 1 || req->arg.transfer.phase ? "unknown direction or phase" : NULL;
	case LIBVHOST_PAYLOAD_MMAP:
		return check_mmap(req);
	case LIBVHOST_PAYLOAD_AREA:
		return check_area(req);
	default:
		return NULL;
	}
}

static bool has_queue(uint32_t payload)
{
	return payload == LIBVHOST_PAYLOAD_STATE || payload == LIBVHOST_PAYLOAD_ADDR ||
	       payload == LIBVHOST_PAYLOAD_AREA || payload == LIBVHOST_PAYLOAD_VRING_FD;
}

static const char *check_fd(const struct libvhost_req *req, const struct lv_op *row, bool log_shmfd)
{
	bool given = req->flags & LIBVHOST_REQ_HAS_FD;

	if (given && req->fd < 0)
		return "descriptor is negative";
	if (!row->max_fds || row->payload == LIBVHOST_PAYLOAD_TABLE ||
	    (row->payload == LIBVHOST_PAYLOAD_LOG && !log_shmfd))
		return given ? "takes no descriptor" : NULL;
	if (row->payload == LIBVHOST_PAYLOAD_VRING_FD || row->op == LIBVHOST_OP_RAW)
		return NULL;
	if (row->payload == LIBVHOST_PAYLOAD_AREA && req->arg.area.flags)
		return NULL;
	return given ? NULL : "needs a descriptor";
}

const char *lv_user_check(const struct libvhost_req *req, const struct lv_op *row,
			  const struct lv_user_session *session)
{
	bool log_shmfd = session->protocol_features >> LIBVHOST_PROTOCOL_F_LOG_SHMFD & 1;
	const char *why = check_fd(req, row, log_shmfd);

	if (why)
		return why;
	if (row->op == LIBVHOST_OP_RAW && req->data_in_len && !req->data_in)
		return "data_in_len without data_in";
	if (has_queue(row->payload) && req->index >= LIBVHOST_MAX_QUEUES)
		return "queue index outside 0..255";
	if (row->payload == LIBVHOST_PAYLOAD_LOG && log_shmfd &&
	    (!req->arg.log.size || outside_file(req->arg.log.offset, req->arg.log.size)))
		return "dirty log of size 0 or wrapping";
	return check_payload(req, row);
}
