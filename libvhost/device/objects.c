/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Shared objects: one table per context (core/objects.c), written by hosts and by back-ends. A look-up of what a
 * back-end registered asks that back-end. Two devices may look up at each other at the same moment: nobody waits for a
 * device that is busy, so the worst is that both are refused.
 */
#include "device/device.h"

#include <errno.h>
#include <string.h>
#include "core/wire.h"

#define ASK_MS 100u /* for a back-end to answer another one, on a thread that serves the asking device */

/* Lets the back-end of a device answer. One that does not answer in time loses its objects, or it could hold up the
 * hosts of all other devices again and again. */
static int ask_device(struct libvhost_dev *dev, const uint8_t *uuid, uint64_t deadline, int *fd)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_GET_SHARED_OBJECT};
	int r = lv_dev_try_claim(dev, LV_OP_REQUEST, LV_STATE(NEGOTIATED) | LV_STATE(RUNNING), "shared_object_lookup");

	if (r)
		return r;
	memcpy(req.arg.uuid, uuid, sizeof(req.arg.uuid));
	r = lv_op_exec(dev, LIBVHOST_NONE, &req, 1, deadline);
	if (r && lv_part_gone(&dev->parts[0])) {
		lv_dev_disconnected(dev, r);
	} else if (r == -ETIMEDOUT) {
		dev->share.objects_mute = true;
		lv_objects_forget(&dev->ctx->objects, &dev->share.objects);
	}
	if (!r && !(req.out_flags & LIBVHOST_REQ_OUT_FD))
		r = lv_fail(&dev->err, -ENOENT, LIBVHOST_EK_REFUSED,
			    "shared_object_lookup: the back-end that registered the object gave no descriptor");
	if (!r)
		*fd = req.out_fd;
	return lv_dev_release(dev, r);
}

static int look_up(struct libvhost_ctx *ctx, struct lv_errslot *err, const uint8_t *uuid, uint64_t deadline, int *fd)
{
	struct lv_object_owner *owner;
	struct libvhost_dev *dev;
	int r = lv_objects_find(&ctx->objects, uuid, fd, &owner);

	if (r == -ENOENT)
		return lv_fail(err, r, LIBVHOST_EK_ARGUMENT, "shared_object_lookup: nobody registered this object");
	if (r)
		return lv_fail_sys(err, -r, "shared_object_lookup: %s; raise RLIMIT_NOFILE", lv_errno_name(-r));
	if (!owner)
		return 0;
	dev = owner->device;
	r = ask_device(dev, uuid, deadline, fd);
	if (r && err)
		lv_fail_copy(err, &dev->err);
	lv_objects_unpin(&ctx->objects, owner);
	return r;
}

/* An object that is not in the table may be one that the host finds by itself. */
static int answer_look_up(struct libvhost_dev *dev, struct libvhost_req *req)
{
	int fd, r = look_up(dev->ctx, NULL, req->arg.uuid, lv_deadline(dev->ctx, ASK_MS), &fd);

	if (r == -ENOENT && dev->ops.on_request)
		return -ENOTSUP;
	if (r)
		return r;
	req->out_fd = fd;
	req->out_flags |= LIBVHOST_REQ_OUT_FD;
	return 0;
}

int lv_object_ask(struct lv_part *part, struct libvhost_req *req)
{
	struct libvhost_dev *dev = part->dev;
	struct lv_object_owner *owner = &dev->share.objects;
	struct lv_objects *table = &dev->ctx->objects;

	if (!(dev->opts.flags & LIBVHOST_DEV_SHARED_OBJECTS))
		return -ENOTSUP;
	if (req->op == LIBVHOST_OP_BACKEND_SHARED_OBJECT_LOOKUP)
		return answer_look_up(dev, req);
	if (dev->share.objects_mute || part != &dev->parts[0]) /* the leading part is the one that is asked */
		return -EPERM;
	owner->device = dev;
	if (req->op == LIBVHOST_OP_BACKEND_SHARED_OBJECT_ADD)
		return lv_objects_add(table, req->arg.uuid, -1, owner);
	return lv_objects_remove(table, req->arg.uuid, owner);
}

/* ---- the host's own ---- */

int libvhost_shared_object_add(struct libvhost_ctx *ctx, const uint8_t uuid[16], int fd)
{
	int ours, r;

	if (!ctx || !uuid)
		return -EINVAL;
	ours = lv_fd_dup(fd);
	if (ours < 0)
		return lv_fail_sys(&ctx->err, -ours, "shared_object_add: descriptor %d: %s", fd, lv_errno_name(-ours));
	r = lv_objects_add(&ctx->objects, uuid, ours, NULL);
	if (!r)
		return 0;
	lv_fd_close(ours);
	return lv_fail(&ctx->err, r, r == -ENOMEM ? LIBVHOST_EK_NOMEM : LIBVHOST_EK_ARGUMENT, "shared_object_add: %s",
		       r == -EEXIST   ? "an object of this name is there"
		       : r == -ENOSPC ? "the context's table is full"
				      : "out of memory");
}

int libvhost_shared_object_remove(struct libvhost_ctx *ctx, const uint8_t uuid[16])
{
	int r;

	if (!ctx || !uuid)
		return -EINVAL;
	r = lv_objects_remove(&ctx->objects, uuid, NULL);
	return r ? lv_fail(&ctx->err, r, LIBVHOST_EK_ARGUMENT, "shared_object_remove: %s",
			   r == -ENOENT ? "no object of this name" : "a back-end registered it")
		 : 0;
}

int libvhost_shared_object_lookup(struct libvhost_ctx *ctx, const uint8_t uuid[16], int *fd)
{
	int found, r;

	if (!ctx || !uuid || !fd)
		return -EINVAL;
	r = look_up(ctx, &ctx->err, uuid, lv_deadline(ctx, 0), &found);
	if (!r)
		*fd = found;
	return r;
}
