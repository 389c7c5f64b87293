/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The kernel's vhost and vDPA interface, complete up to feature arrays and fork-from-owner, written down by ourselves:
 * the header of an older distribution lacks half of it, and what the running kernel knows is found out by asking.
 * Numbers are asserted as literals in layout.c and compared with <linux/vhost.h> in a test.
 */
#ifndef LV_PROTOCOL_UAPI_H
#define LV_PROTOCOL_UAPI_H

#include <linux/ioctl.h>
#include <stdint.h>

struct lv_uapi_state {
	uint32_t index, num;
};

struct lv_uapi_file {
	uint32_t index;
	int32_t fd; /* -1 unbinds; 0 is a valid descriptor */
};

struct lv_uapi_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log;
};

struct lv_uapi_region {
	uint64_t gpa, size, user_addr, flags_padding;
};

struct lv_uapi_memory {
	uint32_t count, padding;
	struct lv_uapi_region regions[];
};

struct lv_uapi_iotlb {
	uint64_t iova, size, uaddr;
	uint8_t perm, type;
	uint8_t padding[38]; /* the kernel reserves 64 bytes */
};

/* Both versions of the message that is read from and written to the device node; v1 has padding in place of asid. */
struct lv_uapi_msg {
	uint32_t version; /* 1 or 2 */
	uint32_t asid;
	struct lv_uapi_iotlb iotlb;
};

struct lv_uapi_worker_state {
	uint32_t worker;
};

struct lv_uapi_vring_worker {
	uint32_t index, worker;
};

#define LV_UAPI_WWPN 224
struct lv_uapi_scsi_target {
	int32_t abi;
	char wwpn[LV_UAPI_WWPN];
	uint16_t tpgt, reserved;
};

struct lv_uapi_config {
	uint32_t offset, size;
	uint8_t bytes[];
};

struct lv_uapi_range {
	uint64_t first, last;
};

struct lv_uapi_features {
	uint64_t count;
	uint64_t words[];
};

#define LV_IO(nr)	  _IO(0xAF, nr)
#define LV_IOR(nr, type)  _IOR(0xAF, nr, type)
#define LV_IOW(nr, type)  _IOW(0xAF, nr, type)
#define LV_IOWR(nr, type) _IOWR(0xAF, nr, type)

#define LV_IOC_NONE			  0u
#define LV_IOC_GET_FEATURES		  LV_IOR(0x00, uint64_t)
#define LV_IOC_SET_FEATURES		  LV_IOW(0x00, uint64_t)
#define LV_IOC_SET_OWNER		  LV_IO(0x01)
#define LV_IOC_RESET_OWNER		  LV_IO(0x02)
#define LV_IOC_SET_MEM_TABLE		  LV_IOW(0x03, struct lv_uapi_memory)
#define LV_IOC_SET_LOG_BASE		  LV_IOW(0x04, uint64_t)
#define LV_IOC_SET_LOG_FD		  LV_IOW(0x07, int32_t)
#define LV_IOC_NEW_WORKER		  LV_IOR(0x08, struct lv_uapi_worker_state)
#define LV_IOC_FREE_WORKER		  LV_IOW(0x09, struct lv_uapi_worker_state)
#define LV_IOC_SET_VRING_NUM		  LV_IOW(0x10, struct lv_uapi_state)
#define LV_IOC_SET_VRING_ADDR		  LV_IOW(0x11, struct lv_uapi_addr)
#define LV_IOC_SET_VRING_BASE		  LV_IOW(0x12, struct lv_uapi_state)
#define LV_IOC_GET_VRING_BASE		  LV_IOWR(0x12, struct lv_uapi_state)
#define LV_IOC_SET_VRING_ENDIAN		  LV_IOW(0x13, struct lv_uapi_state)
#define LV_IOC_GET_VRING_ENDIAN		  LV_IOW(0x14, struct lv_uapi_state) /* returns data all the same */
#define LV_IOC_ATTACH_VRING_WORKER	  LV_IOW(0x15, struct lv_uapi_vring_worker)
#define LV_IOC_GET_VRING_WORKER		  LV_IOWR(0x16, struct lv_uapi_vring_worker)
#define LV_IOC_SET_VRING_KICK		  LV_IOW(0x20, struct lv_uapi_file)
#define LV_IOC_SET_VRING_CALL		  LV_IOW(0x21, struct lv_uapi_file)
#define LV_IOC_SET_VRING_ERR		  LV_IOW(0x22, struct lv_uapi_file)
#define LV_IOC_SET_VRING_BUSYLOOP_TIMEOUT LV_IOW(0x23, struct lv_uapi_state)
#define LV_IOC_GET_VRING_BUSYLOOP_TIMEOUT LV_IOW(0x24, struct lv_uapi_state) /* returns data all the same */
#define LV_IOC_SET_BACKEND_FEATURES	  LV_IOW(0x25, uint64_t)
#define LV_IOC_GET_BACKEND_FEATURES	  LV_IOR(0x26, uint64_t)
#define LV_IOC_NET_SET_BACKEND		  LV_IOW(0x30, struct lv_uapi_file)
#define LV_IOC_SCSI_SET_ENDPOINT	  LV_IOW(0x40, struct lv_uapi_scsi_target)
#define LV_IOC_SCSI_CLEAR_ENDPOINT	  LV_IOW(0x41, struct lv_uapi_scsi_target)
#define LV_IOC_SCSI_GET_ABI_VERSION	  LV_IOW(0x42, int32_t) /* returns data all the same */
#define LV_IOC_SCSI_SET_EVENTS_MISSED	  LV_IOW(0x43, uint32_t)
#define LV_IOC_SCSI_GET_EVENTS_MISSED	  LV_IOW(0x44, uint32_t) /* returns data all the same */
#define LV_IOC_VSOCK_SET_GUEST_CID	  LV_IOW(0x60, uint64_t)
#define LV_IOC_VSOCK_SET_RUNNING	  LV_IOW(0x61, int32_t)
#define LV_IOC_VDPA_GET_DEVICE_ID	  LV_IOR(0x70, uint32_t)
#define LV_IOC_VDPA_GET_STATUS		  LV_IOR(0x71, uint8_t)
#define LV_IOC_VDPA_SET_STATUS		  LV_IOW(0x72, uint8_t)
#define LV_IOC_VDPA_GET_CONFIG		  LV_IOR(0x73, struct lv_uapi_config)
#define LV_IOC_VDPA_SET_CONFIG		  LV_IOW(0x74, struct lv_uapi_config)
#define LV_IOC_VDPA_SET_VRING_ENABLE	  LV_IOW(0x75, struct lv_uapi_state)
#define LV_IOC_VDPA_GET_VRING_NUM	  LV_IOR(0x76, uint16_t)
#define LV_IOC_VDPA_SET_CONFIG_CALL	  LV_IOW(0x77, int32_t)
#define LV_IOC_VDPA_GET_IOVA_RANGE	  LV_IOR(0x78, struct lv_uapi_range)
#define LV_IOC_VDPA_GET_CONFIG_SIZE	  LV_IOR(0x79, uint32_t)
#define LV_IOC_VDPA_GET_AS_NUM		  LV_IOR(0x7A, uint32_t)
#define LV_IOC_VDPA_GET_VRING_GROUP	  LV_IOWR(0x7B, struct lv_uapi_state)
#define LV_IOC_VDPA_SET_GROUP_ASID	  LV_IOW(0x7C, struct lv_uapi_state)
#define LV_IOC_VDPA_SUSPEND		  LV_IO(0x7D)
#define LV_IOC_VDPA_RESUME		  LV_IO(0x7E)
#define LV_IOC_VDPA_GET_VRING_DESC_GROUP  LV_IOWR(0x7F, struct lv_uapi_state)
#define LV_IOC_VDPA_GET_VQS_COUNT	  LV_IOR(0x80, uint32_t)
#define LV_IOC_VDPA_GET_GROUP_NUM	  LV_IOR(0x81, uint32_t)
#define LV_IOC_VDPA_GET_VRING_SIZE	  LV_IOWR(0x82, struct lv_uapi_state) /* was 0x80 in 6.9-rc */
#define LV_IOC_SET_FEATURES_ARRAY	  LV_IOW(0x83, struct lv_uapi_features)
#define LV_IOC_GET_FEATURES_ARRAY	  LV_IOR(0x83, struct lv_uapi_features)
#define LV_IOC_SET_FORK_FROM_OWNER	  LV_IOW(0x84, uint8_t)
#define LV_IOC_GET_FORK_FROM_OWNER	  LV_IOR(0x85, uint8_t)

#endif
