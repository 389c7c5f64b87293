/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "ring.h"

#include "cli.h"

int open_driver_ring(struct libvhost_ctx *ctx, struct libvhost_dev *dev, uint32_t q, uint64_t features,
		     struct libvhost_mem *mem, const struct libvhost_queue *setup, struct libvhost_vq **vq)
{
	struct libvhost_queue have = {.size = sizeof(have)};
	struct libvhost_vq_opts o = {.size = sizeof(o), .role = LIBVHOST_VQ_DRIVER, .index = q};
	int rc = libvhost_dev_get_queue(dev, q, &have);

	if (rc < 0)
		return complain_dev(dev, "queue", rc);
	libvhost_vq_free(*vq);
	*vq = NULL;
	o.flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL;
	o.num = setup->num;
	o.features = features;
	o.desc = setup->desc;
	o.avail = setup->avail;
	o.used = setup->used;
	o.kick_fd = have.kick_fd;
	o.call_fd = have.call_fd;
	rc = libvhost_vq_new(ctx, mem, &o, vq);
	return rc < 0 ? complain_ctx(ctx, "ring", rc) : 0;
}
