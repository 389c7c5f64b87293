/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Between freeze and thaw. */
#ifndef LV_DEVICE_FROZEN_H
#define LV_DEVICE_FROZEN_H

#include "device/blob.h"
#include "device/device.h"

/* Forgets every descriptor of the connection and the queues without closing one; nothing runs any more and nothing
 * brings the device back. The caller is inside the device and its transport. */
void lv_dev_let_go(struct libvhost_dev *dev, const struct lv_connection *conn);

#endif
