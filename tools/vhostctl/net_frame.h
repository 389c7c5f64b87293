/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Ethernet frames that carry their queue pair, their number and a checksum of both and of all that follows. */
#ifndef VHOSTCTL_NET_FRAME_H
#define VHOSTCTL_NET_FRAME_H

#include <stdbool.h>
#include <stdint.h>

/* Fills a frame of that many bytes, FRAME_MIN..FRAME_MAX. */
void net_frame_fill(uint8_t *frame, uint32_t bytes, uint16_t pair, uint64_t number);

/* False unless the frame is one of ours and unchanged (whoever forwards it may rewrite the Ethernet addresses). */
bool net_frame_check(const uint8_t *frame, uint32_t bytes, uint16_t *pair, uint64_t *number);

#endif
