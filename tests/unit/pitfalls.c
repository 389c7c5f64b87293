/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The nineteen traps of vhost front-ends, one test each, against a scripted peer. (14, 15, 18 and 19 are about kernels,
 * whose peer cannot be scripted on a socket: pitfalls_plan.c.)
 */
#include "wirerig.h"

#define OP(name) LIBVHOST_OP_##name

static const struct libvhost_call_opts quick = {.size = sizeof(quick), .timeout_ms = 60};

/* A device whose peer writes down what it is told, one line per message. */
struct script {
	struct wirerig w;
	pthread_mutex_t lock;
	char text[1 << 16];
	uint32_t rem_fds; /* descriptors that came with REM_MEM_REG */
	uint8_t uuid[16]; /* of the last GET_SHARED_OBJECT */
	uint32_t uuid_size;
	uint32_t log_reply; /* bytes of the answer to SET_LOG_BASE */
	int private_call;   /* signalled just before a new call descriptor is taken over, -1 = none */
	bool talks;	    /* asks before it answers GET_VRING_BASE */
	int talked;
};

static void write_down(struct script *s, const struct libvhost_req *req)
{
	char line[200];
	size_t used;

	libvhost_req_text(req, line, sizeof(line));
	pthread_mutex_lock(&s->lock);
	used = strlen(s->text);
	snprintf(s->text + used, sizeof(s->text) - used, "%s\n", line);
	pthread_mutex_unlock(&s->lock);
}

static bool on_message(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	static const uint8_t zeros[16];
	struct script *s = p->arg;

	write_down(s, req);
	if (req->op == OP(REM_MEM_REG))
		s->rem_fds += msg->nfds;
	if (req->op == OP(GET_SHARED_OBJECT)) {
		s->uuid_size = msg->hdr.size;
		memcpy(s->uuid, msg->payload, msg->hdr.size < 16 ? msg->hdr.size : 16);
	}
	if (req->op == OP(SET_VRING_CALL) && s->private_call >= 0)
		lv_eventfd_signal(s->private_call);
	if (req->op == OP(GET_VRING_BASE) && s->talks && !s->talked) {
		puppet_send(atomic_load(&p->channel), ASK_CONFIG_CHANGE, WIRE_ASK, 0, NULL, 0, NULL, 0);
		s->talked = wirerig_answer(atomic_load(&p->channel), 2000, NULL) ? -1 : 1;
	}
	if (req->op != OP(SET_LOG_BASE))
		return false;
	puppet_send(p->sock, 6, LV_USER_VERSION | LV_USER_F_REPLY, s->log_reply, zeros, s->log_reply, NULL, 0);
	return true;
}

static struct libvhost_dev *open_script(struct script *s)
{
	wirerig_open(&s->w);
	return s->w.r.dev;
}

static void init_script(struct script *s)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	s->private_call = -1;
	wirerig_init(&s->w);
	s->w.p.on_message = on_message;
	s->w.p.arg = s;
}

static struct libvhost_dev *running(struct script *s)
{
	init_script(s);
	open_script(s);
	CHECK_EQ(libvhost_dev_start(s->w.r.dev, NULL), 0);
	return s->w.r.dev;
}

static void forget(struct script *s)
{
	pthread_mutex_lock(&s->lock);
	s->text[0] = 0;
	pthread_mutex_unlock(&s->lock);
}

static uint32_t times(struct script *s, const char *what)
{
	uint32_t n = 0;

	pthread_mutex_lock(&s->lock);
	for (const char *at = s->text; (at = strstr(at, what)); at++)
		n++;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* first was said, and its last time is before the first time of second. */
static void in_order(struct script *s, const char *first, const char *second)
{
	const char *last = NULL, *then;

	pthread_mutex_lock(&s->lock);
	then = strstr(s->text, second);
	for (const char *at = s->text; (at = strstr(at, first)); at++)
		last = at;
	pthread_mutex_unlock(&s->lock);
	if (!last || !then || last > then)
		lv_test_fail(__FILE__, __LINE__, "%s must come before %s:\n%s", first, second, s->text);
}

static void close_script(struct script *s)
{
	wirerig_close(&s->w);
	pthread_mutex_destroy(&s->lock);
}

static void remove_region(struct script *s, uint64_t gpa, uint64_t size, uint32_t *lost)
{
	CHECK_EQ(libvhost_mem_begin(s->w.r.g.mem), 0);
	CHECK_EQ(libvhost_mem_remove(s->w.r.g.mem, gpa, size), 0);
	CHECK_EQ(libvhost_mem_commit(s->w.r.g.mem, 0, lost), 0);
}

/* Whether bit 30 was acknowledged decides if rings wait for SET_VRING_ENABLE; forgetting it leaves the two sides with
 * different ideas of what runs. */
TEST(pitfalls, p01_bit_30_is_acknowledged_where_it_is_offered_and_only_there)
{
	struct script s;

	running(&s); /* the guest accepted nothing */
	CHECK(s.w.p.acked >> 30 & 1);
	CHECK_EQ(times(&s, "SET_VRING_ENABLE queue"), DEVRIG_QUEUES);
	close_script(&s);
	init_script(&s);
	s.w.p.features = 1ull << 32;
	s.w.r.opts.num_queues = 1;
	open_script(&s);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	CHECK(!(s.w.p.acked >> 30 & 1));
	CHECK_EQ(times(&s, "SET_VRING_ENABLE"), 0);
	close_script(&s);
}

/* Some back-ends refuse an enable that comes before the features. */
TEST(pitfalls, p02_features_memory_rings_enable)
{
	struct script s;

	running(&s);
	in_order(&s, "SET_FEATURES", "ADD_MEM_REG");
	in_order(&s, "ADD_MEM_REG", "SET_VRING_NUM");
	in_order(&s, "SET_VRING_CALL", "SET_VRING_ENABLE");
	in_order(&s, "SET_VRING_KICK", "SET_VRING_ENABLE");
	close_script(&s);
}

/* Back-ends count queues by the messages they have seen, so a ring that runs early makes them start with too few; the
 * inflight region is laid out for all sizes. */
TEST(pitfalls, p03_all_rings_are_set_up_before_one_is_enabled)
{
	struct script s;

	init_script(&s);
	s.w.r.opts.flags = LIBVHOST_DEV_INFLIGHT;
	open_script(&s);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	in_order(&s, "SET_VRING_NUM", "SET_VRING_BASE");
	in_order(&s, "SET_VRING_NUM", "SET_INFLIGHT_FD");
	in_order(&s, "SET_VRING_ADDR", "SET_VRING_ENABLE");
	close_script(&s);
}

/* Reading the base stops a ring, and some back-ends close its descriptors then. */
TEST(pitfalls, p04_call_and_kick_are_sent_again_after_a_stop)
{
	struct script s;
	struct libvhost_dev *dev = running(&s);

	CHECK_EQ(libvhost_dev_stop(dev, NULL), 0);
	in_order(&s, "SET_VRING_ENABLE queue 3 num 0", "GET_VRING_BASE queue 0");
	forget(&s);
	CHECK_EQ(libvhost_dev_start(dev, NULL), 0);
	CHECK_EQ(times(&s, "SET_VRING_CALL"), DEVRIG_QUEUES);
	CHECK_EQ(times(&s, "SET_VRING_KICK"), DEVRIG_QUEUES);
	CHECK(s.w.p.ring[3].kick >= 0 && s.w.p.ring[3].call >= 0);
	close_script(&s);
}

/* The kick may start the ring at once: a call that has nowhere to go then is lost, and so is what the guest offered
 * before anybody listened. */
TEST(pitfalls, p05_call_before_kick_and_a_kick_of_our_own)
{
	struct script s;

	init_script(&s);
	open_script(&s);
	devrig_set_avail(&s.w.r, 2, 5);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	in_order(&s, "SET_VRING_CALL", "SET_VRING_KICK");
	CHECK_EQ(lv_eventfd_drain(s.w.p.ring[2].kick), 1);
	CHECK_EQ(lv_eventfd_drain(s.w.p.ring[1].kick), 0); /* has no work */
	close_script(&s);
}

/* The peer calls the private descriptor until it has taken the real one over. Without acknowledgements only a request
 * with an answer tells when that is; what it signalled until then must be found. */
TEST(pitfalls, p06_no_call_is_lost_between_mask_and_unmask)
{
	struct libvhost_dev *dev;
	struct script s;

	init_script(&s);
	s.w.p.protocol_features &= ~PUPPET_PF(REPLY_ACK);
	dev = open_script(&s);
	CHECK_EQ(libvhost_dev_start(dev, NULL), 0);
	CHECK_EQ(libvhost_virtqueue_mask(dev, 1, 1), 0);
	s.private_call = lv_fd_dup(s.w.p.ring[1].call);
	forget(&s);
	CHECK_EQ(libvhost_virtqueue_mask(dev, 1, 0), 0);
	in_order(&s, "SET_VRING_CALL queue 1", "GET_FEATURES");
	CHECK_EQ(libvhost_virtqueue_pending(dev, 1), 1);
	CHECK_EQ(libvhost_virtqueue_pending(dev, 1), 0);
	lv_fd_close(s.private_call);
	close_script(&s);
}

/* The specification says 16 bytes, libvhost-user sends 8, DPDK none. */
TEST(pitfalls, p07_any_answer_to_set_log_base_will_do)
{
	static const uint32_t sizes[] = {0, 8, 16};
	struct libvhost_req reqs[2] = {{.op = OP(SET_LOG_BASE), .arg.log.size = PAGE, .flags = LIBVHOST_REQ_HAS_FD},
				       {.op = OP(GET_QUEUE_NUM)}};
	struct script s;

	running(&s);
	reqs[0].fd = memfd(PAGE, 0);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		s.log_reply = sizes[i];
		CHECK_EQ(libvhost_transport_exec(libvhost_dev_transport(s.w.r.dev, 0), reqs, 2, PATIENCE_MS, NULL), 0);
		CHECK_EQ(reqs[1].result[0], PUPPET_QUEUES); /* the stream is still in step */
	}
	close(reqs[0].fd);
	close_script(&s);
}

/* Back-ends translate ring addresses when they arrive, and read the used index there and then. */
TEST(pitfalls, p08_memory_before_ring_addresses)
{
	struct script s;

	running(&s);
	in_order(&s, "ADD_MEM_REG", "SET_VRING_ADDR");
	CHECK_EQ(times(&s, "SET_MEM_TABLE"), 0);
	close_script(&s);
	init_script(&s);
	s.w.p.protocol_features &= ~PUPPET_PF(CONFIGURE_MEM_SLOTS);
	open_script(&s);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	in_order(&s, "SET_MEM_TABLE", "SET_VRING_ADDR");
	CHECK_EQ(times(&s, "ADD_MEM_REG"), 0);
	close_script(&s);
}

/* A table has eight entries; single regions exist only where slots were negotiated; a removal carries no descriptor. */
TEST(pitfalls, p09_eight_regions_without_slots_and_removals_without_descriptor)
{
	struct script s;
	uint32_t lost = 0;
	uint64_t gpa = 0x10000000;

	init_script(&s);
	s.w.p.protocol_features &= ~PUPPET_PF(CONFIGURE_MEM_SLOTS);
	open_script(&s);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	for (int i = 1; i < 8; i++, gpa += 0x1000000)
		CHECK_EQ(devrig_grow(&s.w.r, gpa, 0, &lost), 0);
	CHECK_EQ(s.w.p.regions, 8);
	CHECK_EQ(devrig_grow(&s.w.r, gpa, 0, &lost), -ENOSPC);
	CHECK_EQ(libvhost_mem_abort(s.w.r.g.mem), 0);
	CHECK_EQ(lost, 0);
	close_script(&s);
	running(&s);
	CHECK_EQ(devrig_grow(&s.w.r, gpa, 0, &lost), 0);
	remove_region(&s, gpa, 0x10000, &lost);
	CHECK_EQ(times(&s, "REM_MEM_REG"), 1);
	CHECK_EQ(s.rem_fds, 0);
	CHECK_EQ(lost, 0);
	close_script(&s);
}

/* A peer that comes back may take more regions than before, and may not take fewer. */
TEST(pitfalls, p10_slots_are_read_again_after_a_reconnect)
{
	struct libvhost_dev_info info = {.size = sizeof(info)};
	struct libvhost_dev *dev;
	struct script s;

	dev = running(&s);
	puppet_kill(&s.w.p);
	CHECK(devrig_await(&s.w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	s.w.p.slots = 48;
	CHECK_EQ(libvhost_dev_reconnect(dev, NULL), 0);
	CHECK_EQ(libvhost_dev_info(dev, &info), 0);
	CHECK_EQ(info.max_regions, 48);
	puppet_kill(&s.w.p);
	CHECK(devrig_await(&s.w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	s.w.p.slots = 0;
	CHECK_EQ(libvhost_dev_reconnect(dev, NULL), -ENOTSUP);
	CHECK_HAS(devrig_error(&s.w.r).text, "memory slots");
	close_script(&s);
}

/* A back-end that asks, and waits for its acknowledgement before it answers. (All combinations: hostile_channel.) */
TEST(pitfalls, p11_the_channel_is_served_while_an_answer_is_awaited)
{
	struct script s;
	struct libvhost_dev *dev = running(&s);

	s.talks = true;
	CHECK_EQ(libvhost_dev_stop(dev, NULL), 0);
	CHECK_EQ(s.talked, 1);
	CHECK_EQ(devrig_events(&s.w.r, LIBVHOST_EVENT_CONFIG_CHANGE, NULL), 1);
	close_script(&s);
}

/* A peer that falls silent must not stop its host. */
TEST(pitfalls, p12_a_mute_peer_holds_nothing_up)
{
	struct libvhost_dev *dev;
	struct script s;
	uint64_t begin;
	uint8_t byte;

	init_script(&s);
	dev = open_script(&s);
	CHECK_EQ(libvhost_dev_start(dev, NULL), 0);
	puppet_fault(&s.w.p, (struct puppet_fault){.op = OP(GET_CONFIG), .what = PUPPET_STALL});
	begin = now_ms();
	CHECK_EQ(libvhost_dev_get_config(dev, 0, &byte, 1, quick.timeout_ms), -ETIMEDOUT);
	CHECK_EQ(libvhost_dev_stop(dev, &quick), -ETIMEDOUT);
	CHECK(libvhost_dev_stop(dev, &quick) < 0); /* gives the connection up */
	CHECK_EQ(devrig_state(&s.w.r), LIBVHOST_DEV_DISCONNECTED);
	CHECK(now_ms() - begin < PROMPT_MS);
	puppet_kill(&s.w.p);
	puppet_fault(&s.w.p, (struct puppet_fault){.op = OP(GET_FEATURES), .what = PUPPET_MUTE, .every = true});
	begin = now_ms();
	CHECK(libvhost_dev_reconnect(dev, &quick) < 0);
	CHECK(now_ms() - begin < PROMPT_MS);
	close_script(&s);
}

/* What concerns the device goes once however many queues it has: stacks that treat queue pairs as devices repeat it. */
TEST(pitfalls, p13_device_wide_requests_go_once)
{
	static const char *const once[] = {
		"SET_OWNER",	      "SET_FEATURES",  "ADD_MEM_REG",	  "SET_PROTOCOL_FEATURES",
		"SET_BACKEND_REQ_FD", "GET_QUEUE_NUM", "SET_STATUS 0xf\n"};
	struct script s;

	init_script(&s);
	s.w.p.protocol_features |= PUPPET_PF(STATUS);
	open_script(&s);
	CHECK_EQ(libvhost_dev_start(s.w.r.dev, NULL), 0);
	for (unsigned i = 0; i < sizeof(once) / sizeof(once[0]); i++)
		if (times(&s, once[i]) != 1)
			lv_test_fail(__FILE__, __LINE__, "%s: %u times", once[i], times(&s, once[i]));
	in_order(&s, "SET_VRING_ENABLE", "SET_STATUS 0xf\n");
	close_script(&s);
}

/* Bugs that front-ends had: an empty GET_SHARED_OBJECT, a looked-up descriptor on the wrong socket, descriptor 0 taken
 * for none, an abort when memory moves under a ring. */
TEST(pitfalls, p16_mistakes_that_others_made)
{
	struct libvhost_req kick = {.op = OP(SET_VRING_KICK), .index = 3, .flags = LIBVHOST_REQ_HAS_FD, .fd = 0};
	struct libvhost_dev *dev;
	struct script s;
	uint32_t lost = 0;
	uint8_t uuid[16];
	int got, saved, eventfd;

	init_script(&s);
	s.w.r.opts.flags = LIBVHOST_DEV_SHARED_OBJECTS;
	dev = open_script(&s);
	CHECK_EQ(libvhost_dev_start(dev, NULL), 0);
	CHECK_EQ(wirerig_ask_uuid(&s.w, ASK_OBJECT_ADD, 77, NULL), 0);
	wirerig_uuid(uuid, 77);
	CHECK_EQ(libvhost_shared_object_lookup(s.w.r.g.ctx, uuid, &got), 0);
	close(got);
	CHECK_EQ(s.uuid_size, 16);
	CHECK_MEM(s.uuid, uuid, 16);
	CHECK_EQ(libvhost_shared_object_add(s.w.r.g.ctx, (const uint8_t[16]){1}, s.w.p.ring[0].kick), 0);
	CHECK_EQ(wirerig_ask(&s.w, ASK_OBJECT_LOOKUP, (const uint8_t[16]){1}, 16, -1, &got), 0);
	CHECK(got >= 0); /* it came on the channel */
	close(got);
	saved = lv_fd_dup(0);
	eventfd = lv_eventfd();
	CHECK_EQ(dup2(eventfd, 0), 0);
	lv_fd_close(s.w.p.ring[3].kick);
	s.w.p.ring[3].kick = -1;
	CHECK_EQ(libvhost_transport_exec(libvhost_dev_transport(dev, 0), &kick, 1, PATIENCE_MS, NULL), 0);
	CHECK(s.w.p.ring[3].kick >= 0);
	CHECK_EQ(dup2(saved, 0), 0);
	lv_fd_close(saved);
	lv_fd_close(eventfd);
	remove_region(&s, 0, DEVRIG_RAM, &lost);
	CHECK_EQ(lost, 1);
	CHECK_HAS(devrig_error(&s.w.r).text, "rings");
	close_script(&s);
}

/* A guest with fewer processors than queues leaves rings without addresses: speaking of them makes some back-ends read
 * address 0, and silence makes others wait for them. The host chooses: a hole is never spoken of, a DISABLED queue is
 * set up and stays off. */
TEST(pitfalls, p17_unused_rings_by_choice)
{
	struct libvhost_queue q = {.size = sizeof(q), .num = 16}, off = devrig_queue(2);
	struct libvhost_dev *dev;
	struct script s;

	init_script(&s);
	dev = open_script(&s);
	CHECK_EQ(libvhost_dev_set_queue(dev, 1, &q), 0); /* the guest gave no addresses */
	off.flags = LIBVHOST_QUEUE_DISABLED;
	CHECK_EQ(libvhost_dev_set_queue(dev, 2, &off), 0);
	CHECK_EQ(libvhost_dev_clear_queue(dev, 3), 0);
	CHECK_EQ(libvhost_dev_start(dev, NULL), 0);
	CHECK_EQ(libvhost_dev_stop(dev, NULL), 0);
	CHECK(!times(&s, "queue 1") && !times(&s, "queue 3"));
	CHECK(times(&s, "SET_VRING_KICK queue 2") == 1 && !times(&s, "SET_VRING_ENABLE queue 2 num 1"));
	CHECK_EQ(times(&s, "SET_VRING_ENABLE queue 0 num 1"), 1);
	close_script(&s);
}
