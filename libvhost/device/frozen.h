/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Between freeze and thaw. */
#ifndef LV_DEVICE_FROZEN_H
#define LV_DEVICE_FROZEN_H

#include "device/blob.h"
#include "device/device.h"

/* Forgets every descriptor of the connection and the queues without closing one; nothing runs any more and nothing
 * brings the device back. The caller is inside the device and its transport. */
void lv_dev_let_go(struct libvhost_dev *dev, const struct lv_connection *conn);

struct lv_thaw {
	struct libvhost_ctx *ctx; /* errors are recorded here */
	struct libvhost_thaw_opts opts;
	struct lv_blob *blob;
	struct libvhost_dev *dev;
};

/* ---- thaw_fds.c ---- */

/* Their number, and whether each is of the kind that the blob says. -EINVAL. */
int lv_thaw_check_fds(const struct lv_thaw *t);
/* From here on the device has them; lv_dev_let_go() gives them back. */
void lv_thaw_put_fds(struct lv_thaw *t);
/* Nothing can fail any more: closes those that nobody took. */
void lv_thaw_own_fds(const struct lv_thaw *t);

/* ---- thaw_memory.c ---- */

/* A running peer's map must be ours; a stopped one's is only remembered: the next start sends the difference. */
int lv_thaw_match_memory(struct lv_thaw *t);
/* What runs lies in the map; the rest is looked at when it is started. */
int lv_thaw_check_rings(struct lv_thaw *t);
/* All devices of a guest write one log, in the file that they wrote before. The last thing that can fail: what the
 * memory has taken over it keeps. */
int lv_thaw_adopt_log(struct lv_thaw *t);

#endif
