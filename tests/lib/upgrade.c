/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "upgrade.h"

#include <errno.h>
#include <stdlib.h>
#include "core/wire.h"
#include "device/blob.h"

void up_init(struct upgrade *u)
{
	memset(u, 0, sizeof(*u));
	wirerig_init(&u->w);
	u->w.p.arg = u->w.ops.arg = u;
}

void up_open(struct upgrade *u, uint32_t queues, bool start)
{
	u->w.r.opts.num_queues = queues;
	if (start)
		wirerig_start(&u->w);
	else
		wirerig_open(&u->w);
}

void up_close(struct upgrade *u)
{
	wirerig_close(&u->w);
}

int up_freeze(struct upgrade *u, uint32_t flags)
{
	size_t len = 0;
	uint32_t nfds = 0;
	int rc = libvhost_dev_freeze(u->w.r.dev, flags, NULL, &len, NULL, &nfds);

	if (rc)
		return rc;
	CHECK(nfds <= UP_FDS);
	u->blob = malloc(len);
	CHECK(u->blob);
	u->len = len;
	u->nfds = UP_FDS;
	rc = libvhost_dev_freeze(u->w.r.dev, flags, u->blob, &u->len, u->fds, &u->nfds);
	if (!rc) {
		CHECK_EQ(u->len, len);
		CHECK_EQ(u->nfds, nfds);
	} else {
		free(u->blob);
		u->blob = NULL;
	}
	return rc;
}

void up_next_guest(struct upgrade *u)
{
	struct libvhost_region regions[LIBVHOST_MAX_REGIONS];
	uint32_t count = LIBVHOST_MAX_REGIONS;

	u->next = guest_new(0);
	CHECK_EQ(libvhost_mem_regions(u->w.r.g.mem, regions, &count), 0);
	CHECK_EQ(libvhost_mem_begin(u->next.mem), 0);
	for (uint32_t i = 0; i < count; i++) {
		regions[i].user_addr = 0;
		CHECK_EQ(libvhost_mem_add(u->next.mem, &regions[i]), 0);
	}
	CHECK_EQ(libvhost_mem_commit(u->next.mem, 0, NULL), 0);
	u->thaw = (struct libvhost_thaw_opts){.size = sizeof(u->thaw),
					      .blob = u->blob,
					      .blob_len = u->len,
					      .fds = u->fds,
					      .nfds = u->nfds,
					      .mem = u->next.mem,
					      .ops = u->w.r.opts.ops};
}

int up_thaw(struct upgrade *u)
{
	struct libvhost_dev *dev = NULL;
	int rc = libvhost_dev_thaw(u->next.ctx, &u->thaw, &dev);

	CHECK_EQ(!rc, !!dev);
	if (rc) {
		guest_free(&u->next);
		return rc;
	}
	libvhost_dev_cleanup(u->w.r.dev);
	guest_free(&u->w.r.g);
	u->w.r.dev = dev;
	u->w.r.g = u->next;
	free(u->blob);
	u->blob = NULL;
	return 0;
}

void up_hop(struct upgrade *u)
{
	CHECK_EQ(up_freeze(u, 0), 0);
	up_next_guest(u);
	CHECK_EQ(up_thaw(u), 0);
}

void up_drop(struct upgrade *u)
{
	for (uint32_t i = 0; i < u->nfds; i++)
		lv_fd_close(u->fds[i]);
	free(u->blob);
	u->blob = NULL;
}

void up_seal(struct upgrade *u)
{
	const uint32_t crc = lv_blob_crc(u->blob, u->len);

	for (unsigned i = 0; i < 4; i++)
		u->blob[LV_BLOB_CRC_AT + i] = (uint8_t)(crc >> 8 * i);
}

void up_refused(struct upgrade *u, int code, const char *text)
{
	struct libvhost_error e = {.size = sizeof(e)};
	struct libvhost_dev *dev = NULL;

	CHECK_EQ(libvhost_dev_thaw(u->next.ctx, &u->thaw, &dev), code);
	CHECK(!dev);
	CHECK_EQ(libvhost_ctx_error(u->next.ctx, &e), 0);
	CHECK_EQ(e.code, code);
	CHECK_HAS(e.text, text);
}

struct libvhost_inflight up_inflight(struct upgrade *u)
{
	struct libvhost_inflight i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_get_inflight(u->w.r.dev, &i), 0);
	return i;
}
