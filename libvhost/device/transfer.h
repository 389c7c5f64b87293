/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The peer's own state on its way to or from the caller's buffer, as an operation. */
#ifndef LV_DEVICE_TRANSFER_H
#define LV_DEVICE_TRANSFER_H

#include <stdint.h>
#include <vhost/req.h>
#include "core/stream.h"

enum lv_transfer_phase { LV_TRANSFER_ASKS, LV_TRANSFER_MOVES, LV_TRANSFER_CHECKS };

struct lv_transfer {
	enum lv_transfer_phase phase;
	struct libvhost_req req;
	struct lv_stream end; /* ours */
	int peer_end;	      /* -1 = the peer has it */
	uint8_t *buf;	      /* the caller's, as ret_len is */
	size_t len, off;
	size_t *ret_len; /* NULL: a load */
};

struct libvhost_dev;
void lv_transfer_init(struct libvhost_dev *dev);
/* Lets go of the pipe. */
void lv_transfer_drop(struct libvhost_dev *dev);

#endif
