/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* When what a back-end shares goes away. */
#include "device/device.h"

void lv_share_queue_stopped(struct libvhost_dev *dev, uint32_t queue)
{
	lv_doorbells_drop(dev, queue, queue + 1);
}

void lv_share_stopped(struct libvhost_dev *dev)
{
	lv_doorbells_drop(dev, 0, dev->rec->num_queues);
}

void lv_share_reset(struct libvhost_dev *dev)
{
	lv_share_stopped(dev);
	lv_windows_empty(dev);
}

void lv_share_closed(struct libvhost_dev *dev)
{
	lv_share_reset(dev);
	lv_objects_forget(&dev->ctx->objects, &dev->share.objects);
	dev->share.objects_mute = false;
}

void lv_share_free(struct libvhost_dev *dev)
{
	lv_objects_end(&dev->ctx->objects, &dev->share.objects);
	lv_windows_free(dev);
	lv_doorbells_free(dev);
}
