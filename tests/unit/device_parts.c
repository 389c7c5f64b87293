/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Devices of two parts whose peers differ: what one of them lacks, refuses or does not survive. */
#include "devrig.h"

#define OP(name)  LIBVHOST_OP_##name
#define PF(name)  (1ull << LIBVHOST_PROTOCOL_F_##name)
#define LOG_ALL	  (1ull << 26)
#define DRIVER_OK 15u
#define HIGH	  (1ull << 32) /* where further regions lie */

/* Queues 0 and 1 at r.f, 2 and 3 at second. */
struct pair {
	struct devrig r;
	struct fake second;
};

static void pair_init(struct pair *p)
{
	memset(p, 0, sizeof(*p));
	devrig_init(&p->r);
	p->r.opts.part_queues = 2;
	fake_init(&p->second);
	strcpy(p->second.name, "fake:second");
}

static int pair_add(struct pair *p)
{
	struct libvhost_transport *t = fake_transport(&p->second, p->r.g.ctx);
	const int rc = libvhost_dev_add_part(p->r.dev, t, 2, 2, 0);

	if (rc)
		libvhost_transport_free(t);
	return rc;
}

static void pair_open(struct pair *p)
{
	CHECK_EQ(devrig_open(&p->r), 0);
	CHECK_EQ(pair_add(p), 0);
	devrig_queues(&p->r, DEVRIG_QUEUES);
}

static void arm(struct pair *p)
{
	fake_arm(&p->r.f);
	fake_arm(&p->second);
}

static void pair_start(struct pair *p)
{
	pair_open(p);
	CHECK_EQ(libvhost_dev_start(p->r.dev, NULL), 0);
	arm(p);
}

static struct libvhost_dev_info info(struct pair *p)
{
	struct libvhost_dev_info i = {.size = sizeof(i)};

	CHECK_EQ(libvhost_dev_info(p->r.dev, &i), 0);
	return i;
}

/* A commit with count regions more, none of which can be merged with another. */
static int grow(struct pair *p, uint32_t count)
{
	int rc;

	CHECK_EQ(libvhost_mem_begin(p->r.g.mem), 0);
	for (uint32_t i = 0; i < count; i++)
		CHECK_EQ(libvhost_mem_alloc(p->r.g.mem, HIGH * (i + 1), PAGE), 0);
	rc = libvhost_mem_commit(p->r.g.mem, 0, NULL);
	if (rc)
		CHECK_EQ(libvhost_mem_abort(p->r.g.mem), 0);
	return rc;
}

/* ---- the log ---- */

static void both_log(struct pair *p)
{
	pair_init(p);
	p->r.f.features |= LOG_ALL;
	p->second.features |= LOG_ALL;
	p->r.f.protocol |= PF(LOG_SHMFD);
	p->second.protocol |= PF(LOG_SHMFD);
}

static void refuses_to_log(struct pair *p, const char *peer, const char *why)
{
	struct libvhost_error e;
	char text[256];

	pair_start(p);
	CHECK_EQ(libvhost_mem_log_start(p->r.g.mem, 0, NULL), -ENOTSUP);
	e = last_error(&p->r.g);
	CHECK_HAS(e.text, peer);
	CHECK_HAS(e.text, why);
	CHECK_EQ(libvhost_dev_migration_blocker(p->r.dev, text, sizeof(text)), 1);
	CHECK_HAS(text, peer);
	CHECK_EQ(p->r.f.nseen + p->second.nseen, 0);
	CHECK_EQ(info(p).logging, 0);
	CHECK_EQ(devrig_state(&p->r), LIBVHOST_DEV_RUNNING);
	devrig_close(&p->r);
}

TEST(device_parts, memory_is_logged_if_all_peers_can)
{
	struct pair p;

	both_log(&p);
	p.second.protocol &= ~PF(LOG_SHMFD);
	refuses_to_log(&p, "fake:second", "LOG_SHMFD");
	both_log(&p);
	p.second.features &= ~LOG_ALL;
	refuses_to_log(&p, "fake:second", "bit 26");
	both_log(&p);
	p.r.f.protocol &= ~PF(LOG_SHMFD);
	refuses_to_log(&p, "fake:peer", "LOG_SHMFD");
}

static void check_logging(const struct fake *f, bool on)
{
	CHECK_EQ(fake_count(f, OP(SET_LOG_BASE)), on);
	CHECK_EQ(fake_count(f, OP(SET_FEATURES)), 1);
	CHECK_EQ(!!(f->acked & LOG_ALL), on);
	CHECK_EQ(fake_count(f, OP(SET_VRING_ADDR)), 2);
	CHECK_EQ(f->logged_rings, on ? 2 : 0);
}

static void log_is_told(bool slow)
{
	struct pair p;
	uint64_t bytes;

	both_log(&p);
	p.r.f.slow = p.second.slow = slow;
	pair_start(&p);
	CHECK_EQ(libvhost_mem_log_start(p.r.g.mem, 0, NULL), 0);
	check_logging(&p.r.f, true);
	check_logging(&p.second, true);
	bytes = p.r.f.log_bytes;
	CHECK_EQ(p.second.log_bytes, bytes);
	CHECK_EQ(info(&p).logging, 1);
	arm(&p);
	CHECK_EQ(grow(&p, 1), 0); /* the larger log first: a peer could mark what it does not cover */
	CHECK(p.r.f.log_bytes > bytes);
	CHECK_EQ(p.second.log_bytes, p.r.f.log_bytes);
	CHECK(fake_first(&p.r.f, OP(SET_LOG_BASE)) < fake_first(&p.r.f, OP(ADD_MEM_REG)));
	CHECK(fake_first(&p.second, OP(SET_LOG_BASE)) < fake_first(&p.second, OP(ADD_MEM_REG)));
	CHECK_EQ(fake_count(&p.second, OP(ADD_MEM_REG)), 1);
	arm(&p);
	CHECK_EQ(libvhost_dev_reconnect(p.r.dev, NULL), 0);
	CHECK_EQ(fake_count(&p.r.f, OP(SET_LOG_BASE)), 1);
	CHECK_EQ(fake_count(&p.second, OP(SET_LOG_BASE)), 1);
	CHECK(p.second.acked & LOG_ALL);
	arm(&p);
	CHECK_EQ(libvhost_mem_log_stop(p.r.g.mem, 0, NULL), 0);
	check_logging(&p.r.f, false);
	check_logging(&p.second, false);
	CHECK_EQ(info(&p).logging, 0);
	devrig_close(&p.r);
}

TEST(device_parts, each_peer_is_told_of_the_log)
{
	log_is_told(false);
	log_is_told(true);
}

TEST(device_parts, a_start_while_memory_is_logged_needs_all_peers)
{
	struct pair p;

	both_log(&p);
	CHECK_EQ(libvhost_mem_log_start(p.r.g.mem, 0, NULL), 0);
	p.second.protocol &= ~PF(LOG_SHMFD);
	pair_open(&p);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), -ENOTSUP);
	CHECK_HAS(devrig_error(&p.r).text, "fake:second");
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_mem_log_stop(p.r.g.mem, 0, NULL), 0);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), 0);
	devrig_close(&p.r);
}

/* ---- the map ---- */

TEST(device_parts, the_smallest_table_is_the_limit)
{
	struct pair p;

	pair_init(&p);
	p.second.slots = 3;
	pair_start(&p);
	CHECK_EQ(info(&p).max_regions, 3);
	CHECK_EQ(grow(&p, 3), -ENOSPC);
	CHECK_HAS(devrig_error(&p.r).text, "fake:second has 3 slots");
	CHECK_EQ(p.r.f.nseen + p.second.nseen, 0);
	CHECK_EQ(libvhost_has_free_slot(p.r.g.mem), 1);
	CHECK_EQ(grow(&p, 2), 0);
	CHECK_EQ(libvhost_has_free_slot(p.r.g.mem), 0);
	CHECK_EQ(fake_count(&p.r.f, OP(ADD_MEM_REG)), 2);
	CHECK_EQ(fake_count(&p.second, OP(ADD_MEM_REG)), 2);
	devrig_close(&p.r);
}

/* A table of merged regions here, slots there: each gets the map its own way, in any order of the two. */
static void own_ways(bool first_has_table)
{
	struct fake *table, *slots;
	struct pair p;

	pair_init(&p);
	table = first_has_table ? &p.r.f : &p.second;
	slots = first_has_table ? &p.second : &p.r.f;
	table->protocol &= ~PF(CONFIGURE_MEM_SLOTS);
	pair_open(&p);
	CHECK_EQ(info(&p).max_regions, 8);
	arm(&p);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), 0);
	CHECK_EQ(fake_count(table, OP(SET_MEM_TABLE)), 1);
	CHECK_EQ(fake_count(table, OP(ADD_MEM_REG)), 0);
	CHECK_EQ(fake_count(slots, OP(SET_MEM_TABLE)), 0);
	CHECK_EQ(fake_count(slots, OP(ADD_MEM_REG)), 1);
	arm(&p);
	CHECK_EQ(grow(&p, 8), -ENOSPC);
	CHECK_HAS(devrig_error(&p.r).text, table->name);
	CHECK_EQ(grow(&p, 7), 0);
	CHECK_EQ(table->table, 8);
	CHECK_EQ(fake_count(slots, OP(ADD_MEM_REG)), 7);
	CHECK_EQ(libvhost_has_free_slot(p.r.g.mem), 0);
	arm(&p);
	CHECK_EQ(libvhost_dev_reconnect(p.r.dev, NULL), 0);
	CHECK_EQ(fake_count(table, OP(GET_MAX_MEM_SLOTS)), 0);
	CHECK_EQ(fake_count(table, OP(SET_MEM_TABLE)), 1);
	CHECK_EQ(fake_count(slots, OP(GET_MAX_MEM_SLOTS)), 1);
	CHECK_EQ(fake_count(slots, OP(ADD_MEM_REG)), 8);
	CHECK_EQ(info(&p).max_regions, 8);
	CHECK_EQ(libvhost_has_free_slot(p.r.g.mem), 0);
	devrig_close(&p.r);
}

TEST(device_parts, each_peer_gets_the_map_in_its_own_way)
{
	own_ways(false);
	own_ways(true);
}

/* Slots of the one, merged entries of the other: either may be what is full. */
TEST(device_parts, free_slots_of_both_kinds)
{
	struct libvhost_region r;
	struct pair p;
	int fd;

	pair_init(&p);
	p.r.f.slots = 5;
	p.second.protocol &= ~PF(CONFIGURE_MEM_SLOTS);
	pair_start(&p);
	fd = memfd(4 * PAGE, 0);
	CHECK_EQ(libvhost_mem_begin(p.r.g.mem), 0);
	for (uint32_t i = 0; i < 4; i++) {
		CHECK_EQ(libvhost_has_free_slot(p.r.g.mem), 1);
		r = region(fd, HIGH + i * PAGE, PAGE, i * PAGE);
		CHECK_EQ(libvhost_mem_add(p.r.g.mem, &r), 0);
	}
	CHECK_EQ(libvhost_has_free_slot(p.r.g.mem), 0); /* five of five, though two of eight */
	CHECK_EQ(libvhost_mem_commit(p.r.g.mem, 0, NULL), 0);
	CHECK_EQ(p.second.table, 2);
	close(fd);
	devrig_close(&p.r);
}

TEST(device_parts, a_map_that_one_peer_refuses_loses_the_device)
{
	struct pair p;
	uint32_t lost = 0;

	pair_init(&p);
	pair_start(&p);
	p.second.refuse_at = 0;
	CHECK_EQ(libvhost_mem_begin(p.r.g.mem), 0);
	CHECK_EQ(libvhost_mem_alloc(p.r.g.mem, HIGH, PAGE), 0);
	CHECK_EQ(libvhost_mem_commit(p.r.g.mem, 0, &lost), 0);
	CHECK_EQ(lost, 1);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_LOST);
	p.second.refuse_at = FAKE_NEVER;
	CHECK_EQ(libvhost_dev_reconnect(p.r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_RUNNING);
	devrig_close(&p.r);
}

TEST(device_parts, a_second_peer_that_dies_of_a_map_disconnects_the_device)
{
	struct pair p;

	pair_init(&p);
	pair_start(&p);
	p.second.die_at = 0;
	CHECK_EQ(grow(&p, 1), 0);
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(devrig_events(&p.r, LIBVHOST_EVENT_DISCONNECTED, NULL), 1);
	p.second.die_at = FAKE_NEVER;
	arm(&p);
	CHECK_EQ(libvhost_dev_reconnect(p.r.dev, NULL), 0);
	CHECK_EQ(fake_count(&p.r.f, OP(ADD_MEM_REG)), 2);
	CHECK_EQ(fake_count(&p.second, OP(ADD_MEM_REG)), 2);
	devrig_close(&p.r);
}

/* ---- the rest of a device ---- */

TEST(device_parts, the_guest_is_offered_what_all_have)
{
	struct libvhost_dev_info before;
	struct pair p;

	pair_init(&p);
	p.r.f.features |= 1ull << 5;
	p.second.features |= 1ull << 6;
	p.second.features &= ~(1ull << 30); /* and speaks no protocol features at all */
	p.second.max_regions = 4;
	pair_start(&p);
	before = info(&p);
	CHECK_EQ(before.features[0], FAKE_FEATURES & ~(1ull << 30));
	CHECK_EQ(before.acked_protocol_features, 0);
	CHECK_EQ(before.max_regions, 4);
	CHECK_EQ(before.parts, 2);
	CHECK(p.r.f.acked & 1ull << 30); /* its rings still want to be enabled */
	CHECK(!(p.second.acked & 1ull << 30));
	CHECK_EQ(libvhost_dev_stop(p.r.dev, NULL), 0);
	CHECK_EQ(fake_count(&p.r.f, OP(SET_VRING_ENABLE)), 2);
	CHECK_EQ(fake_count(&p.second, OP(SET_VRING_ENABLE)), 0);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_reconnect(p.r.dev, NULL), 0);
	CHECK_EQ(info(&p).features[0], before.features[0]);
	CHECK_EQ(info(&p).max_regions, before.max_regions);
	CHECK_EQ(info(&p).max_queues, before.max_queues);
	devrig_close(&p.r);
}

/* Each connection is a device of its own to its peer, which waits for DRIVER_OK if it knows of it. */
static void status_of(bool first, bool second)
{
	struct pair p;

	pair_init(&p);
	p.r.f.protocol |= first ? PF(STATUS) : 0;
	p.second.protocol |= second ? PF(STATUS) : 0;
	pair_start(&p);
	CHECK_EQ(p.r.f.status, first ? DRIVER_OK : 0);
	CHECK_EQ(p.second.status, second ? DRIVER_OK : 0);
	CHECK_EQ(info(&p).status, DRIVER_OK);
	CHECK_EQ(libvhost_dev_stop(p.r.dev, NULL), 0);
	CHECK_EQ(p.r.f.status | p.second.status, 0);
	CHECK_EQ(fake_count(&p.r.f, OP(SET_STATUS)), first);
	CHECK_EQ(fake_count(&p.second, OP(SET_STATUS)), second);
	CHECK_EQ(info(&p).status, 0);
	arm(&p);
	CHECK_EQ(libvhost_dev_reset(p.r.dev, NULL), 0);
	CHECK_EQ(fake_count(&p.r.f, OP(RESET_DEVICE)), 1);
	CHECK_EQ(fake_count(&p.second, OP(RESET_DEVICE)), 1);
	devrig_close(&p.r);
}

TEST(device_parts, each_peer_gets_its_status)
{
	status_of(true, true);
	status_of(true, false);
	status_of(false, true);
}

/* The other one's answers are waited for: cut off, it would lose its connection. */
static void refused_start(uint32_t at, bool by_first)
{
	struct pair p;

	pair_init(&p);
	p.r.f.protocol |= PF(STATUS);
	p.second.protocol |= PF(STATUS);
	p.r.f.slow = p.second.slow = true;
	pair_open(&p);
	arm(&p);
	*(by_first ? &p.r.f.refuse_at : &p.second.refuse_at) = at;
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), -EIO);
	p.r.f.refuse_at = p.second.refuse_at = FAKE_NEVER;
	CHECK_EQ(p.r.f.closes + p.second.closes, 0);
	CHECK_EQ(p.r.f.status | p.second.status, 0);
	CHECK_EQ(fake_count(&p.r.f, OP(SET_VRING_KICK)), fake_count(&p.r.f, OP(GET_VRING_BASE)));
	CHECK_EQ(fake_count(&p.second, OP(SET_VRING_KICK)), fake_count(&p.second, OP(GET_VRING_BASE)));
	CHECK_EQ(devrig_state(&p.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), 0);
	CHECK_EQ(p.r.f.status, DRIVER_OK);
	CHECK_EQ(p.second.status, DRIVER_OK);
	devrig_close(&p.r);
}

TEST(device_parts, a_start_that_one_peer_refuses_is_taken_back_at_both)
{
	/* features, a ring's size, an enable */
	for (uint32_t first = 0; first < 2; first++) {
		refused_start(1, first);
		refused_start(5, first);
		refused_start(17, first);
	}
}

TEST(device_parts, a_part_of_another_dialect_is_refused)
{
	struct pair p;

	pair_init(&p);
	CHECK_EQ(devrig_open(&p.r), 0);
	p.second.dialect = LIBVHOST_DIALECT_KERNEL;
	CHECK_EQ(pair_add(&p), -ENOTSUP);
	CHECK_HAS(devrig_error(&p.r).text, "fake:second");
	CHECK_EQ(info(&p).parts, 1);
	p.second.dialect = LIBVHOST_DIALECT_USER;
	CHECK_EQ(pair_add(&p), 0);
	devrig_queues(&p.r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), 0);
	devrig_close(&p.r);
}

TEST(device_parts, a_part_that_does_not_negotiate_leaves_the_device_as_it_was)
{
	struct libvhost_dev_info before;
	struct pair p;

	pair_init(&p);
	CHECK_EQ(devrig_open(&p.r), 0);
	before = info(&p);
	p.second.features = 0;
	p.second.die_at = 1;
	CHECK_EQ(pair_add(&p), -ECONNRESET);
	CHECK_EQ(info(&p).features[0], before.features[0]);
	CHECK_EQ(info(&p).max_queues, before.max_queues);
	CHECK_EQ(info(&p).max_regions, before.max_regions);
	devrig_queues(&p.r, 2);
	CHECK_EQ(libvhost_dev_start(p.r.dev, NULL), 0);
	devrig_close(&p.r);
}
