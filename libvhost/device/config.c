/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Configuration space. What is read is remembered: a reconnect notices a space that shrank. */
#include "device/device.h"

#include <errno.h>
#include <string.h>

#define CONFIG_CHUNK 256u /* vhost-user: most bytes of one message */

static int check_range(struct libvhost_dev *dev, const char *call, uint32_t offset, const void *buf, uint32_t len)
{
	const uint32_t end = dev->opts.config_size ? dev->opts.config_size : LIBVHOST_MAX_CONFIG;

	if (buf && len && len <= CONFIG_CHUNK && offset < end && len <= end - offset)
		return 0;
	return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
		       "%s: offset %u, %u bytes; allowed are 1..%u bytes within %u, in a buffer", call, offset, len,
		       CONFIG_CHUNK, end);
}

static int run(struct libvhost_dev *dev, struct libvhost_req *req, uint32_t timeout_ms)
{
	int r = lv_op_exec(dev, LIBVHOST_NONE, req, 1, lv_deadline(dev->ctx, timeout_ms));

	/* Neither reading nor an unconfirmed write of configuration makes the rings' state unknown. */
	if (r && lv_part_gone(&dev->parts[0]))
		lv_dev_disconnected(dev, r);
	return r;
}

static void remember(struct libvhost_dev *dev, uint32_t offset, const void *buf, uint32_t len)
{
	if (offset + len > LV_RECORD_CONFIG)
		return;
	pthread_mutex_lock(&dev->lock);
	memcpy(dev->rec->config + offset, buf, len);
	if (offset <= dev->rec->config_len && offset + len > dev->rec->config_len)
		dev->rec->config_len = offset + len;
	pthread_mutex_unlock(&dev->lock);
}

static int claim(struct libvhost_dev *dev, const char *call, uint32_t timeout_ms)
{
	if (timeout_ms > LV_TIMEOUT_MAX_MS)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT, "%s: timeout of %u ms is above %u", call,
			       timeout_ms, LV_TIMEOUT_MAX_MS);
	return lv_dev_claim(dev, LV_OP_REQUEST, LV_STATE(NEGOTIATED) | LV_STATE(RUNNING), call);
}

int libvhost_dev_get_config(struct libvhost_dev *dev, uint32_t offset, void *buf, uint32_t len, uint32_t timeout_ms)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_GET_CONFIG};
	uint8_t bytes[CONFIG_CHUNK];
	int r;

	if (!dev)
		return -EINVAL;
	r = check_range(dev, "get_config", offset, buf, len);
	if (!r)
		r = claim(dev, "get_config", timeout_ms);
	if (r)
		return r;
	req.arg.config.offset = offset;
	req.arg.config.size = len;
	req.data_out = (uint64_t)(uintptr_t)bytes;
	req.data_out_cap = len;
	r = run(dev, &req, timeout_ms);
	if (!r && req.data_out_len < len)
		r = lv_fail(&dev->err, -EIO, LIBVHOST_EK_REFUSED,
			    "get_config: asked for %u bytes at offset %u, the peer has %u", len, offset,
			    req.data_out_len);
	if (!r) {
		memcpy(buf, bytes, len);
		remember(dev, offset, bytes, len);
	}
	return lv_dev_release(dev, r);
}

int libvhost_dev_set_config(struct libvhost_dev *dev, uint32_t offset, const void *buf, uint32_t len, uint32_t type,
			    uint32_t timeout_ms)
{
	struct libvhost_req req = {.op = LIBVHOST_OP_SET_CONFIG, .flags = LIBVHOST_REQ_NEED_REPLY};
	int r;

	if (!dev)
		return -EINVAL;
	r = check_range(dev, "set_config", offset, buf, len);
	if (!r && type > 1)
		r = lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			    "set_config: type %u; 0 is a guest write, 1 live migration", type);
	if (!r)
		r = claim(dev, "set_config", timeout_ms);
	if (r)
		return r;
	req.arg.config.offset = offset;
	req.arg.config.size = len;
	req.arg.config.flags = type;
	req.data_in = (uint64_t)(uintptr_t)buf;
	req.data_in_len = len;
	return lv_dev_release(dev, run(dev, &req, timeout_ms));
}
