/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* IOTLB messages that are written to and read from a vhost or vDPA device node. */
#include <errno.h>
#include <string.h>
#include "protocol/codec.h"
#include "protocol/ioctl.h"
#include "protocol/uapi.h"

enum { MISS = 1, UPDATE = 2, INVALIDATE = 3, ACCESS_FAIL = 4, BATCH_BEGIN = 5, BATCH_END = 6 };

static const char *check(const struct libvhost_req_iotlb *m, bool v2)
{
	if (m->type < MISS || m->type > BATCH_END)
		return "unknown IOTLB message type";
	if (!v2 && m->asid)
		return "address spaces need IOTLB messages of version 2";
	if (m->type == BATCH_BEGIN || m->type == BATCH_END)
		return NULL;
	if (m->perm > 3 || (m->type == UPDATE && !m->perm))
		return "IOTLB permission outside 1..3";
	/* Size 0 would mean 2^64 bytes, which several kernels mishandle: two halves say the same. */
	if (!m->size && (m->type == UPDATE || m->type == INVALIDATE))
		return "IOTLB range of size 0";
	return m->size && m->size - 1 > UINT64_MAX - m->iova ? "IOTLB range wraps" : NULL;
}

int lv_iotlb_encode(const struct libvhost_req *req, bool v2, void *buf, size_t cap, const char **why)
{
	const struct libvhost_req_iotlb *m = &req->arg.iotlb;
	const struct lv_uapi_msg w = {
		.version = v2 ? 2 : 1,
		.asid = m->asid,
		.iotlb = {.iova = m->iova, .size = m->size, .uaddr = m->uaddr, .perm = m->perm, .type = m->type}};

	*why = check(m, v2);
	if (*why)
		return !v2 && m->asid ? -ENOTSUP : -EINVAL;
	if (cap < sizeof(w)) {
		*why = "message does not fit the buffer";
		return -EINVAL;
	}
	memcpy(buf, &w, sizeof(w));
	return (int)sizeof(w);
}

int lv_iotlb_decode(struct libvhost_req *req, const void *buf, size_t len, const char **why)
{
	struct libvhost_req_iotlb m;
	struct lv_uapi_msg w;

	*why = "IOTLB message has a size other than 72";
	if (len != sizeof(w))
		return -EPROTO;
	memcpy(&w, buf, sizeof(w));
	*why = "unknown version of an IOTLB message";
	if (w.version != 1 && w.version != 2)
		return -EPROTO;
	m = (struct libvhost_req_iotlb){.iova = w.iotlb.iova,
					.size = w.iotlb.size,
					.uaddr = w.iotlb.uaddr,
					.perm = w.iotlb.perm,
					.type = w.iotlb.type,
					.asid = w.version == 2 ? w.asid : 0};
	*why = check(&m, true);
	if (*why)
		return -EPROTO;
	*req = (struct libvhost_req){.op = LIBVHOST_OP_BACKEND_IOTLB_MSG};
	req->arg.iotlb = m;
	return 0;
}
