/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Layouts and numbers that may never change, asserted at compile time, equal on 32 and 64 bit: the public request, its
 * arguments, and the kernel's ioctl numbers, written as literals. The wire's payloads are asserted where they are
 * declared. No struct has a hole, so that nothing depends on how a machine aligns 64-bit words.
 */
#include <stddef.h>
#include <vhost/req.h>
#include "protocol/uapi.h"

#define SIZE(type, bytes)      _Static_assert(sizeof(struct type) == (bytes), #type)
#define FIELD(type, field, at) _Static_assert(offsetof(struct type, field) == (at), #type "." #field)
#define NUMBER(name, literal)  _Static_assert(LV_IOC_##name == (literal), #name)

SIZE(libvhost_req, 128);
FIELD(libvhost_req, op, 0);
FIELD(libvhost_req, flags, 4);
FIELD(libvhost_req, index, 8);
FIELD(libvhost_req, fd, 12);
FIELD(libvhost_req, arg, 16);
FIELD(libvhost_req, data_in, 64);
FIELD(libvhost_req, data_out, 72);
FIELD(libvhost_req, data_in_len, 80);
FIELD(libvhost_req, data_out_cap, 84);
FIELD(libvhost_req, data_out_len, 88);
FIELD(libvhost_req, err, 92);
FIELD(libvhost_req, state, 96);
FIELD(libvhost_req, out_fd, 100);
FIELD(libvhost_req, out_flags, 104);
FIELD(libvhost_req, reserved, 108);
FIELD(libvhost_req, result, 112);

SIZE(libvhost_vring_addr, 40);
FIELD(libvhost_vring_addr, flags, 0);
FIELD(libvhost_vring_addr, reserved, 4);
FIELD(libvhost_vring_addr, desc, 8);
FIELD(libvhost_vring_addr, used, 16);
FIELD(libvhost_vring_addr, avail, 24);
FIELD(libvhost_vring_addr, log, 32);

SIZE(libvhost_req_region, 40);
FIELD(libvhost_req_region, gpa, 0);
FIELD(libvhost_req_region, size, 8);
FIELD(libvhost_req_region, user_addr, 16);
FIELD(libvhost_req_region, mmap_offset, 24);
FIELD(libvhost_req_region, xen_flags, 32);
FIELD(libvhost_req_region, xen_domid, 36);

SIZE(libvhost_req_log, 24);
FIELD(libvhost_req_log, base, 0);
FIELD(libvhost_req_log, size, 8);
FIELD(libvhost_req_log, offset, 16);

SIZE(libvhost_req_iotlb, 32);
FIELD(libvhost_req_iotlb, iova, 0);
FIELD(libvhost_req_iotlb, size, 8);
FIELD(libvhost_req_iotlb, uaddr, 16);
FIELD(libvhost_req_iotlb, perm, 24);
FIELD(libvhost_req_iotlb, type, 25);
FIELD(libvhost_req_iotlb, reserved, 26);
FIELD(libvhost_req_iotlb, asid, 28);

SIZE(libvhost_req_config, 12);
FIELD(libvhost_req_config, offset, 0);
FIELD(libvhost_req_config, size, 4);
FIELD(libvhost_req_config, flags, 8);

SIZE(libvhost_req_inflight, 24);
FIELD(libvhost_req_inflight, mmap_size, 0);
FIELD(libvhost_req_inflight, mmap_offset, 8);
FIELD(libvhost_req_inflight, num_queues, 16);
FIELD(libvhost_req_inflight, queue_size, 18);
FIELD(libvhost_req_inflight, reserved, 20);

SIZE(libvhost_req_transfer, 8);
FIELD(libvhost_req_transfer, direction, 0);
FIELD(libvhost_req_transfer, phase, 4);

SIZE(libvhost_req_mmap, 40);
FIELD(libvhost_req_mmap, shmid, 0);
FIELD(libvhost_req_mmap, reserved, 1);
FIELD(libvhost_req_mmap, fd_offset, 8);
FIELD(libvhost_req_mmap, shm_offset, 16);
FIELD(libvhost_req_mmap, len, 24);
FIELD(libvhost_req_mmap, flags, 32);

SIZE(libvhost_req_area, 24);
FIELD(libvhost_req_area, flags, 0);
FIELD(libvhost_req_area, size, 8);
FIELD(libvhost_req_area, offset, 16);

SIZE(libvhost_req_table, 8);
FIELD(libvhost_req_table, count, 0);
FIELD(libvhost_req_table, stride, 4);

SIZE(libvhost_req_raw, 12);
FIELD(libvhost_req_raw, request, 0);
FIELD(libvhost_req_raw, flags, 4);
FIELD(libvhost_req_raw, reply, 8);

SIZE(libvhost_region, 48);
FIELD(libvhost_region, gpa, 0);
FIELD(libvhost_region, size, 8);
FIELD(libvhost_region, user_addr, 16);
FIELD(libvhost_region, mmap_offset, 24);
FIELD(libvhost_region, fd, 32);
FIELD(libvhost_region, flags, 36);
FIELD(libvhost_region, xen_flags, 40);
FIELD(libvhost_region, xen_domid, 44);

/* Pointers come last, so that what precedes them lies alike everywhere. */
FIELD(libvhost_op_info, size, 0);
FIELD(libvhost_op_info, op, 4);
FIELD(libvhost_op_info, user_request, 8);
FIELD(libvhost_op_info, protocol_bit, 12);
FIELD(libvhost_op_info, ioctl_nr, 16);
FIELD(libvhost_op_info, payload, 24);
FIELD(libvhost_op_info, reply, 28);
FIELD(libvhost_op_info, max_fds, 32);
FIELD(libvhost_op_info, flags, 36);
FIELD(libvhost_op_info, name, 40);
FIELD(libvhost_op_info, text, 40 + sizeof(void *));

SIZE(lv_uapi_state, 8);
SIZE(lv_uapi_file, 8);
SIZE(lv_uapi_addr, 40);
SIZE(lv_uapi_region, 32);
SIZE(lv_uapi_memory, 8);
SIZE(lv_uapi_iotlb, 64);
SIZE(lv_uapi_msg, 72);
FIELD(lv_uapi_msg, iotlb, 8);
SIZE(lv_uapi_worker_state, 4);
SIZE(lv_uapi_vring_worker, 8);
SIZE(lv_uapi_scsi_target, 232);
SIZE(lv_uapi_config, 8);
SIZE(lv_uapi_range, 16);
SIZE(lv_uapi_features, 8);

/* Alpha, MIPS, PowerPC and SPARC encode the direction differently; the sizes above hold there too. */
#if _IOC_NONE == 0U && _IOC_WRITE == 1U && _IOC_DIRSHIFT == 30
NUMBER(GET_FEATURES, 0x8008af00);
NUMBER(SET_FEATURES, 0x4008af00);
NUMBER(SET_OWNER, 0x0000af01);
NUMBER(RESET_OWNER, 0x0000af02);
NUMBER(SET_MEM_TABLE, 0x4008af03);
NUMBER(SET_LOG_BASE, 0x4008af04);
NUMBER(SET_LOG_FD, 0x4004af07);
NUMBER(NEW_WORKER, 0x8004af08);
NUMBER(FREE_WORKER, 0x4004af09);
NUMBER(SET_VRING_NUM, 0x4008af10);
NUMBER(SET_VRING_ADDR, 0x4028af11);
NUMBER(SET_VRING_BASE, 0x4008af12);
NUMBER(GET_VRING_BASE, 0xc008af12);
NUMBER(SET_VRING_ENDIAN, 0x4008af13);
NUMBER(GET_VRING_ENDIAN, 0x4008af14);
NUMBER(ATTACH_VRING_WORKER, 0x4008af15);
NUMBER(GET_VRING_WORKER, 0xc008af16);
NUMBER(SET_VRING_KICK, 0x4008af20);
NUMBER(SET_VRING_CALL, 0x4008af21);
NUMBER(SET_VRING_ERR, 0x4008af22);
NUMBER(SET_VRING_BUSYLOOP_TIMEOUT, 0x4008af23);
NUMBER(GET_VRING_BUSYLOOP_TIMEOUT, 0x4008af24);
NUMBER(SET_BACKEND_FEATURES, 0x4008af25);
NUMBER(GET_BACKEND_FEATURES, 0x8008af26);
NUMBER(NET_SET_BACKEND, 0x4008af30);
NUMBER(SCSI_SET_ENDPOINT, 0x40e8af40);
NUMBER(SCSI_CLEAR_ENDPOINT, 0x40e8af41);
NUMBER(SCSI_GET_ABI_VERSION, 0x4004af42);
NUMBER(SCSI_SET_EVENTS_MISSED, 0x4004af43);
NUMBER(SCSI_GET_EVENTS_MISSED, 0x4004af44);
NUMBER(VSOCK_SET_GUEST_CID, 0x4008af60);
NUMBER(VSOCK_SET_RUNNING, 0x4004af61);
NUMBER(VDPA_GET_DEVICE_ID, 0x8004af70);
NUMBER(VDPA_GET_STATUS, 0x8001af71);
NUMBER(VDPA_SET_STATUS, 0x4001af72);
NUMBER(VDPA_GET_CONFIG, 0x8008af73);
NUMBER(VDPA_SET_CONFIG, 0x4008af74);
NUMBER(VDPA_SET_VRING_ENABLE, 0x4008af75);
NUMBER(VDPA_GET_VRING_NUM, 0x8002af76);
NUMBER(VDPA_SET_CONFIG_CALL, 0x4004af77);
NUMBER(VDPA_GET_IOVA_RANGE, 0x8010af78);
NUMBER(VDPA_GET_CONFIG_SIZE, 0x8004af79);
NUMBER(VDPA_GET_AS_NUM, 0x8004af7a);
NUMBER(VDPA_GET_VRING_GROUP, 0xc008af7b);
NUMBER(VDPA_SET_GROUP_ASID, 0x4008af7c);
NUMBER(VDPA_SUSPEND, 0x0000af7d);
NUMBER(VDPA_RESUME, 0x0000af7e);
NUMBER(VDPA_GET_VRING_DESC_GROUP, 0xc008af7f);
NUMBER(VDPA_GET_VQS_COUNT, 0x8004af80);
NUMBER(VDPA_GET_GROUP_NUM, 0x8004af81);
NUMBER(VDPA_GET_VRING_SIZE, 0xc008af82);
NUMBER(SET_FEATURES_ARRAY, 0x4008af83);
NUMBER(GET_FEATURES_ARRAY, 0x8008af83);
NUMBER(SET_FORK_FROM_OWNER, 0x4001af84);
NUMBER(GET_FORK_FROM_OWNER, 0x8001af85);
#endif
