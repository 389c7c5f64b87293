/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A managed device whose back-end dies or falls asleep in the middle of something, on a real socket. */
#include "wirerig.h"

#define OP(name) LIBVHOST_OP_##name

/* ---- death at every message of a whole life ---- */

/* The steps of a life; a failed one is repeated after a reconnect. How many failed. */
static uint32_t live(struct wirerig *w)
{
	uint32_t deaths = 0, step = 0, lost = 0;
	int rc = devrig_open(&w->r);

	if (rc) {
		CHECK_EQ(rc, -ECONNRESET);
		deaths++;
		CHECK_EQ(devrig_open(&w->r), 0);
	}
	devrig_queues(&w->r, DEVRIG_QUEUES);
	while (step < 5) {
		if (step == 0 || step == 4)
			rc = libvhost_dev_start(w->r.dev, NULL);
		else if (step == 1)
			rc = wirerig_read_config(w, 0);
		else if (step == 2)
			rc = devrig_grow(&w->r, 1ull << 32, 0, &lost) ? -EIO : lost ? -ECONNRESET : 0;
		else
			rc = libvhost_dev_stop(w->r.dev, NULL);
		if (!rc || (rc == -EALREADY && deaths)) { /* the reconnect brought it to where the step leads */
			step++;
			continue;
		}
		CHECK_EQ(rc, -ECONNRESET);
		CHECK_EQ(devrig_state(&w->r), LIBVHOST_DEV_DISCONNECTED);
		CHECK_EQ(++deaths, 1);
		CHECK_EQ(libvhost_dev_reconnect(w->r.dev, NULL), 0);
		step += step == 2; /* the map is what was committed; the replay carries it */
	}
	CHECK_EQ(devrig_state(&w->r), LIBVHOST_DEV_RUNNING);
	return deaths;
}

static uint32_t one_life(uint32_t at, enum puppet_what what, uint32_t arg, bool *due)
{
	struct wirerig w;
	uint32_t deaths;

	wirerig_init(&w);
	puppet_fault(&w.p, (struct puppet_fault){.at = at, .what = what, .arg = arg});
	wirerig_listen(&w);
	deaths = live(&w);
	wirerig_close_replayed(&w, 2);
	*due = w.p.faults[0].spent;
	CHECK_EQ(atomic_load(&w.p.sessions), 1 + deaths);
	return deaths;
}

static void lives(enum puppet_what what, uint32_t arg)
{
	uint32_t at = 0, deaths = 0;
	bool due = true;

	for (; due; at++)
		deaths += one_life(at, what, arg, &due);
	CHECK(at > 5 + 2 * (5 * DEVRIG_QUEUES + DEVRIG_QUEUES));
	CHECK(deaths >= at - 3);
}

TEST(hostile_device, r153_death_before_every_message_of_a_life)
{
	lives(PUPPET_DIE_BEFORE, 0);
}

TEST(hostile_device, r153_death_after_every_message_of_a_life)
{
	lives(PUPPET_DIE_AFTER, 0);
}

TEST(hostile_device, r153_death_inside_every_reply_of_a_life)
{
	lives(PUPPET_DIE_INSIDE, 7);
	lives(PUPPET_DIE_INSIDE, 15);
}

/* ---- death during one request ---- */

TEST(hostile_device, r180_a_restart_during_a_memory_change)
{
	static const uint32_t ops[] = {OP(ADD_MEM_REG), OP(SET_MEM_TABLE)};

	for (int table = 0; table < 2; table++)
		for (int what = PUPPET_DIE_BEFORE; what <= PUPPET_DIE_INSIDE; what++) {
			uint32_t lost = 0;
			struct wirerig w;

			wirerig_init(&w);
			if (table)
				w.p.protocol_features &= ~PUPPET_PF(CONFIGURE_MEM_SLOTS);
			wirerig_start(&w);
			puppet_fault(&w.p,
				     (struct puppet_fault){.op = ops[table], .what = (enum puppet_what)what, .arg = 3});
			CHECK_EQ(devrig_grow(&w.r, 1ull << 32, 0, &lost), 0);
			if (what != PUPPET_DIE_AFTER || lost)
				CHECK_EQ(lost, 1);
			CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
			CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
			CHECK_EQ(devrig_grow(&w.r, 2ull << 32, 0, &lost), 0);
			CHECK_EQ(lost, 0);
			wirerig_close_replayed(&w, 3);
		}
}

TEST(hostile_device, r180_a_restart_during_the_start_of_a_log)
{
	for (int what = PUPPET_DIE_BEFORE; what <= PUPPET_DIE_INSIDE; what++) {
		uint32_t lost = 0;
		struct wirerig w;

		wirerig_init(&w);
		w.p.features |= 1ull << 26;
		wirerig_start(&w);
		puppet_fault(&w.p,
			     (struct puppet_fault){.op = OP(SET_LOG_BASE), .what = (enum puppet_what)what, .arg = 3});
		CHECK_EQ(libvhost_mem_log_start(w.r.g.mem, 0, &lost), 0);
		if (what != PUPPET_DIE_AFTER || lost)
			CHECK_EQ(lost, 1);
		CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
		CHECK_EQ(devrig_logging(&w.r), 1); /* the replay has the log */
		CHECK_EQ(libvhost_mem_log_stop(w.r.g.mem, 0, &lost), 0);
		CHECK_EQ(lost, 0);
		wirerig_close_replayed(&w, 1);
	}
}

TEST(hostile_device, r180_a_restart_during_a_stop_or_a_configuration_read)
{
	static const uint32_t ops[] = {OP(GET_CONFIG), OP(GET_VRING_BASE)};

	for (int stop = 0; stop < 2; stop++)
		for (int what = PUPPET_DIE_BEFORE; what <= PUPPET_DIE_INSIDE; what += 2) {
			struct wirerig w;

			wirerig_init(&w);
			wirerig_start(&w);
			devrig_set_used(&w.r, 2, 9);
			puppet_fault(&w.p,
				     (struct puppet_fault){.op = ops[stop], .what = (enum puppet_what)what, .arg = 14});
			CHECK_EQ(stop ? libvhost_dev_stop(w.r.dev, NULL) : wirerig_read_config(&w, 0), -ECONNRESET);
			CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
			CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
			CHECK_EQ(wirerig_read_config(&w, 0), 0);
			CHECK_EQ(w.p.ring[2].base, 9);
			wirerig_close_replayed(&w, 1);
		}
}

/* It sleeps through our deadline, wakes, answers the old connection; nobody listens there any more. */
TEST(hostile_device, r186_a_peer_that_wakes_up_after_we_gave_up)
{
	struct wirerig w;

	wirerig_init(&w);
	wirerig_start(&w);
	puppet_fault(&w.p, (struct puppet_fault){.op = OP(GET_CONFIG), .what = PUPPET_LATE, .arg = 300});
	CHECK_EQ(wirerig_read_config(&w, 50), -ETIMEDOUT);
	CHECK_EQ(devrig_error(&w.r).kind, LIBVHOST_EK_TIMEOUT);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
	w.p.config[31] = 0x77;
	CHECK_EQ(wirerig_read_config(&w, 0), 0);
	CHECK_EQ(atomic_load(&w.p.sessions), 2);
	CHECK_EQ(devrig_events(&w.r, LIBVHOST_EVENT_RECONNECTED, NULL), 1);
	wirerig_close_replayed(&w, 1);
}
