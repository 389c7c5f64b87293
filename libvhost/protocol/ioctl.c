/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "protocol/ioctl.h"

#include <errno.h>
#include <string.h>
#include "protocol/codec.h"
#include "protocol/uapi.h"

/* Words asked for and set when the upper ones are 0: those that kernels have. The first kernels with feature arrays
 * clear the wrong bytes when asked for more. */
#define FEATURE_WORDS 2u

struct arg {
	uint8_t *buf;
	size_t cap, len;
	const char **why;
};

static int fail(const struct arg *a, int code, const char *why)
{
	*a->why = why;
	return code;
}

static int put(struct arg *a, const void *bytes, size_t len)
{
	if (len > a->cap - a->len)
		return fail(a, -EMSGSIZE, "argument does not fit the buffer");
	if (len)
		memcpy(a->buf + a->len, bytes, len);
	a->len += len;
	return 0;
}

static int put_features(struct arg *a, const struct libvhost_req *req)
{
	for (int i = 1; i < LIBVHOST_FEATURE_WORDS; i++)
		if (req->arg.features[i])
			return fail(a, -ENOTSUP, "this ioctl carries 64 feature bits only: use SET_FEATURES_ARRAY");
	return put(a, &req->arg.features[0], sizeof(uint64_t));
}

static int put_feature_array(struct arg *a, const struct libvhost_req *req)
{
	struct lv_uapi_features head = {.count = FEATURE_WORDS};
	static const uint64_t room[FEATURE_WORDS];
	int r;

	if (req->op == LIBVHOST_OP_GET_FEATURES_ARRAY) {
		r = put(a, &head, sizeof(head));
		return r < 0 ? r : put(a, room, sizeof(room));
	}
	for (uint32_t i = FEATURE_WORDS; i < LIBVHOST_FEATURE_WORDS; i++)
		if (req->arg.features[i])
			head.count = i + 1;
	r = put(a, &head, sizeof(head));
	return r < 0 ? r : put(a, req->arg.features, head.count * sizeof(uint64_t));
}

static int put_state(struct arg *a, uint32_t index, uint32_t num)
{
	const struct lv_uapi_state w = {.index = index, .num = num};

	return put(a, &w, sizeof(w));
}

static int put_addr(struct arg *a, const struct libvhost_req *req)
{
	const struct libvhost_vring_addr *v = &req->arg.addr;
	const struct lv_uapi_addr w = {.index = req->index,
				       .flags = v->flags,
				       .desc = v->desc,
				       .used = v->used,
				       .avail = v->avail,
				       .log = v->log};

	return put(a, &w, sizeof(w));
}

static int put_table(struct arg *a, const struct libvhost_req *req)
{
	const struct libvhost_req_table *t = &req->arg.table;
	const struct lv_uapi_memory head = {.count = t->count};
	int r;

	if (t->count > LIBVHOST_MAX_REGIONS)
		return fail(a, -EINVAL, "more than 512 regions");
	if (t->count && (!req->data_in || t->stride < sizeof(struct libvhost_region) || t->stride % 8 ||
			 req->data_in_len / t->stride < t->count))
		return fail(a, -EINVAL, "table does not lie in data_in");
	r = put(a, &head, sizeof(head));
	for (uint32_t i = 0; i < t->count && r == 0; i++) {
		const struct libvhost_region *from = (const void *)(uintptr_t)(req->data_in + (uint64_t)i * t->stride);
		const struct lv_uapi_region w = {.gpa = from->gpa, .size = from->size, .user_addr = from->user_addr};

		if (!w.size || w.gpa > UINT64_MAX - w.size || w.user_addr > UINT64_MAX - w.size)
			return fail(a, -EINVAL, "region is empty or wraps");
		r = put(a, &w, sizeof(w));
	}
	return r;
}

/* The fd counts under HAS_FD; -1 unbinds. */
static int fd_of(const struct libvhost_req *req)
{
	return req->flags & LIBVHOST_REQ_HAS_FD ? req->fd : -1;
}

static int put_file(struct arg *a, const struct libvhost_req *req)
{
	const struct lv_uapi_file w = {.index = req->index, .fd = fd_of(req)};

	return put(a, &w, sizeof(w));
}

static int put_number(struct arg *a, const struct libvhost_req *req, size_t bytes)
{
	uint64_t value = lv_ioctl_returns(req->op) ? 0 : req->arg.u64;
	uint32_t u32 = (uint32_t)value;
	uint16_t u16 = (uint16_t)value;
	uint8_t u8 = (uint8_t)value;

	if (bytes < sizeof(value) && value >> (8 * bytes))
		return fail(a, -EINVAL, "value has more bits than the ioctl takes");
	return put(a, bytes == 1 ? &u8 : bytes == 2 ? (void *)&u16 : (void *)&u32, bytes);
}

static int put_config(struct arg *a, const struct libvhost_req *req)
{
	static const uint8_t room[LIBVHOST_MAX_CONFIG];
	const struct libvhost_req_config *c = &req->arg.config;
	const struct lv_uapi_config head = {.offset = c->offset, .size = c->size};
	bool get = req->op == LIBVHOST_OP_GET_CONFIG;
	int r;

	if (!c->size || c->size > LIBVHOST_MAX_CONFIG || c->offset > UINT32_MAX - c->size)
		return fail(a, -EINVAL, "configuration range is empty, too large or wraps");
	if (get ? !req->data_out || req->data_out_cap < c->size : !req->data_in || req->data_in_len != c->size)
		return fail(a, -EINVAL, "data_in or data_out does not have the size given");
	r = put(a, &head, sizeof(head));
	return r < 0 ? r : put(a, get ? room : (const void *)(uintptr_t)req->data_in, c->size);
}

static int put_worker(struct arg *a, const struct libvhost_req *req)
{
	const struct lv_uapi_vring_worker w = {
		.index = req->index, .worker = req->op == LIBVHOST_OP_ATTACH_VRING_WORKER ? (uint32_t)req->arg.u64 : 0};

	if (w.worker != req->arg.u64 && req->op == LIBVHOST_OP_ATTACH_VRING_WORKER)
		return fail(a, -EINVAL, "worker number has more than 32 bits");
	return put(a, &w, sizeof(w));
}

/* data_in: the target's world wide name, without terminator; u64: ABI version; index: portal group (ABI 1: ignored). */
static int put_scsi(struct arg *a, const struct libvhost_req *req)
{
	struct lv_uapi_scsi_target w = {.abi = (int32_t)req->arg.u64, .tpgt = (uint16_t)req->index};

	if (!req->data_in || !req->data_in_len || req->data_in_len >= LV_UAPI_WWPN)
		return fail(a, -EINVAL, "target name is empty or longer than 223 characters");
	if (req->index > UINT16_MAX || req->arg.u64 > INT32_MAX)
		return fail(a, -EINVAL, "portal group or ABI version out of range");
	memcpy(w.wwpn, (const void *)(uintptr_t)req->data_in, req->data_in_len);
	return put(a, &w, sizeof(w));
}

static int put_arg(struct arg *a, const struct libvhost_req *req, const struct lv_op *row)
{
	const struct lv_uapi_range range = {0};
	int32_t fd = fd_of(req);

	switch (row->ioctl_arg) {
	case LV_IARG_NONE:
		return 0;
	case LV_IARG_U64:
		if (lv_ioctl_returns(row->op))
			return put(a, &(uint64_t){0}, sizeof(uint64_t));
		return row->op == LIBVHOST_OP_SET_FEATURES ? put_features(a, req) : put(a, &req->arg.u64, 8);
	case LV_IARG_U64_PTR:
		return put(a, &req->arg.log.base, sizeof(req->arg.log.base));
	case LV_IARG_STATE:
		return put_state(a, req->index, lv_ioctl_returns(row->op) ? 0 : req->arg.num);
	case LV_IARG_ADDR:
		return put_addr(a, req);
	case LV_IARG_TABLE:
		return put_table(a, req);
	case LV_IARG_FILE:
		return put_file(a, req);
	case LV_IARG_INT_FD:
		return put(a, &fd, sizeof(fd));
	case LV_IARG_INT:
	case LV_IARG_U32:
		return put_number(a, req, 4);
	case LV_IARG_U16:
		return put_number(a, req, 2);
	case LV_IARG_U8:
		return put_number(a, req, 1);
	case LV_IARG_CONFIG:
		return put_config(a, req);
	case LV_IARG_WORKER:
		return put_worker(a, req);
	case LV_IARG_SCSI:
		return put_scsi(a, req);
	case LV_IARG_FEATURES:
		return put_feature_array(a, req);
	case LV_IARG_RANGE:
		return put(a, &range, sizeof(range));
	default:
		return fail(a, -ENOTSUP, "is written to the device node, not an ioctl");
	}
}

int lv_ioctl_encode(const struct libvhost_req *req, void *arg, size_t cap, const char **why)
{
	const struct lv_op *row = lv_op(req->op);
	struct arg a = {.buf = arg, .cap = cap, .why = why};
	int r;

	if (!row || !row->ioctl_nr)
		return fail(&a, -ENOTSUP, "has no ioctl");
	if (req->flags & LIBVHOST_REQ_HAS_FD && req->fd < 0)
		return fail(&a, -EINVAL, "descriptor is negative");
	r = put_arg(&a, req, row);
	return r < 0 ? r : (int)a.len;
}

bool lv_ioctl_returns(uint32_t op)
{
	const struct lv_op *row = lv_op(op);

	switch (op) {
	case LIBVHOST_OP_GET_VRING_ENDIAN:
	case LIBVHOST_OP_GET_VRING_BUSYLOOP_TIMEOUT:
	case LIBVHOST_OP_SCSI_GET_ABI_VERSION:
	case LIBVHOST_OP_SCSI_GET_EVENTS_MISSED:
		return true;
	default:
		return row && _IOC_DIR((unsigned)row->ioctl_nr) & _IOC_READ;
	}
}

/* State and worker: the number follows the index, which the kernel leaves alone. */
static int take_second(struct libvhost_req *req, const void *arg, const char **why)
{
	struct lv_uapi_state w;

	memcpy(&w, arg, sizeof(w));
	if (w.index != req->index) {
		*why = "the kernel answered for another queue";
		return -EPROTO;
	}
	req->result[0] = w.num;
	return 0;
}

static int take_config(struct libvhost_req *req, const uint8_t *arg, const char **why)
{
	uint32_t size = req->arg.config.size;

	if (!req->data_out || req->data_out_cap < size) {
		*why = "data_out is too small for the answer";
		return -EMSGSIZE;
	}
	memcpy((void *)(uintptr_t)req->data_out, arg + sizeof(struct lv_uapi_config), size);
	req->data_out_len = size;
	req->result[0] = size;
	return 0;
}

static uint64_t number(const void *arg, size_t bytes)
{
	uint32_t u32;
	uint16_t u16;

	memcpy(&u32, arg, bytes == 4 ? 4 : 0);
	memcpy(&u16, arg, bytes == 2 ? 2 : 0);
	return bytes == 4 ? u32 : bytes == 2 ? u16 : *(const uint8_t *)arg;
}

int lv_ioctl_decode_result(struct libvhost_req *req, const void *arg, size_t len, const char **why)
{
	const struct lv_op *row = lv_op(req->op);
	uint64_t words[2] = {0};

	if (!row || !lv_ioctl_returns(req->op) || !len)
		return 0;
	switch (row->ioctl_arg) {
	case LV_IARG_STATE:
	case LV_IARG_WORKER:
		return take_second(req, arg, why);
	case LV_IARG_CONFIG:
		return take_config(req, arg, why);
	case LV_IARG_FEATURES:
		memcpy(words, (const uint8_t *)arg + sizeof(struct lv_uapi_features), sizeof(words));
		break;
	case LV_IARG_RANGE:
		memcpy(words, arg, sizeof(words));
		break;
	case LV_IARG_U64:
		memcpy(words, arg, sizeof(words[0]));
		break;
	default:
		words[0] = number(arg, len);
	}
	memcpy(req->result, words, sizeof(words));
	return 0;
}
