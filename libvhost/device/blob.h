/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A frozen device as bytes: the format of docs/freeze.md, written and read field by field, little-endian, whatever the
 * machine. Pure functions on memory. The decoder believes nothing: what it accepts keeps every bound and every rule
 * between fields that the rest of the library relies on, whoever wrote it and however right its checksum is.
 */
#ifndef LV_DEVICE_BLOB_H
#define LV_DEVICE_BLOB_H

#include <vhost/freeze.h>
#include "core/error.h"
#include "core/objects.h"
#include "device/record.h"
#include "transport/connection.h"

#define LV_BLOB_MAJOR  1u
#define LV_BLOB_MINOR  0u
#define LV_BLOB_HEADER 40u /* bytes before the first section */
#define LV_BLOB_CRC_AT 36u /* where the checksum stands */
#define LV_BLOB_FDS    (8u + LV_CONNECTION_FDS + 5u * LIBVHOST_MAX_QUEUES)

/* Section types; numbers are part of the format. */
enum {
	LV_BLOB_WRITER = 1,
	LV_BLOB_RECORD = 2,
	LV_BLOB_QUEUES = 3,
	LV_BLOB_DEVICE = 4,
	LV_BLOB_MEMORY = 5,
	LV_BLOB_CONNECTION = 6,
	LV_BLOB_DESCRIPTORS = 7,
	LV_BLOB_INFLIGHT = 8,
	LV_BLOB_OBJECTS = 9,
	LV_BLOB_RECONNECT = 10,
};
#define LV_BLOB_SECTION_NEEDED 0x1u /* a reader that does not know the section must refuse the blob */

/* What a descriptor is; numbers are part of the format. From KICK on there is one per queue. */
enum lv_blob_fd_kind {
	LV_BLOB_FD_CONTROL = 1,
	LV_BLOB_FD_LISTENER = 2,
	LV_BLOB_FD_CHANNEL = 3,
	LV_BLOB_FD_MESSAGE = 4, /* came with the channel's half-read request; index = which */
	LV_BLOB_FD_INFLIGHT = 5,
	LV_BLOB_FD_LOG = 6,
	LV_BLOB_FD_CONFIG_CALL = 7,
	LV_BLOB_FD_KICK = 16,
	LV_BLOB_FD_CALL = 17,
	LV_BLOB_FD_ERR = 18,
	LV_BLOB_FD_MASKED = 19,
	LV_BLOB_FD_DOORBELL = 20,
};

struct lv_blob_fd {
	uint32_t kind, index;
};

/* A region as the peer knows it, and which file of this kernel it is. */
struct lv_blob_region {
	uint64_t gpa, size, user_addr, mmap_offset, dev, ino;
	uint32_t flags;
};

/* Bytes of one entry as this version writes it; a reader takes the size from the blob and skips what it does not know.
 */
#define LV_BLOB_QUEUE_BYTES  48u
#define LV_BLOB_REGION_BYTES 56u
#define LV_BLOB_FD_BYTES     8u
#define LV_BLOB_OBJECT_BYTES 16u

enum { LV_BLOB_Q_ERR_OURS = 1u << 0, LV_BLOB_Q_BOUND = 1u << 1 };
enum {
	LV_BLOB_D_ACK_ALL = 1u << 0,	  /* the last failure asks for exact attribution */
	LV_BLOB_D_OBJECTS_MUTE = 1u << 1, /* the back-end did not answer for a shared object */
	LV_BLOB_D_CONFIG_MASKED = 1u << 2,
	LV_BLOB_D_CONFIG_PENDING = 1u << 3,
};
enum { LV_BLOB_C_F30_OFFERED = 1u << 0, LV_BLOB_C_F30_ACKED = 1u << 1, LV_BLOB_C_CHANNEL = 1u << 2 };

/* Large: on the heap. Byte runs are borrowed, from the blob or from the device. */
struct lv_blob {
	uint32_t minor, flags; /* LIBVHOST_FREEZE_* */
	char written_by[16];
	struct lv_record *rec; /* of the decoder: owned */
	uint8_t queue_bits[LIBVHOST_MAX_QUEUES];
	uint64_t doorbell[LIBVHOST_MAX_QUEUES]; /* offset in its file, where there is a descriptor */
	uint32_t dev_flags, ack_policy, dev_bits;
	uint64_t protocol_never;
	struct libvhost_reconnect_policy policy; /* .size 0 = not told */
	bool has_memory;			 /* the peer has a table, perhaps an empty one */
	uint32_t num_regions;
	struct lv_blob_region regions[LIBVHOST_MAX_REGIONS]; /* sorted by gpa, disjoint */
	struct lv_connection conn;			     /* without its descriptors */
	bool conn_channel;				     /* it has a back-end channel */
	uint32_t nfds;
	struct lv_blob_fd fds[LV_BLOB_FDS];
	uint32_t num_objects;
	uint8_t objects[LV_OBJECTS_OF_DEVICE][LV_UUID_BYTES]; /* shared objects that the back-end registered */
	const uint8_t *inflight;			      /* SNAPSHOT: as libvhost_dev_save_inflight() wrote it */
	size_t inflight_len;
};

/* Returns the bytes it takes; written completely if cap is enough, undefined otherwise. buf may be NULL with cap 0. */
size_t lv_blob_encode(const struct lv_blob *blob, void *buf, size_t cap);
/* 0 with *ret (lv_blob_free); -EBADMSG and -ENOTSUP (recorded); -ENOMEM. */
int lv_blob_decode(struct lv_errslot *err, const void *buf, size_t len, struct lv_blob **ret);
void lv_blob_free(struct lv_blob *blob); /* NULL is allowed */

/* CRC-32C of a blob, its own field taken as 0. len at least LV_BLOB_HEADER. */
uint32_t lv_blob_crc(const void *buf, size_t len);
/* Position of a descriptor, or -1. */
int lv_blob_find_fd(const struct lv_blob *blob, enum lv_blob_fd_kind kind, uint32_t index);

#endif
