/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/**
 * @file req.h
 * One request: the fixed 128-byte form in which every transport says everything it can say.
 *
 * A program is an array of these. A request is a front-end message, an ioctl, an IOTLB write, or (inbound) a message of
 * the back-end. The payload kind that libvhost_op_info() returns says which member of the argument union is used and
 * where results lie; queue numbers are in .index, descriptors in .fd under LIBVHOST_REQ_HAS_FD:
 *
 *  - U64: .u64 (SET_FEATURES: .features, low word first). NONE: nothing, but GET_ reads a number into result[0].
 *  - STATE: .index and .num; GET_VRING_BASE reads result[0].
 *  - VRING_FD: .index and .fd; without descriptor: polling.
 *  - ADDR: .index and .addr. REGION: .region, ADD_MEM_REG with .fd. LOG: .log and .fd.
 *  - TABLE: .table, data_in = struct libvhost_region[], each with its own descriptor.
 *  - IOTLB: .iotlb, both directions.
 *  - CONFIG: .config; GET_CONFIG writes data_out and result[0] = bytes, SET_CONFIG reads data_in.
 *  - CRYPTO: data_in = the session as on the wire (1072 bytes, older peers 632); result[0] = its identifier, data_out
 *    (optional) = the session as it came back.
 *  - INFLIGHT: .inflight; GET_INFLIGHT_FD returns result[0] = size, result[1] = offset, out_fd; SET_ takes .fd.
 *  - UUID: .uuid; GET_SHARED_OBJECT and the look-up return out_fd.
 *  - TRANSFER: .transfer and .fd; result[0] = the word the peer answered, out_fd if it gave one.
 *  - MMAP: .mmap, SHMEM_MAP with .fd. AREA: .index, .area, and .fd unless it removes.
 *  - POSTCOPY_ADVISE returns out_fd; GET_SHMEM_CONFIG writes data_out = {u32 count, u32 0, u64 sizes[256]} (2056 bytes)
 *    and result[0] = count.
 *  - RAW: .raw, data_in, .fd; if it waits for a reply: data_out, out_fd, result[0] = the reply's header flags.
 *
 * Operations that only ioctls have: numbers in .u64 and result[0]; ring states in .index and .num (group and address
 * space of VDPA_SET_GROUP_ASID too); workers .index and .u64; VDPA_GET_IOVA_RANGE result[0] first, result[1] last;
 * SET_FEATURES_ARRAY .features, GET_FEATURES_ARRAY result[0] and result[1]; SCSI endpoints data_in = target name
 * without terminator, .u64 = ABI version, .index = portal group; NET_SET_BACKEND .index and .fd, without descriptor:
 * detach.
 *
 * Arguments are never written to.
 */
#ifndef LIBVHOST_REQ_H
#define LIBVHOST_REQ_H

#include <vhost/ops.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Caller's flags of a request. */
#define LIBVHOST_REQ_HAS_FD	0x01u /**< .fd is given */
#define LIBVHOST_REQ_TAKE_FD	0x02u /**< .fd is closed by the library once the request was sent or dropped */
#define LIBVHOST_REQ_NEED_REPLY 0x04u /**< ask the peer to confirm this one, whatever the ack policy says */
#define LIBVHOST_REQ_BARRIER	0x08u /**< send only when everything before it is confirmed */
#define LIBVHOST_REQ_OPTIONAL	0x10u /**< a refusal of this request does not fail the program */

/** What became of a request. */
enum libvhost_req_state {
	LIBVHOST_REQ_NOT_SENT = 0, /**< the peer never saw it */
	LIBVHOST_REQ_DONE = 1,	   /**< confirmed; results are valid */
	LIBVHOST_REQ_FAILED = 2,   /**< the peer refused it, .err says how */
	LIBVHOST_REQ_UNKNOWN = 3   /**< sent, never confirmed */
};

/** .out_flags */
#define LIBVHOST_REQ_OUT_FD 0x1u /**< .out_fd is a descriptor that the caller now owns */

/** Argument of SET_VRING_ADDR. */
struct libvhost_vring_addr {
	uint32_t flags;	   /**< bit 0: log writes to the used ring */
	uint32_t reserved; /**< 0 */
	uint64_t desc;	   /**< address of the descriptor table, in the transport's address kind */
	uint64_t used;	   /**< used ring / device event area */
	uint64_t avail;	   /**< available ring / driver event area */
	uint64_t log;	   /**< guest-physical address of the used ring, for the dirty log */
};

/** Argument of ADD_MEM_REG / REM_MEM_REG; its descriptor is the request's. */
struct libvhost_req_region {
	uint64_t gpa;	      /**< guest-physical address, bytes */
	uint64_t size;	      /**< bytes, not 0 */
	uint64_t user_addr;   /**< address by which rings refer to the region */
	uint64_t mmap_offset; /**< offset in the descriptor's file, bytes */
	uint32_t xen_flags;   /**< only with XEN_MMAP */
	uint32_t xen_domid;   /**< only with XEN_MMAP */
};

/** Argument of SET_LOG_BASE. */
struct libvhost_req_log {
	uint64_t base;	 /**< kernel: address of the bitmap in this process; vhost-user without LOG_SHMFD: raw value */
	uint64_t size;	 /**< bitmap bytes */
	uint64_t offset; /**< offset in the descriptor's file */
};

/** Argument of IOTLB_MSG in both directions. */
struct libvhost_req_iotlb {
	uint64_t iova;	   /**< I/O virtual address */
	uint64_t size;	   /**< bytes */
	uint64_t uaddr;	   /**< what it maps to */
	uint8_t perm;	   /**< 1 read, 2 write, 3 both */
	uint8_t type;	   /**< 1 miss, 2 update, 3 invalidate, 4 access fail, 5 batch begin, 6 batch end */
	uint16_t reserved; /**< 0 */
	uint32_t asid;	   /**< address space, vDPA only */
};

/** Argument of GET_CONFIG / SET_CONFIG; bytes travel in data_out / data_in. */
struct libvhost_req_config {
	uint32_t offset; /**< first byte */
	uint32_t size;	 /**< number of bytes, 1..256 on vhost-user, 1..4096 on vDPA */
	uint32_t flags;	 /**< SET_CONFIG: 0 guest write, 1 live migration (2 from a vhost-user peer arrives as 1) */
};

/** Argument of GET_INFLIGHT_FD (queues and size only) and SET_INFLIGHT_FD. */
struct libvhost_req_inflight {
	uint64_t mmap_size;   /**< bytes of the region */
	uint64_t mmap_offset; /**< offset in the descriptor's file */
	uint16_t num_queues;  /**< 1..256 */
	uint16_t queue_size;  /**< 1..32768 */
	uint32_t reserved;    /**< 0 */
};

/** Argument of SET_DEVICE_STATE_FD. */
struct libvhost_req_transfer {
	uint32_t direction; /**< 0 save, 1 load */
	uint32_t phase;	    /**< 0 stopped */
};

/** Argument of SHMEM_MAP / SHMEM_UNMAP (inbound). */
struct libvhost_req_mmap {
	uint8_t shmid;	     /**< which shared-memory region */
	uint8_t reserved[7]; /**< 0 */
	uint64_t fd_offset;  /**< offset in the descriptor's file */
	uint64_t shm_offset; /**< offset in the region */
	uint64_t len;	     /**< bytes, not 0 */
	uint64_t flags;	     /**< bit 0: writable */
};

/** Argument of VRING_HOST_NOTIFIER_MSG (inbound); the queue is .index. */
struct libvhost_req_area {
	uint64_t flags;	 /**< bit 8: remove, then the rest counts nothing */
	uint64_t size;	 /**< bytes, not 0 */
	uint64_t offset; /**< offset in the descriptor's file */
};

/** Argument of SET_MEM_TABLE, whose data_in is an array of struct libvhost_region. */
struct libvhost_req_table {
	uint32_t count;	 /**< entries */
	uint32_t stride; /**< bytes from one entry to the next; entries may grow in later versions */
};

/** Argument of RAW: any header and payload; bytes in data_in, answer in data_out. */
struct libvhost_req_raw {
	uint32_t request; /**< wire request number */
	uint32_t flags;	  /**< header flags; version and need_reply are as given */
	uint32_t reply;	  /**< 1: wait for one reply with this request number, payload to data_out */
};

/** One entry of a memory table in data_in, and of libvhost_mem. */
struct libvhost_region {
	uint64_t gpa;	      /**< guest-physical address */
	uint64_t size;	      /**< bytes, not 0 */
	uint64_t user_addr;   /**< in a table: address by which rings refer to it; in libvhost_mem: host address or 0 */
	uint64_t mmap_offset; /**< offset in the file */
	int32_t fd;	      /**< counts under LIBVHOST_REGION_HAS_FD */
	uint32_t flags;	      /**< LIBVHOST_REGION_* */
	uint32_t xen_flags;   /**< only with XEN_MMAP */
	uint32_t xen_domid;   /**< only with XEN_MMAP */
};

#define LIBVHOST_REGION_HAS_FD	 0x1u /**< .fd is given */
#define LIBVHOST_REGION_READONLY 0x2u /**< the device must not write it */

/** The request. 128 bytes on every architecture. Since 0.1. */
struct libvhost_req {
	uint32_t op;	/**< enum libvhost_op */
	uint32_t flags; /**< LIBVHOST_REQ_* */
	uint32_t index; /**< queue index where the operation has one */
	int32_t fd;	/**< counts under LIBVHOST_REQ_HAS_FD; elsewhere it means "no descriptor" (polling, detach) */
	union {
		uint64_t u64; /**< feature word, status, MTU, MAC, CID, worker id, plain numbers */
		uint64_t features[LIBVHOST_FEATURE_WORDS]; /**< feature words, low first */
		uint32_t num; /**< ring size, base, enable, endianness, timeout in microseconds */
		struct libvhost_vring_addr addr;
		struct libvhost_req_region region;
		struct libvhost_req_log log;
		struct libvhost_req_iotlb iotlb;
		struct libvhost_req_config config;
		struct libvhost_req_inflight inflight;
		uint8_t uuid[16];
		struct libvhost_req_transfer transfer;
		struct libvhost_req_mmap mmap;
		struct libvhost_req_area area;
		struct libvhost_req_table table;
		struct libvhost_req_raw raw;
		uint8_t bytes[48];
	} arg;
	uint64_t data_in;      /**< address of input bytes, 0 = none */
	uint64_t data_out;     /**< address of an output buffer, 0 = none */
	uint32_t data_in_len;  /**< bytes */
	uint32_t data_out_cap; /**< bytes; an answer that does not fit is an error, never cut */
	uint32_t data_out_len; /**< result: bytes written to data_out */
	int32_t err;	       /**< result: 0 or negative errno */
	uint32_t state;	       /**< result: enum libvhost_req_state */
	int32_t out_fd;	       /**< result: counts under LIBVHOST_REQ_OUT_FD, owned by the caller */
	uint32_t out_flags;    /**< result: LIBVHOST_REQ_OUT_* */
	uint32_t reserved;     /**< 0 */
	uint64_t result[2];    /**< result: value read, raw acknowledgement, base and so on */
};

/** How the operation table describes one operation. Since 0.1. */
struct libvhost_op_info {
	uint32_t size;	      /**< sizeof(struct libvhost_op_info) */
	uint32_t op;	      /**< enum libvhost_op */
	int32_t user_request; /**< vhost-user request number, -1 none */
	int32_t protocol_bit; /**< protocol feature that must be acknowledged, -1 none */
	uint64_t ioctl_nr;    /**< ioctl request number on Linux, 0 none */
	uint32_t payload;     /**< enum libvhost_payload of the request */
	uint32_t reply;	      /**< enum libvhost_reply */
	uint32_t max_fds;     /**< descriptors it may carry */
	uint32_t flags;	      /**< LIBVHOST_OP_FROM_BACKEND, ... */
	const char *name;     /**< specification name, static */
	const char *text;     /**< one sentence, static */
};

/**
 * Describes one operation. @return 0; -EINVAL (NULL, bad size); -ENOENT (no such operation). Thread-safe. Since 0.1.
 */
LIBVHOST_API int libvhost_op_info(uint32_t op, struct libvhost_op_info *info);

/**
 * Renders a request on one line for people and logs: "SET_VRING_NUM queue 3 num 256". Descriptors appear as "fd". Cuts
 * at @p cap bytes and always terminates. Thread-safe, never fails. Since 0.1.
 */
LIBVHOST_API void libvhost_req_text(const struct libvhost_req *req, char *buf, size_t cap);

/** Specification name of an operation, "SET_MEM_TABLE"; "?" for a number outside the table. Static. Since 0.1. */
LIBVHOST_API const char *libvhost_op_name(uint32_t op);

/** Finds an operation by its specification name. @return its number, or LIBVHOST_OP_NONE. Since 0.1. */
LIBVHOST_API uint32_t libvhost_op_by_name(const char *name);

/**
 * Name of a virtio feature bit for a device type ("VIRTIO_BLK_F_MQ", "VIRTIO_F_VERSION_1"), NULL if unknown.
 * @param virtio_id virtio device id (1 net, 2 block …); 0 = only the bits common to all. Static. Since 0.1.
 */
LIBVHOST_API const char *libvhost_feature_name(uint32_t virtio_id, uint32_t bit);

/** Name of a vhost-user protocol feature bit ("REPLY_ACK"), NULL if unknown. Static. Since 0.1. */
LIBVHOST_API const char *libvhost_protocol_feature_name(uint32_t bit);

#ifdef __cplusplus
}
#endif
#endif
