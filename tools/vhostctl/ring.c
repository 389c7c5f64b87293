/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "ring.h"

#include "cli.h"
#include "ring_wire.h"

static int make_ring(struct libvhost_ctx *ctx, struct libvhost_mem *mem, struct libvhost_dev *dev,
		     const struct libvhost_queue *setup, struct libvhost_vq_opts *o, bool resume,
		     struct libvhost_vq **vq)
{
	struct libvhost_queue have = {.size = sizeof(have)};
	int rc = libvhost_dev_get_queue(dev, o->index, &have);

	if (rc < 0)
		return complain_dev(dev, "queue", rc);
	libvhost_vq_free(*vq);
	*vq = NULL;
	o->flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL;
	if (resume && o->features >> F_RING_PACKED & 1) {
		o->flags |= LIBVHOST_VQ_HAS_BASE;
		o->base = have.base;
	} else if (resume) {
		o->flags |= LIBVHOST_VQ_RESUME;
	}
	o->num = setup->num;
	o->desc = setup->desc;
	o->avail = setup->avail;
	o->used = setup->used;
	o->kick_fd = have.kick_fd;
	o->call_fd = have.call_fd;
	rc = libvhost_vq_new(ctx, mem, o, vq);
	return rc < 0 ? complain_ctx(ctx, "ring", rc) : 0;
}

int open_driver_ring(struct libvhost_ctx *ctx, struct libvhost_dev *dev, uint32_t q, uint64_t features,
		     struct libvhost_mem *mem, const struct libvhost_queue *setup, struct libvhost_vq **vq)
{
	struct libvhost_vq_opts o = {.size = sizeof(o), .role = LIBVHOST_VQ_DRIVER, .index = q, .features = features};

	return make_ring(ctx, mem, dev, setup, &o, false, vq);
}

int resume_driver_ring(struct libvhost_ctx *ctx, struct libvhost_dev *dev, uint32_t q, uint64_t features,
		       struct libvhost_mem *mem, const struct libvhost_queue *setup, struct libvhost_vq **vq)
{
	struct libvhost_vq_opts o = {.size = sizeof(o), .role = LIBVHOST_VQ_DRIVER, .index = q, .features = features};

	return make_ring(ctx, mem, dev, setup, &o, true, vq);
}
