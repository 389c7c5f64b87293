/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A managed device whose back-end dies, refuses, shrinks, sleeps or asks back at the worst moment, on a real socket. */
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

/* ---- refusals ---- */

/* A start whose request is refused fails with its name, leaves the queue as it was, and can be repeated. */
static void refused_start(uint32_t op, uint32_t policy, uint64_t without)
{
	struct libvhost_queue was = {.size = sizeof(was)}, is = {.size = sizeof(is)};
	struct wirerig w;
	int rc;

	wirerig_init(&w);
	w.p.protocol_features &= ~without;
	w.r.opts.ack_policy = policy;
	wirerig_open(&w);
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 2, &was), 0);
	puppet_fault(&w.p, (struct puppet_fault){.op = op, .what = PUPPET_REFUSE});
	rc = libvhost_dev_start(w.r.dev, NULL);
	if (policy == LIBVHOST_ACK_ALL) {
		CHECK_EQ(rc, -EIO);
		CHECK_EQ(devrig_error(&w.r).kind, LIBVHOST_EK_REFUSED);
		CHECK_EQ(devrig_error(&w.r).op, op);
		CHECK_EQ(devrig_error(&w.r).peer_ack, 22);
		CHECK_HAS(devrig_error(&w.r).text, libvhost_op_name(op));
	} else {
		CHECK(rc == -EIO || rc == -ECONNRESET); /* unasked, it can only hang up */
	}
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 2, &is), 0);
	is.err_fd = was.err_fd; /* the library makes it when it is first needed */
	CHECK_MEM(&is, &was, sizeof(is));
	if (devrig_state(&w.r) != LIBVHOST_DEV_NEGOTIATED)
		CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_NEGOTIATED);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	wirerig_close_replayed(&w, 1);
}

TEST(hostile_device, r154_a_refused_request_fails_its_start_by_name)
{
	static const uint32_t ops[] = {OP(SET_VRING_NUM),    OP(SET_VRING_ADDR), OP(SET_VRING_BASE),
				       OP(SET_VRING_CALL),   OP(SET_VRING_KICK), OP(SET_VRING_ERR),
				       OP(SET_VRING_ENABLE), OP(ADD_MEM_REG),	 OP(SET_FEATURES)};

	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		for (uint32_t policy = 0; policy < 2; policy++)
			refused_start(ops[i], policy, 0);
	for (uint32_t policy = 0; policy < 2; policy++)
		refused_start(OP(SET_MEM_TABLE), policy, PUPPET_PF(CONFIGURE_MEM_SLOTS));
}

/* A peer that says no to its log is lost: it may write what nobody copies. A new connection gets the log at its start.
 */
TEST(hostile_device, r154_a_refused_log_loses_the_device)
{
	uint32_t lost = 0;
	struct wirerig w;

	wirerig_init(&w);
	w.p.features |= 1ull << 26;
	wirerig_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	puppet_fault(&w.p, (struct puppet_fault){.op = OP(SET_LOG_BASE), .what = PUPPET_REFUSE});
	CHECK_EQ(libvhost_mem_log_start(w.r.g.mem, 0, &lost), 0);
	CHECK_EQ(lost, 1);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_LOST);
	CHECK_EQ(devrig_error(&w.r).kind, LIBVHOST_EK_REFUSED);
	CHECK_HAS(devrig_error(&w.r).text, "SET_LOG_BASE");
	CHECK_EQ(devrig_logging(&w.r), 0);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(devrig_logging(&w.r), 1);
	CHECK_EQ(libvhost_mem_log_stop(w.r.g.mem, 0, &lost), 0);
	CHECK_EQ(lost, 0);
	CHECK_EQ(devrig_logging(&w.r), 0);
	wirerig_close_replayed(&w, 1);
}

static bool impossible_base(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	(void)msg;
	if (req->op == OP(GET_VRING_BASE) && req->index == 1)
		p->ring[1].base = 0x12345;
	return false;
}

TEST(hostile_device, r160_a_base_that_no_ring_can_have)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct wirerig w;

	wirerig_init(&w);
	w.p.on_message = impossible_base;
	wirerig_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), -EPROTO);
	CHECK_EQ(devrig_error(&w.r).kind, LIBVHOST_EK_PROTOCOL);
	CHECK_HAS(devrig_error(&w.r).text, "0x12345");
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 0);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	wirerig_close(&w);
}

/* ---- calls from inside ---- */

struct inside {
	struct wirerig w;
	uint32_t asked, other;
};

/* Everything that would change the device is refused, cleanup has no effect, what only looks works. */
static int call_everything(void *arg, struct libvhost_req *req)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct libvhost_queue q = devrig_queue(3);
	struct inside *i = arg;
	struct libvhost_dev *dev = i->w.r.dev;
	uint64_t features = 0;
	uint8_t byte = 0;
	const int rcs[] = {
		libvhost_dev_get_config(dev, 0, &byte, 1, 100),
		libvhost_dev_set_config(dev, 0, &byte, 1, 0, 100),
		libvhost_dev_start(dev, NULL),
		libvhost_dev_stop(dev, NULL),
		libvhost_dev_force_stop(dev),
		libvhost_dev_reset(dev, NULL),
		libvhost_dev_reconnect(dev, NULL),
		libvhost_dev_set_queue(dev, 3, &q),
		libvhost_dev_clear_queue(dev, 3),
		libvhost_dev_set_call(dev, 3, -1),
		libvhost_dev_dispatch(dev, 0),
		libvhost_virtqueue_mask(dev, 3, 1),
		libvhost_ack_features_ex(dev, &features, 1),
	};

	for (unsigned n = 0; n < sizeof(rcs) / sizeof(rcs[0]); n++)
		if (rcs[n] != -EBUSY)
			i->other |= 1u << n; /* a CHECK would leave through the library */
	libvhost_dev_cleanup(dev);
	if (libvhost_dev_info(dev, &info))
		i->other |= 1u << 31;
	i->asked++;
	if (req->op != OP(BACKEND_SHARED_OBJECT_LOOKUP))
		return -ENOTSUP;
	req->out_fd = memfd_create("object", MFD_CLOEXEC);
	req->out_flags = LIBVHOST_REQ_OUT_FD;
	return 0;
}

/* The peer asks while it owes the answer to op, and answers only then. */
static bool ask_back(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	static const uint8_t uuid[16] = {1};
	struct lv_user_hdr hdr;
	uint64_t value = 1;

	(void)msg;
	if (req->op != OP(GET_CONFIG) && req->op != OP(SET_VRING_ENABLE) && req->op != OP(GET_VRING_BASE))
		return false;
	puppet_send(p->channel, ASK_OBJECT_LOOKUP, WIRE_ASK, sizeof(uuid), uuid, sizeof(uuid), NULL, 0);
	puppet_recv(p->channel, 2000, &hdr, &value, sizeof(value), NULL);
	return false;
}

TEST(hostile_device, r175_calls_from_a_callback_are_refused_and_the_device_goes_on)
{
	struct libvhost_queue q = {.size = sizeof(q)};
	struct inside *i = calloc(1, sizeof(*i));

	CHECK(i);
	wirerig_init(&i->w);
	i->w.ops.on_request = call_everything;
	i->w.ops.arg = i;
	i->w.p.on_message = ask_back;
	wirerig_open(&i->w);
	CHECK_EQ(libvhost_dev_start(i->w.r.dev, NULL), 0);
	CHECK_EQ(i->asked, DEVRIG_QUEUES);
	CHECK_EQ(wirerig_read_config(&i->w, 0), 0);
	CHECK_EQ(i->asked, DEVRIG_QUEUES + 1);
	puppet_send(i->w.p.channel, ASK_OBJECT_LOOKUP, WIRE_ASK, 16, (uint8_t[16]){2}, 16, NULL, 0);
	for (int n = 0; n < 200 && i->asked == DEVRIG_QUEUES + 1; n++)
		CHECK_EQ(libvhost_dev_dispatch(i->w.r.dev, 10), 0); /* no operation runs: the same */
	CHECK_EQ(i->asked, DEVRIG_QUEUES + 2);
	CHECK_EQ(i->other, 0);
	CHECK_EQ(devrig_state(&i->w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(libvhost_dev_get_queue(i->w.r.dev, 3, &q), 0);
	CHECK_EQ(q.masked, 0);
	CHECK_EQ(libvhost_dev_stop(i->w.r.dev, NULL), 0);
	CHECK_EQ(i->other, 0);
	wirerig_close(&i->w);
	free(i);
}

/* After the event everything is allowed, the end of the device included. */
TEST(hostile_device, r175_a_configuration_change_is_handled_outside)
{
	struct libvhost_event e;
	struct wirerig w;

	wirerig_init(&w);
	wirerig_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	puppet_send(w.p.channel, ASK_CONFIG_CHANGE, WIRE_ASK, 0, NULL, 0, NULL, 0);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_CONFIG_CHANGE, 2000, &e));
	CHECK_EQ(wirerig_read_config(&w, 0), 0);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	wirerig_close(&w);
}

/* ---- back, but not the same ---- */

static bool refuse_config(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	const atomic_bool *refused = p->arg;

	if (req->op != OP(GET_CONFIG) || !*refused)
		return false;
	puppet_send(p->sock, msg->hdr.request, LV_USER_VERSION | LV_USER_F_REPLY, 0, NULL, 0, NULL, 0);
	return true;
}

static void shrunk(void (*change)(struct wirerig *w, bool back), const char *says)
{
	const struct libvhost_call_opts brief = {.size = sizeof(brief), .timeout_ms = 1000};
	const uint64_t features = 1ull << 32 | 1ull << 29;
	struct libvhost_dev_info info = {.size = sizeof(info)};
	uint8_t bytes[60];
	atomic_bool config_refused = false;
	struct wirerig w;

	wirerig_init(&w);
	w.p.features |= 1ull << 29 | 1ull << 26;
	w.p.on_message = refuse_config;
	w.p.arg = &config_refused;
	w.r.opts.flags = LIBVHOST_DEV_INFLIGHT;
	w.r.opts.config_size = sizeof(bytes);
	wirerig_open(&w);
	CHECK_EQ(libvhost_ack_features_ex(w.r.dev, &features, 1), 0);
	CHECK_EQ(libvhost_dev_get_config(w.r.dev, 0, bytes, sizeof(bytes), 0), 0);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_mem_log_start(w.r.g.mem, 0, NULL), 0);
	change(&w, false);
	puppet_kill(&w.p);
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, 2000, NULL));
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, &brief), -ENOTSUP);
	CHECK_EQ(devrig_error(&w.r).kind, LIBVHOST_EK_SHRUNK);
	CHECK_HAS(devrig_error(&w.r).text, says);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK_EQ(libvhost_dev_info(w.r.dev, &info), 0);
	CHECK_EQ(info.acked_features[0] & features, features);
	change(&w, true);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
	CHECK_EQ(w.p.acked & features, features);
	CHECK_EQ(devrig_logging(&w.r), 1);
	CHECK_EQ(libvhost_dev_info(w.r.dev, &info), 0);
	CHECK_EQ(info.guarantee, LIBVHOST_GUARANTEE_INFLIGHT);
	wirerig_close_replayed(&w, 1);
}

static void fewer_features(struct wirerig *w, bool back)
{
	w->p.features = back ? w->p.features | 1ull << 29 : w->p.features & ~(1ull << 29);
}

static void no_log(struct wirerig *w, bool back)
{
	w->p.features ^= 1ull << 26;
	(void)back;
}

static void no_log_file(struct wirerig *w, bool back)
{
	w->p.protocol_features ^= PUPPET_PF(LOG_SHMFD);
	(void)back;
}

static void no_inflight(struct wirerig *w, bool back)
{
	w->p.protocol_features ^= PUPPET_PF(INFLIGHT_SHMFD);
	(void)back;
}

static void fewer_queues(struct wirerig *w, bool back)
{
	w->p.num_queues = back ? PUPPET_QUEUES : 3;
}

static void no_config(struct wirerig *w, bool back)
{
	atomic_bool *refused = w->p.arg;

	*refused = !back;
}

TEST(hostile_device, r179_a_peer_that_came_back_smaller_is_refused_by_what_differs)
{
	shrunk(fewer_features, "bit 29");
	shrunk(no_log, "bit 26, GET_FEATURES");
	shrunk(no_log_file, "bit 1, GET_PROTOCOL_FEATURES");
	shrunk(no_inflight, "bit 12, GET_PROTOCOL_FEATURES");
	shrunk(fewer_queues, "queue");
	shrunk(no_config, "configuration");
}

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
			wirerig_open(&w);
			CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
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
		wirerig_open(&w);
		CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
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
			wirerig_open(&w);
			CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
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
	wirerig_open(&w);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
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
