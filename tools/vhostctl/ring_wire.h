/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Feature bits that every virtio device has (virtio specification 1.2, chapter 6). */
#ifndef VHOSTCTL_RING_WIRE_H
#define VHOSTCTL_RING_WIRE_H

enum { RING_F_INDIRECT_DESC = 28, RING_F_EVENT_IDX = 29, F_VERSION_1 = 32, F_RING_PACKED = 34, F_IN_ORDER = 35 };

#endif
