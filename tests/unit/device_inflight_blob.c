/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* An inflight region as bytes: saved here, loaded there, damaged on the way. */
#include "inflightrig.h"

#define OP(name) LIBVHOST_OP_##name

static uint8_t *saved(struct devrig *r, size_t *len)
{
	uint8_t *blob;

	*len = 0;
	CHECK_EQ(libvhost_dev_save_inflight(r->dev, NULL, len), 0);
	blob = malloc(*len);
	CHECK(blob);
	*len -= 1;
	CHECK_EQ(libvhost_dev_save_inflight(r->dev, blob, len), -ENOSPC);
	CHECK_EQ(libvhost_dev_save_inflight(r->dev, blob, len), 0);
	return blob;
}

TEST(device_inflight, saved_here_and_loaded_there)
{
	struct devrig r, other;
	uint8_t *blob;
	size_t len;

	inflight_rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	inflight_mark(&r, 3, 7, 42);
	len = 1 << 20;
	CHECK_EQ(libvhost_dev_save_inflight(r.dev, NULL, &len), -EBUSY);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	blob = saved(&r, &len);
	CHECK_EQ(len, 32 + r.f.region);
	devrig_close(&r);

	inflight_rig_ready(&other, 0);
	CHECK_EQ(libvhost_dev_load_inflight(other.dev, blob, len), 0);
	CHECK(inflight_marked(&other, 3, 7));
	CHECK(!inflight_marked(&other, 3, 6));
	fake_arm(&other.f);
	CHECK_EQ(libvhost_dev_start(other.dev, NULL), 0);
	CHECK_EQ(fake_count(&other.f, OP(GET_INFLIGHT_FD)), 0);
	CHECK_EQ(other.f.inflight.mmap_size, other.f.region);
	CHECK_EQ(libvhost_dev_load_inflight(other.dev, blob, len), -EBUSY);
	free(blob);
	devrig_close(&other);
}

TEST(device_inflight, damaged_blobs_are_refused_whatever_byte_it_is)
{
	struct libvhost_queue big = devrig_queue(0);
	struct devrig r;
	uint8_t *blob;
	size_t len;

	inflight_rig_ready(&r, 0);
	CHECK_EQ(libvhost_dev_start(r.dev, NULL), 0);
	inflight_mark(&r, 0, 1, 3);
	CHECK_EQ(libvhost_dev_stop(r.dev, NULL), 0);
	blob = saved(&r, &len);
	CHECK_EQ(libvhost_dev_free_inflight(r.dev), 0);
	for (size_t i = 0; i < len; i++) {
		blob[i] = (uint8_t)(blob[i] ^ 1u << i % 8);
		CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, len), -EBADMSG);
		blob[i] = (uint8_t)(blob[i] ^ 1u << i % 8);
		CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, i), -EBADMSG);
	}
	CHECK(devrig_error(&r).text[0]);
	CHECK_EQ(
		libvhost_dev_get_inflight(r.dev, &(struct libvhost_inflight){.size = sizeof(struct libvhost_inflight)}),
		-ENOENT);
	big.num = 2 * DEVRIG_NUM;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &big), 0);
	CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, len), -EBADMSG);
	CHECK_HAS(devrig_error(&r).text, "fewer or smaller");
	big.num = DEVRIG_NUM;
	CHECK_EQ(libvhost_dev_set_queue(r.dev, 0, &big), 0);
	CHECK_EQ(libvhost_dev_load_inflight(r.dev, blob, len), 0);
	CHECK(inflight_marked(&r, 0, 1));
	free(blob);
	devrig_close(&r);
}
