/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "vring/driver.h"

#include <errno.h>

int lv_driver_tables(struct libvhost_vq *vq, const struct lv_snapshot *snap, void **tables)
{
	const uint64_t bytes = (uint64_t)vq->opts.num * vq->opts.max_chain * sizeof(struct lv_desc);

	*tables = NULL;
	if (!vq->opts.indirect)
		return 0;
	*tables = lv_vq_area(vq, snap, "indirect tables", vq->opts.indirect, bytes, 8);
	return *tables ? 0 : -EFAULT;
}

int lv_driver_signal(struct libvhost_vq *vq)
{
	int rc = lv_vq_signal(vq, vq->opts.flags & LIBVHOST_VQ_HAS_KICK, vq->opts.kick_fd);

	if (rc >= 0)
		return 1;
	lv_fail_sys(&vq->err, -rc, "queue %u: kick eventfd %d: %s", vq->opts.index, vq->opts.kick_fd,
		    lv_errno_name(-rc));
	return -EIO;
}

int lv_driver_bad_bufs(struct libvhost_vq *vq, uint64_t n, uint64_t bytes)
{
	if (!n || n > vq->opts.max_chain)
		return lv_fail(&vq->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "queue %u: a request has 1 to %u buffers (max_chain), not %llu", vq->opts.index,
			       vq->opts.max_chain, (unsigned long long)n);
	return lv_fail(&vq->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
		       "queue %u: a buffer is empty, has flags set, or the request is larger than 4 GiB (%llu bytes)",
		       vq->opts.index, (unsigned long long)bytes);
}
