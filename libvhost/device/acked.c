/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Virtio features between the guest and the peer. */
#include "device/device.h"

#include <errno.h>
#include <string.h>
#include "device/features.h"

/* Bits that the library adds and removes by itself, whatever a guest says. */
#define OWN_BITS (LV_BIT(LV_F_LOG_ALL) | LV_BIT(LV_F_NET_HDR) | LV_BIT(LV_F_PROTOCOL))

bool lv_queue_packed(const struct lv_record *rec)
{
	return rec->acked[0] & LV_BIT(LV_F_RING_PACKED);
}

static uint64_t list_mask(const uint8_t *bits)
{
	uint64_t mask = 0;

	for (; bits && *bits != LIBVHOST_INVALID_FEATURE_BIT; bits++)
		if (*bits < 64)
			mask |= LV_BIT(*bits);
	return mask;
}

uint64_t libvhost_get_features(struct libvhost_dev *dev, const uint8_t *bits, uint64_t features)
{
	if (!dev)
		return 0;
	pthread_mutex_lock(&dev->lock);
	features &= dev->rec->offered[0] | ~list_mask(bits);
	pthread_mutex_unlock(&dev->lock);
	return features;
}

int libvhost_get_features_ex(struct libvhost_dev *dev, uint64_t *features, uint32_t words)
{
	if (!dev || !features || !words || words > LIBVHOST_FEATURE_WORDS)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	for (uint32_t i = 0; i < words; i++)
		features[i] &= dev->rec->offered[i];
	features[0] &= ~OWN_BITS;
	pthread_mutex_unlock(&dev->lock);
	return 0;
}

int lv_features_check(struct libvhost_dev *dev, const uint64_t *words, const char *call)
{
	if (!(words[0] & LV_BIT(LV_F_RING_PACKED)) || words[0] & LV_BIT(LV_F_VERSION_1))
		return 0;
	return lv_fail(
		&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
		"%s: RING_PACKED (bit 34) is accepted without VERSION_1 (bit 32), which packed rings are part of; "
		"accept both or neither",
		call);
}

/* Lock held. */
static int accept_features(struct libvhost_dev *dev, const uint64_t words[LIBVHOST_FEATURE_WORDS])
{
	for (uint32_t i = 0; i < LIBVHOST_FEATURE_WORDS; i++) {
		const uint64_t extra = words[i] & ~dev->rec->offered[i];
		uint32_t bit;
		const char *name;

		if (!extra)
			continue;
		bit = i * 64 + (uint32_t)__builtin_ctzll(extra);
		name = libvhost_feature_name(dev->rec->virtio_id, bit);
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "ack_features: bit %u (%s) is accepted but the peer does not offer it", bit,
			       name ? name : "no name");
	}
	memcpy(dev->rec->acked, words, sizeof(dev->rec->acked));
	return 0;
}

int libvhost_ack_features(struct libvhost_dev *dev, const uint8_t *bits, uint64_t features)
{
	const uint64_t mask = list_mask(bits) & ~OWN_BITS;
	uint64_t words[LIBVHOST_FEATURE_WORDS];
	int r;

	if (!dev || !bits)
		return -EINVAL;
	r = lv_dev_enter(dev, LV_STATE(NEGOTIATED), "ack_features");
	if (r)
		return r;
	memcpy(words, dev->rec->acked, sizeof(words));
	words[0] = (words[0] & ~mask) | (features & mask);
	words[0] &= ~LV_BIT(LV_F_ACCESS_PLATFORM); /* there is no IOMMU */
	r = accept_features(dev, words);
	pthread_mutex_unlock(&dev->lock);
	return r;
}

int libvhost_ack_features_ex(struct libvhost_dev *dev, const uint64_t *features, uint32_t words)
{
	uint64_t all[LIBVHOST_FEATURE_WORDS] = {0};
	int r;

	if (!dev || !features || !words || words > LIBVHOST_FEATURE_WORDS)
		return -EINVAL;
	r = lv_dev_enter(dev, LV_STATE(NEGOTIATED), "ack_features_ex");
	if (r)
		return r;
	memcpy(all, features, words * sizeof(*all));
	all[0] &= ~(OWN_BITS | LV_BIT(LV_F_ACCESS_PLATFORM));
	r = lv_features_check(dev, all, "ack_features_ex");
	if (!r)
		r = accept_features(dev, all);
	pthread_mutex_unlock(&dev->lock);
	return r;
}
