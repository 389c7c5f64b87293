/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The device's part in the dirty log: whether it can take part, and how long the peer may write there. */
#include "device/device.h"

#include <errno.h>
#include <stdio.h>

/* The kernel writes to the mapping itself, and nothing takes that back but its word or the end of the connection. */
void lv_dev_log_told(struct libvhost_dev *dev, struct lv_part *part)
{
	if (!dev->op.log || part->peer_log == dev->op.log)
		return;
	lv_log_put(part->peer_log);
	part->peer_log = lv_log_ref(dev->op.log);
}

void lv_dev_log_ended(struct libvhost_dev *dev)
{
	for (uint32_t i = 0; i < dev->num_parts; i++) {
		lv_log_put(dev->parts[i].peer_log);
		dev->parts[i].peer_log = NULL;
	}
}

int lv_dev_can_log(struct libvhost_dev *dev, char *why, size_t cap)
{
	const char *blocker;

	pthread_mutex_lock(&dev->lock);
	blocker = lv_plan_log_blocker(dev->rec, dev->parts[0].caps.dialect);
	if (cap && blocker)
		snprintf(why, cap, "%s: %s", dev->parts[0].t->peer, blocker);
	else if (cap)
		*why = 0;
	pthread_mutex_unlock(&dev->lock);
	return blocker ? -ENOTSUP : 0;
}

int libvhost_dev_migration_blocker(struct libvhost_dev *dev, char *buf, size_t cap)
{
	if (!dev || (!buf && cap))
		return -EINVAL;
	if (lv_dev_can_log(dev, buf, cap) < 0)
		return 1;
	if (!lv_shmem_maps(dev))
		return 0;
	if (cap) /* files of the back-end, which the other side does not have */
		snprintf(buf, cap, "%s: files are mapped into its shared-memory windows", dev->parts[0].t->peer);
	return 1;
}
