/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Shorthands of the ring tests: one guest, one ring, a driver and a device on it, or the bare ring to write into. */
#ifndef LV_TESTS_RINGHELP_H
#define LV_TESTS_RINGHELP_H

#include <sys/eventfd.h>

#include "memhelp.h"
#include "vring/vring.h"

/*
 * RAM of the rig, with a page that faults on either side:
 *   RAM .. +HALF      ring areas at its end, so that one byte too far faults; indirect tables from RAM on
 *   RAM + HALF ..     a second region, adjacent in guest memory only; data
 */
#define RAM	   0x100000ull
#define HALF	   0x200000ull
#define DATA	   (RAM + HALF)
#define IOV_CAP	   64u
#define F_INDIRECT LV_F_INDIRECT_DESC
#define F_EVENT	   LV_F_EVENT_IDX
#define F_PACKED   LV_F_RING_PACKED
#define F_ORDERED  LV_F_USED_IN_ORDER

struct rig {
	struct guest g;
	struct libvhost_vq *drv, *dev;
	struct libvhost_vq_opts opts;
	uint8_t *maps[2];
	struct lv_split_ring ring; /* as the attacker sees it */
	struct lv_packed_ring packed;
	int kick, call;
	struct libvhost_iov iov[IOV_CAP];
};

static inline uint8_t *guarded(uint64_t size)
{
	uint8_t *at = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED);
	CHECK_EQ(mprotect(at + PAGE, size, PROT_READ | PROT_WRITE), 0);
	return at + PAGE;
}

static inline struct libvhost_region plain_region(uint64_t gpa, uint64_t size, void *at)
{
	return (struct libvhost_region){.gpa = gpa, .size = size, .user_addr = (uintptr_t)at};
}

/* The ring's memory and options; no queue object yet. */
static inline void rig_memory(struct rig *r, uint32_t num, uint64_t features)
{
	struct libvhost_vq_layout l = {.size = sizeof(l)};

	*r = (struct rig){.g = guest_new(0)};
	for (int i = 0; i < 2; i++)
		r->maps[i] = guarded(HALF);
	CHECK_EQ(libvhost_mem_begin(r->g.mem), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct libvhost_region reg = plain_region(RAM + i * HALF, HALF, r->maps[i]);

		CHECK_EQ(libvhost_mem_add(r->g.mem, &reg), 0);
	}
	CHECK_EQ(libvhost_mem_commit(r->g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_vq_layout(num, features, &l), 0);
	r->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r->opts = (struct libvhost_vq_opts){.size = sizeof(r->opts),
					    .flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL,
					    .num = num,
					    .index = 7,
					    .features = features | LV_F_VERSION_1,
					    .kick_fd = r->kick,
					    .call_fd = r->call};
	r->opts.used = (RAM + HALF - l.used_bytes) & ~3ull;
	r->opts.avail = r->opts.used - l.avail_bytes;
	r->opts.desc = (r->opts.avail - l.desc_bytes) & ~15ull;
	r->ring = (struct lv_split_ring){.desc = at(&r->g, r->opts.desc),
					 .avail = at(&r->g, r->opts.avail),
					 .used = at(&r->g, r->opts.used),
					 .num = num};
	r->packed = (struct lv_packed_ring){.desc = at(&r->g, r->opts.desc),
					    .driver = at(&r->g, r->opts.avail),
					    .device = at(&r->g, r->opts.used),
					    .num = num};
}

static inline void rig_device(struct rig *r)
{
	struct libvhost_vq_opts o = r->opts;

	o.role = LIBVHOST_VQ_DEVICE;
	CHECK_EQ(libvhost_vq_new(r->g.ctx, r->g.mem, &o, &r->dev), 0);
}

/* Indirect tables lie at RAM when the feature is there and they fit. */
static inline void rig_driver(struct rig *r)
{
	struct libvhost_vq_opts o = r->opts;

	if (o.features & F_INDIRECT) {
		o.indirect = RAM;
		o.max_chain = o.num < 8 ? o.num : 8;
	}
	CHECK_EQ(libvhost_vq_new(r->g.ctx, r->g.mem, &o, &r->drv), 0);
}

/* Driver first: it initialises the ring. */
static inline void rig_new(struct rig *r, uint32_t num, uint64_t features)
{
	rig_memory(r, num, features);
	rig_driver(r);
	rig_device(r);
}

static inline void rig_free(struct rig *r)
{
	libvhost_vq_free(r->drv);
	libvhost_vq_free(r->dev);
	guest_free(&r->g);
	for (int i = 0; i < 2; i++)
		munmap(r->maps[i] - PAGE, HALF + 2 * PAGE);
	close(r->kick);
	close(r->call);
}

static inline struct libvhost_chain rig_chain(struct rig *r)
{
	return (struct libvhost_chain){.size = sizeof(struct libvhost_chain), .iov = r->iov, .iov_cap = IOV_CAP};
}

static inline int rig_pop(struct rig *r, struct libvhost_chain *c)
{
	*c = rig_chain(r);
	return libvhost_vq_pop(r->dev, c);
}

/* One request that the device fills, from the driver through the device and back. */
static inline void rig_request(struct rig *r, const struct libvhost_buf *b, uint64_t token)
{
	struct libvhost_chain c;
	struct libvhost_used u;
	uint32_t n = 1;

	CHECK_EQ(libvhost_vq_add(r->drv, b, 0, 1, token), 0);
	CHECK(libvhost_vq_kick(r->drv) >= 0);
	CHECK_EQ(rig_pop(r, &c), 1);
	CHECK_EQ(libvhost_vq_push(r->dev, c.head, b->len), 0);
	CHECK(libvhost_vq_flush(r->dev) >= 0);
	CHECK_EQ(libvhost_vq_get_used(r->drv, &u, &n), 0);
	CHECK(n == 1 && u.token == token);
}

/* What a hostile driver does: writes a descriptor, offers a head. */
static inline void desc(struct rig *r, uint32_t i, uint64_t addr, uint32_t len, uint32_t flags, uint32_t next)
{
	lv_desc_put(false, &r->ring.desc[i],
		    (struct lv_desc){.addr = addr, .len = len, .flags = (uint16_t)flags, .next = (uint16_t)next});
}

static inline void offer(struct rig *r, uint32_t head)
{
	uint16_t idx = lv_ring_idx(&r->ring, r->ring.avail);

	*lv_avail_slot(&r->ring, idx) = (uint16_t)head;
	lv_ring_set_idx(&r->ring, r->ring.avail, (uint16_t)(idx + 1));
}

/* What a hostile device does: completes whatever it likes. */
static inline void complete(struct rig *r, uint32_t id, uint32_t len)
{
	uint16_t idx = lv_ring_idx(&r->ring, r->ring.used);

	lv_used_put(&r->ring, idx, (struct lv_used_elem){.id = id, .len = len});
	lv_ring_set_idx(&r->ring, r->ring.used, (uint16_t)(idx + 1));
}

/* The same on a packed ring: writes a descriptor as it is, makes one available or used at pos. */
static inline void slot(struct rig *r, uint16_t pos, uint64_t addr, uint32_t len, uint32_t id, uint32_t flags)
{
	lv_packed_set_addr(&r->packed, pos, addr);
	lv_packed_publish(&r->packed, pos, lv_packed_meta(len, (uint16_t)id, (uint16_t)flags));
}

static inline void slot_offer(struct rig *r, uint16_t pos, uint64_t addr, uint32_t len, uint32_t id, uint32_t flags)
{
	slot(r, pos, addr, len, id, flags | lv_avail_bits(pos));
}

static inline void slot_complete(struct rig *r, uint16_t pos, uint32_t id, uint32_t len)
{
	lv_packed_publish(&r->packed, pos, lv_packed_meta(len, (uint16_t)id, lv_used_bits(pos)));
}

static inline struct libvhost_error vq_error(struct libvhost_vq *vq)
{
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(libvhost_vq_error(vq, &e), 0);
	return e;
}

static inline struct libvhost_vq_info vq_info(struct libvhost_vq *vq)
{
	struct libvhost_vq_info i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_vq_info(vq, &i), 0);
	return i;
}

/* The device's next pop breaks the queue, which says why, stays broken for every call, and has not touched the caller's
 * chain. Ends the rig. */
static inline void rig_broken(struct rig *r, const char *why)
{
	struct libvhost_chain c = rig_chain(r), before = c;

	CHECK_EQ(libvhost_vq_pop(r->dev, &c), -EBADMSG);
	CHECK_MEM(&c, &before, sizeof(c));
	CHECK_HAS(vq_error(r->dev).text, "queue 7");
	CHECK_HAS(vq_error(r->dev).text, why);
	CHECK_EQ(vq_error(r->dev).kind, LIBVHOST_EK_RING);
	CHECK_EQ(vq_error(r->dev).queue, 7);
	CHECK_EQ(vq_error(r->dev).code, -EBADMSG);
	CHECK_EQ(vq_info(r->dev).broken, 1);
	CHECK_EQ(libvhost_vq_push(r->dev, 0, 0), -EBADMSG);
	CHECK_EQ(libvhost_vq_flush(r->dev), -EBADMSG);
	CHECK_EQ(libvhost_vq_notify_enable(r->dev, 1), -EBADMSG);
	CHECK_HAS(vq_error(r->dev).text, why);
	rig_free(r);
}

static inline bool signalled(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n);
}

#endif
