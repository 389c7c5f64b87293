/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Names of feature bits. */
#include <vhost/req.h>

static const struct {
	uint16_t device, bit;
	const char *name;
} features[] = {
#define LV_FEATURE(device, bit, name) {device, bit, #name},
#include "protocol/features.def"
#undef LV_FEATURE
};

static const char *find(uint32_t device, uint32_t bit)
{
	for (size_t i = 0; i < sizeof(features) / sizeof(*features); i++)
		if (features[i].device == device && features[i].bit == bit)
			return features[i].name;
	return NULL;
}

/* vhost-net gives bit 27 a meaning of its own (VHOST_NET_F_VIRTIO_NET_HDR); virtio's name is the one to print. */
const char *libvhost_feature_name(uint32_t virtio_id, uint32_t bit)
{
	const char *name = virtio_id ? find(virtio_id, bit) : NULL;

	return name ? name : find(0, bit);
}

const char *libvhost_protocol_feature_name(uint32_t bit)
{
	switch (bit) {
#define LV_PF(number, name)                                                                                            \
	case number:                                                                                                   \
		return #name;
#include "protocol/protocol-features.def"
#undef LV_PF
	default:
		return NULL;
	}
}
