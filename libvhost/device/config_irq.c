/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The configuration interrupt: an event for the host and, if it gave one, a descriptor for the guest. Masked, a change
 * is remembered; descriptor, mask and memory change together under the device's lock, so that none falls between.
 */
#include "device/device.h"

#include <errno.h>
#include <string.h>
#include "core/wire.h"

void lv_config_changed(struct libvhost_dev *dev)
{
	struct lv_config_irq *irq = &dev->config_irq;

	pthread_mutex_lock(&dev->lock);
	if (irq->masked)
		irq->pending = true;
	else if (irq->fd >= 0)
		lv_eventfd_signal(irq->fd);
	pthread_mutex_unlock(&dev->lock);
	lv_event_simple(dev, LIBVHOST_EVENT_CONFIG_CHANGE, LIBVHOST_NONE, 0, "");
}

bool lv_config_differs(const struct lv_record *was, const struct lv_record *is)
{
	return memcmp(was->config, is->config, was->config_len);
}

int libvhost_dev_set_config_call(struct libvhost_dev *dev, int fd)
{
	int ours = -1, old;

	if (!dev)
		return -EINVAL;
	if (fd >= 0) {
		ours = lv_fd_dup(fd);
		if (ours < 0)
			return lv_fail_sys(&dev->err, -ours, "set_config_call: descriptor %d: %s", fd,
					   lv_errno_name(-ours));
	}
	pthread_mutex_lock(&dev->lock);
	while (dev->config_irq.leaves)
		pthread_cond_wait(&dev->idle, &dev->lock);
	old = dev->config_irq.fd;
	dev->config_irq.fd = ours;
	pthread_mutex_unlock(&dev->lock);
	lv_fd_close(old);
	return 0;
}

int libvhost_config_mask(struct libvhost_dev *dev, uint32_t mask)
{
	if (!dev || mask > 1)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	dev->config_irq.masked = mask;
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

int libvhost_config_pending(struct libvhost_dev *dev)
{
	bool pending;

	if (!dev)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	pending = dev->config_irq.pending;
	dev->config_irq.pending = false;
	pthread_mutex_unlock(&dev->lock);
	return pending;
}
