/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file ops.h
 * Every operation of vhost, one number each. Numbers are never reused.
 * Made by scripts/gen-ops from libvhost/protocol/ops.def; do not edit.
 */
/* clang-format off */
#ifndef LIBVHOST_OPS_H
#define LIBVHOST_OPS_H

#include <vhost/common.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Operations. 1..44 vhost-user front-end requests, 65..74 back-end requests, 128.. ioctls only. */
enum libvhost_op {
	LIBVHOST_OP_NONE = 0,
	LIBVHOST_OP_GET_FEATURES = 1, /**< read the virtio feature bits that the back-end offers */
	LIBVHOST_OP_SET_FEATURES = 2, /**< set the virtio feature bits in use */
	LIBVHOST_OP_SET_OWNER = 3, /**< make this connection the owner of the session */
	LIBVHOST_OP_RESET_OWNER = 4, /**< deprecated: give up ownership; meaning differs between back-ends */
	LIBVHOST_OP_SET_MEM_TABLE = 5, /**< replace the whole guest memory table */
	LIBVHOST_OP_SET_LOG_BASE = 6, /**< set the dirty-page bitmap */
	LIBVHOST_OP_SET_LOG_FD = 7, /**< set the eventfd signalled on a write to the dirty log */
	LIBVHOST_OP_SET_VRING_NUM = 8, /**< set the size of a ring */
	LIBVHOST_OP_SET_VRING_ADDR = 9, /**< set the addresses of a ring */
	LIBVHOST_OP_SET_VRING_BASE = 10, /**< set the index at which a ring continues */
	LIBVHOST_OP_GET_VRING_BASE = 11, /**< stop a ring and read where it stopped */
	LIBVHOST_OP_SET_VRING_KICK = 12, /**< set the eventfd that says buffers are available */
	LIBVHOST_OP_SET_VRING_CALL = 13, /**< set the eventfd that says buffers were used */
	LIBVHOST_OP_SET_VRING_ERR = 14, /**< set the eventfd that says a ring broke */
	LIBVHOST_OP_GET_PROTOCOL_FEATURES = 15, /**< read the protocol feature bits that the back-end offers */
	LIBVHOST_OP_SET_PROTOCOL_FEATURES = 16, /**< set the protocol feature bits in use */
	LIBVHOST_OP_GET_QUEUE_NUM = 17, /**< read the largest number of queues */
	LIBVHOST_OP_SET_VRING_ENABLE = 18, /**< enable or disable a ring */
	LIBVHOST_OP_SEND_RARP = 19, /**< ask the back-end to announce a MAC address */
	LIBVHOST_OP_NET_SET_MTU = 20, /**< tell the back-end the MTU */
	LIBVHOST_OP_SET_BACKEND_REQ_FD = 21, /**< hand over the socket of the back-end channel */
	LIBVHOST_OP_IOTLB_MSG = 22, /**< update or invalidate an I/O translation */
	LIBVHOST_OP_SET_VRING_ENDIAN = 23, /**< set the byte order of a legacy ring */
	LIBVHOST_OP_GET_CONFIG = 24, /**< read device configuration space */
	LIBVHOST_OP_SET_CONFIG = 25, /**< write device configuration space */
	LIBVHOST_OP_CREATE_CRYPTO_SESSION = 26, /**< open a crypto session */
	LIBVHOST_OP_CLOSE_CRYPTO_SESSION = 27, /**< close a crypto session */
	LIBVHOST_OP_POSTCOPY_ADVISE = 28, /**< prepare for postcopy; the reply carries a userfaultfd */
	LIBVHOST_OP_POSTCOPY_LISTEN = 29, /**< start postcopy; memory messages change their replies */
	LIBVHOST_OP_POSTCOPY_END = 30, /**< end postcopy */
	LIBVHOST_OP_GET_INFLIGHT_FD = 31, /**< obtain the region that records requests in flight */
	LIBVHOST_OP_SET_INFLIGHT_FD = 32, /**< hand that region to the back-end */
	LIBVHOST_OP_GPU_SET_SOCKET = 33, /**< hand over the socket of the GPU protocol */
	LIBVHOST_OP_RESET_DEVICE = 34, /**< reset the device, keep the connection */
	LIBVHOST_OP_VRING_KICK = 35, /**< kick a ring by message */
	LIBVHOST_OP_GET_MAX_MEM_SLOTS = 36, /**< read how many memory regions the back-end takes */
	LIBVHOST_OP_ADD_MEM_REG = 37, /**< add one memory region */
	LIBVHOST_OP_REM_MEM_REG = 38, /**< remove one memory region */
	LIBVHOST_OP_SET_STATUS = 39, /**< write the virtio device status */
	LIBVHOST_OP_GET_STATUS = 40, /**< read the virtio device status */
	LIBVHOST_OP_GET_SHARED_OBJECT = 41, /**< ask the back-end for a shared object; the reply carries it */
	LIBVHOST_OP_SET_DEVICE_STATE_FD = 42, /**< begin a transfer of internal device state */
	LIBVHOST_OP_CHECK_DEVICE_STATE = 43, /**< ask whether the state transfer succeeded */
	LIBVHOST_OP_GET_SHMEM_CONFIG = 44, /**< read the shared-memory regions of the device */
	LIBVHOST_OP_BACKEND_IOTLB_MSG = 65, /**< the back-end misses an I/O translation or reports a fault */
	LIBVHOST_OP_BACKEND_CONFIG_CHANGE = 66, /**< configuration space changed */
	LIBVHOST_OP_BACKEND_VRING_HOST_NOTIFIER = 67, /**< map or remove a doorbell page */
	LIBVHOST_OP_BACKEND_VRING_CALL = 68, /**< buffers were used, by message */
	LIBVHOST_OP_BACKEND_VRING_ERR = 69, /**< a ring broke, by message */
	LIBVHOST_OP_BACKEND_SHARED_OBJECT_ADD = 70, /**< register a shared object */
	LIBVHOST_OP_BACKEND_SHARED_OBJECT_REMOVE = 71, /**< withdraw a shared object */
	LIBVHOST_OP_BACKEND_SHARED_OBJECT_LOOKUP = 72, /**< look a shared object up; the reply carries it */
	LIBVHOST_OP_BACKEND_SHMEM_MAP = 73, /**< map a file into a shared-memory region */
	LIBVHOST_OP_BACKEND_SHMEM_UNMAP = 74, /**< unmap it */
	LIBVHOST_OP_NEW_WORKER = 128, /**< create a kernel worker */
	LIBVHOST_OP_FREE_WORKER = 129, /**< free a kernel worker */
	LIBVHOST_OP_GET_VRING_ENDIAN = 130, /**< read the byte order of a legacy ring */
	LIBVHOST_OP_ATTACH_VRING_WORKER = 131, /**< let a kernel worker serve a ring */
	LIBVHOST_OP_GET_VRING_WORKER = 132, /**< read which kernel worker serves a ring */
	LIBVHOST_OP_SET_VRING_BUSYLOOP_TIMEOUT = 133, /**< set how long the kernel polls a ring, microseconds */
	LIBVHOST_OP_GET_VRING_BUSYLOOP_TIMEOUT = 134, /**< read it */
	LIBVHOST_OP_SET_BACKEND_FEATURES = 135, /**< set the kernel's back-end feature bits */
	LIBVHOST_OP_GET_BACKEND_FEATURES = 136, /**< read them */
	LIBVHOST_OP_NET_SET_BACKEND = 137, /**< attach a tap or socket to a vhost-net ring, or detach it */
	LIBVHOST_OP_SCSI_SET_ENDPOINT = 138, /**< bind a vhost-scsi device to a target */
	LIBVHOST_OP_SCSI_CLEAR_ENDPOINT = 139, /**< unbind it */
	LIBVHOST_OP_SCSI_GET_ABI_VERSION = 140, /**< read the vhost-scsi ABI version */
	LIBVHOST_OP_SCSI_SET_EVENTS_MISSED = 141, /**< set the missed-events flag */
	LIBVHOST_OP_SCSI_GET_EVENTS_MISSED = 142, /**< read it */
	LIBVHOST_OP_VSOCK_SET_GUEST_CID = 143, /**< set the guest's vsock address */
	LIBVHOST_OP_VSOCK_SET_RUNNING = 144, /**< start or stop vhost-vsock */
	LIBVHOST_OP_VDPA_GET_DEVICE_ID = 145, /**< read the virtio device type */
	LIBVHOST_OP_VDPA_GET_VRING_NUM = 146, /**< read the largest ring size */
	LIBVHOST_OP_VDPA_SET_CONFIG_CALL = 147, /**< set the eventfd signalled on a configuration change */
	LIBVHOST_OP_VDPA_GET_IOVA_RANGE = 148, /**< read the usable I/O virtual addresses, inclusive */
	LIBVHOST_OP_VDPA_GET_CONFIG_SIZE = 149, /**< read the size of configuration space */
	LIBVHOST_OP_VDPA_GET_AS_NUM = 150, /**< read the number of address spaces */
	LIBVHOST_OP_VDPA_GET_VRING_GROUP = 151, /**< read a ring's group */
	LIBVHOST_OP_VDPA_SET_GROUP_ASID = 152, /**< bind a group to an address space */
	LIBVHOST_OP_VDPA_SUSPEND = 153, /**< suspend the device */
	LIBVHOST_OP_VDPA_RESUME = 154, /**< resume it */
	LIBVHOST_OP_VDPA_GET_VRING_DESC_GROUP = 155, /**< read the group of a ring's descriptors */
	LIBVHOST_OP_VDPA_GET_GROUP_NUM = 156, /**< read the number of groups */
	LIBVHOST_OP_VDPA_GET_VRING_SIZE = 157, /**< read the largest size of one ring */
	LIBVHOST_OP_GET_FEATURES_ARRAY = 158, /**< read more than 64 feature bits */
	LIBVHOST_OP_SET_FEATURES_ARRAY = 159, /**< set more than 64 feature bits */
	LIBVHOST_OP_SET_FORK_FROM_OWNER = 160, /**< choose whether workers are children of the owner */
	LIBVHOST_OP_GET_FORK_FROM_OWNER = 161, /**< read it */
	LIBVHOST_OP_RAW = 255, /**< any header and bytes, one descriptor: vendor messages and tests */
};

/** Payload of a vhost-user request (libvhost_op_info.payload). */
enum libvhost_payload {
	LIBVHOST_PAYLOAD_NONE = 0,
	LIBVHOST_PAYLOAD_U64 = 1,
	LIBVHOST_PAYLOAD_STATE = 2,
	LIBVHOST_PAYLOAD_ADDR = 3,
	LIBVHOST_PAYLOAD_TABLE = 4,
	LIBVHOST_PAYLOAD_REGION = 5,
	LIBVHOST_PAYLOAD_LOG = 6,
	LIBVHOST_PAYLOAD_IOTLB = 7,
	LIBVHOST_PAYLOAD_CONFIG = 8,
	LIBVHOST_PAYLOAD_CRYPTO = 9,
	LIBVHOST_PAYLOAD_INFLIGHT = 10,
	LIBVHOST_PAYLOAD_UUID = 11,
	LIBVHOST_PAYLOAD_TRANSFER = 12,
	LIBVHOST_PAYLOAD_MMAP = 13,
	LIBVHOST_PAYLOAD_AREA = 14,
	LIBVHOST_PAYLOAD_VRING_FD = 15,
	LIBVHOST_PAYLOAD_SHMEM = 16,
};

/** How a request is answered (libvhost_op_info.reply). */
enum libvhost_reply {
	LIBVHOST_REPLY_NONE = 0,
	LIBVHOST_REPLY_ACK = 1,
	LIBVHOST_REPLY_OWN_NONE = 2,
	LIBVHOST_REPLY_OWN_U64 = 3,
	LIBVHOST_REPLY_OWN_STATE = 4,
	LIBVHOST_REPLY_OWN_CONFIG = 5,
	LIBVHOST_REPLY_OWN_INFLIGHT = 6,
	LIBVHOST_REPLY_OWN_CRYPTO = 7,
	LIBVHOST_REPLY_OWN_SHMEM = 8,
	LIBVHOST_REPLY_LOG = 9,
};

/** The operation is sent by the back-end (libvhost_op_info.flags). */
#define LIBVHOST_OP_FROM_BACKEND 0x1u
/** The reply carries a descriptor (libvhost_op_info.flags). */
#define LIBVHOST_OP_REPLY_FD 0x2u

/** vhost-user protocol feature bits (positions, not masks). */
enum libvhost_protocol_feature {
	LIBVHOST_PROTOCOL_F_MQ = 0,
	LIBVHOST_PROTOCOL_F_LOG_SHMFD = 1,
	LIBVHOST_PROTOCOL_F_RARP = 2,
	LIBVHOST_PROTOCOL_F_REPLY_ACK = 3,
	LIBVHOST_PROTOCOL_F_MTU = 4,
	LIBVHOST_PROTOCOL_F_BACKEND_REQ = 5,
	LIBVHOST_PROTOCOL_F_CROSS_ENDIAN = 6,
	LIBVHOST_PROTOCOL_F_CRYPTO_SESSION = 7,
	LIBVHOST_PROTOCOL_F_PAGEFAULT = 8,
	LIBVHOST_PROTOCOL_F_CONFIG = 9,
	LIBVHOST_PROTOCOL_F_BACKEND_SEND_FD = 10,
	LIBVHOST_PROTOCOL_F_HOST_NOTIFIER = 11,
	LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD = 12,
	LIBVHOST_PROTOCOL_F_RESET_DEVICE = 13,
	LIBVHOST_PROTOCOL_F_INBAND_NOTIFICATIONS = 14,
	LIBVHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
	LIBVHOST_PROTOCOL_F_STATUS = 16,
	LIBVHOST_PROTOCOL_F_XEN_MMAP = 17,
	LIBVHOST_PROTOCOL_F_SHARED_OBJECT = 18,
	LIBVHOST_PROTOCOL_F_DEVICE_STATE = 19,
	LIBVHOST_PROTOCOL_F_GET_VRING_BASE_INFLIGHT = 20,
	LIBVHOST_PROTOCOL_F_GPA_ADDRESSES = 21,
	LIBVHOST_PROTOCOL_F_SHMEM_MAP = 22,
};

#ifdef __cplusplus
}
#endif
#endif
