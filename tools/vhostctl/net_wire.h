/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The virtio network device as the virtio specification 1.2, section 5.1 lays it out. Little-endian in memory. */
#ifndef VHOSTCTL_NET_WIRE_H
#define VHOSTCTL_NET_WIRE_H

#include <stdint.h>

#include "ring_wire.h"

#define VIRTIO_ID_NET 1u

enum { NET_F_MAC = 5, NET_F_STATUS = 16, NET_F_CTRL_VQ = 17, NET_F_MQ = 22 };
enum { NET_S_LINK_UP = 1 };

/* In front of every frame. A legacy driver has num_buffers with mergeable buffers only, all others always (5.1.6.1). */
struct net_header {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct net_header) == 12, "network packet header");
#define NET_HEADER_LEGACY 10u

struct net_config {
	uint8_t mac[6];
	uint16_t status, max_virtqueue_pairs;
};
_Static_assert(sizeof(struct net_config) == 10, "network configuration space");

#define ETHERNET_HEADER 14u
#define FRAME_MIN	60u   /* without its checksum */
#define FRAME_MAX	1514u /* with an MTU of 1500 */

#endif
