/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * struct libvhost_req <-> argument of a vhost or vDPA ioctl, and IOTLB messages of the device node. Pure: the kernel
 * transports only call ioctl(2), write(2) and read(2). The number of the ioctl is in the operation's row.
 */
#ifndef LV_PROTOCOL_IOCTL_H
#define LV_PROTOCOL_IOCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <vhost/req.h>

/* Room for every argument: a memory table of LIBVHOST_MAX_REGIONS regions is the largest. */
#define LV_IOCTL_ARG_MAX (8u + 32u * LIBVHOST_MAX_REGIONS)
#define LV_IOTLB_MSG	 72u /* one IOTLB message of either version */

/*
 * Writes the argument that ioctl(2) is to be given a pointer to; arg is 8-aligned. A read gets its room here too,
 * filled in where the kernel looks (queue index, sizes). Returns its length, 0 = the ioctl has none; or with *why
 * -EINVAL (a value out of range, data missing), -ENOTSUP (no such ioctl, or a value it cannot carry), -EMSGSIZE (cap).
 * A descriptor is given as the number in .fd under HAS_FD, else as -1 (unbind).
 */
int lv_ioctl_encode(const struct libvhost_req *req, void *arg, size_t cap, const char **why);

/*
 * Takes the results out of the argument after ioctl(2) succeeded; len is what lv_ioctl_encode returned. Nothing happens
 * for an ioctl that only sets. Returns 0; -EMSGSIZE (*why) data_out is too small; -EPROTO (*why) the kernel answered
 * for another queue.
 */
int lv_ioctl_decode_result(struct libvhost_req *req, const void *arg, size_t len, const char **why);

/* Whether the ioctl returns data. Four of them do although their number says otherwise. */
bool lv_ioctl_returns(uint32_t op);

/*
 * IOTLB message as written to the device node: version 2 carries the address space, version 1 refuses any but 0.
 * Batch begin and end are messages too. Returns LV_IOTLB_MSG; -EINVAL or -ENOTSUP with *why.
 */
int lv_iotlb_encode(const struct libvhost_req *req, bool v2, void *buf, size_t cap, const char **why);

/* IOTLB message as read from the device node, either version, into op BACKEND_IOTLB_MSG. 0 or -EPROTO with *why. */
int lv_iotlb_decode(struct libvhost_req *req, const void *buf, size_t len, const char **why);

#endif
