/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "net_frame.h"

#include <string.h>

#include "net_wire.h"

#define ETHERTYPE_EXPERIMENT 0x88b5u /* IEEE 802: for local experiments */
#define WORD		     8u

/* Follows the Ethernet header; in the sender's byte order, for nobody else reads it. */
struct tag {
	uint16_t pair;
	uint32_t bytes;
	uint64_t number, sum;
} __attribute__((packed));
#define PAYLOAD_AT (ETHERNET_HEADER + (uint32_t)sizeof(struct tag))
_Static_assert(ETHERNET_HEADER + sizeof(struct tag) <= FRAME_MIN, "the tag fits into the smallest frame");

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 29;
}

static uint64_t sum(const struct tag *tag, const uint8_t *payload)
{
	uint32_t left = tag->bytes - PAYLOAD_AT;
	uint64_t hash = mix(mix(mix(1, tag->pair), tag->bytes), tag->number), word;

	for (; left >= WORD; left -= WORD, payload += WORD) {
		memcpy(&word, payload, WORD);
		hash = mix(hash, word);
	}
	word = 0;
	memcpy(&word, payload, left);
	return mix(hash, word);
}

void net_frame_fill(uint8_t *frame, uint32_t bytes, uint16_t pair, uint64_t number)
{
	static const uint8_t header[ETHERNET_HEADER] = {[0] = 0x02,
							[5] = 1,
							[6] = 0x02,
							[11] = 2,
							[12] = ETHERTYPE_EXPERIMENT >> 8,
							[13] = ETHERTYPE_EXPERIMENT & 0xff};
	struct tag tag = {.pair = pair, .bytes = bytes, .number = number};
	uint8_t *payload = frame + PAYLOAD_AT;
	uint64_t word = mix(number, bytes);

	memcpy(frame, header, sizeof(header));
	for (uint32_t i = 0; i < bytes - PAYLOAD_AT; i += WORD) {
		word += 0x9e3779b97f4a7c15u;
		memcpy(payload + i, &word, bytes - PAYLOAD_AT - i < WORD ? bytes - PAYLOAD_AT - i : WORD);
	}
	tag.sum = sum(&tag, payload);
	memcpy(frame + ETHERNET_HEADER, &tag, sizeof(tag));
}

bool net_frame_check(const uint8_t *frame, uint32_t bytes, uint16_t *pair, uint64_t *number)
{
	struct tag tag;

	if (bytes < FRAME_MIN || bytes > FRAME_MAX)
		return false;
	memcpy(&tag, frame + ETHERNET_HEADER, sizeof(tag));
	*pair = tag.pair;
	*number = tag.number;
	return frame[12] == ETHERTYPE_EXPERIMENT >> 8 && frame[13] == (ETHERTYPE_EXPERIMENT & 0xff) &&
	       tag.bytes == bytes && tag.sum == sum(&tag, frame + PAYLOAD_AT);
}
