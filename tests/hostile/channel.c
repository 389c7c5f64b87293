/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Front-end and back-end that each wait for the other: every operation of a device's life, every request of a back-end,
 * which comes before, across and after each answer of the operation and must be acknowledged before the back-end goes
 * on. All combinations end well, and soon.
 */
#include "wirerig.h"

#include "protocol/user_wire.h"

#define LIMIT_MS 3000 /* of one operation, on a busy machine */
#define WINDOW	 (4 * PAGE)

enum when {
	BEFORE, /* asks and has its acknowledgement before it answers the message */
	ACROSS, /* half a request before an answer, the rest before the next, which waits for the acknowledgement */
	AFTER,	/* asks right behind its answer and wants the acknowledgement before it reads on */
	MODES
};

static const char *const when_names[] = {"before", "across", "after"};

/* Everything that a back-end may ask, alternating where one undoes the other. */
enum { CASES = 11 };

struct talker {
	struct wirerig w;
	uint32_t which;
	enum when when;
	int file;
	bool half, owes;
	uint8_t rest[LV_USER_HDR + 64];
	uint32_t rest_len;
	atomic_uint asked, unanswered;
};

static uint32_t compose(struct talker *t, uint8_t *bytes, uint32_t *nfds)
{
	static const uint32_t requests[CASES] = {
		ASK_IOTLB,	ASK_CONFIG_CHANGE, ASK_HOST_NOTIFIER, ASK_HOST_NOTIFIER, ASK_VRING_CALL, ASK_VRING_ERR,
		ASK_OBJECT_ADD, ASK_OBJECT_REMOVE, ASK_OBJECT_LOOKUP, ASK_SHMEM_MAP,	 ASK_SHMEM_UNMAP};
	const struct lv_wire_iotlb miss = {.iova = 0x123000, .perm = 1, .type = 1};
	const struct lv_wire_area bell = {1, PAGE, 0}, no_bell = {1 | LV_WIRE_AREA_REMOVE, 0, 0};
	const struct lv_wire_state state = {.index = 1};
	const struct lv_wire_mmap map = {.shmid = 1, .len = PAGE};
	uint8_t uuid[16];
	const struct {
		const void *bytes;
		uint32_t len;
		bool fd;
	} payload[CASES] = {{&miss, sizeof(miss), 0},
			    {NULL, 0, 0},
			    {&bell, sizeof(bell), 1},
			    {&no_bell, sizeof(bell), 0},
			    {&state, sizeof(state), 0},
			    {&state, sizeof(state), 0},
			    {uuid, 16, 0},
			    {uuid, 16, 0},
			    {uuid, 16, 0},
			    {&map, sizeof(map), 1},
			    {&map, sizeof(map), 0}};
	struct lv_user_hdr hdr = {.flags = WIRE_ASK, .size = payload[t->which].len};

	wirerig_uuid(uuid, t->which == 8 ? 1 : 2);
	hdr.request = requests[t->which];
	lv_user_hdr_put(bytes, &hdr);
	if (hdr.size)
		memcpy(bytes + LV_USER_HDR, payload[t->which].bytes, hdr.size);
	*nfds = payload[t->which].fd;
	return LV_USER_HDR + hdr.size;
}

static void say(struct talker *t, const uint8_t *bytes, uint32_t len, uint32_t nfds)
{
	const struct lv_wire_msg msg = {.data = bytes, .len = len, .nfds = nfds, .fds = {t->file}};
	size_t off = 0;

	if (lv_wire_send(atomic_load(&t->w.p.channel), &msg, 1, &off) != 1)
		atomic_fetch_add(&t->unanswered, 1);
}

/* Refusals are answers too. */
static void await(struct talker *t)
{
	int fd;

	atomic_fetch_add(&t->asked, 1);
	if (wirerig_answer(atomic_load(&t->w.p.channel), LIMIT_MS, &fd) == 1)
		atomic_fetch_add(&t->unanswered, 1);
	lv_fd_close(fd);
}

static void ask_at_once(struct talker *t)
{
	uint8_t bytes[LV_USER_HDR + 64];
	uint32_t nfds, len = compose(t, bytes, &nfds);

	say(t, bytes, len, nfds);
	await(t);
}

static void ask_in_halves(struct talker *t)
{
	uint32_t nfds;

	if (t->half) {
		say(t, t->rest + 5, t->rest_len - 5, 0);
		await(t);
	} else {
		t->rest_len = compose(t, t->rest, &nfds);
		say(t, t->rest, 5, nfds);
	}
	t->half = !t->half;
}

/* On the puppet's thread, before it deals with a message. */
static bool on_message(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	struct talker *t = p->arg;

	(void)msg;
	(void)req;
	if (p->in_session == 1) /* a new connection */
		t->half = t->owes = false;
	if (atomic_load(&p->channel) < 0)
		return false;
	if (t->when == BEFORE)
		ask_at_once(t);
	else if (t->when == ACROSS)
		ask_in_halves(t);
	else if (t->owes)
		await(t);
	t->owes = false;
	return false;
}

/* AFTER: the request lies in the channel while the front-end reads the answer. The acknowledgement is taken before the
 * next message is dealt with, so the front-end has to give it although it waits for that answer. */
static bool on_message_after(struct puppet *p, const struct libvhost_req *req, const struct lv_user_msg *msg)
{
	struct talker *t = p->arg;
	uint8_t bytes[LV_USER_HDR + 64];
	uint32_t nfds, len;

	on_message(p, req, msg);
	if (atomic_load(&p->channel) < 0)
		return false;
	len = compose(t, bytes, &nfds);
	say(t, bytes, len, nfds);
	t->owes = true;
	return false;
}

static uint64_t longest;

static void well(const struct talker *t, const char *what, int rc, uint64_t begin)
{
	const uint64_t took = now_ms() - begin;

	longest = took > longest ? took : longest;
	if (rc || took > LIMIT_MS || atomic_load(&t->unanswered))
		lv_test_fail(__FILE__, __LINE__, "%s, request %u %s each answer: %d after %llu ms, %u not acknowledged",
			     what, t->which, when_names[t->when], rc, (unsigned long long)took,
			     atomic_load(&t->unanswered));
}

#define RUN(t, what, call)                                                                                             \
	do {                                                                                                           \
		const uint64_t begin = now_ms();                                                                       \
		well(t, what, call, begin);                                                                            \
	} while (0)

static int grow(struct talker *t, uint64_t gpa)
{
	struct libvhost_mem *mem = t->w.r.g.mem;
	uint32_t lost = 0;
	int rc = libvhost_mem_begin(mem);

	rc = rc ? rc : libvhost_mem_alloc(mem, gpa, 0x10000);
	rc = rc ? rc : libvhost_mem_commit(mem, 0, &lost);
	return rc ? rc : (int)lost;
}

static void open_device(struct talker *t)
{
	uint64_t at = 0;
	uint8_t uuid[16];

	wirerig_init(&t->w);
	t->file = memfd(PAGE, 0);
	t->w.p.arg = t;
	t->w.p.on_message = t->when == AFTER ? on_message_after : on_message;
	t->w.r.opts.flags = LIBVHOST_DEV_HOST_NOTIFIERS | LIBVHOST_DEV_SHARED_OBJECTS | LIBVHOST_DEV_USE_SHMEM;
	wirerig_uuid(uuid, 1);
	CHECK_EQ(libvhost_shared_object_add(t->w.r.g.ctx, uuid, t->file), 0);
	RUN(t, "init", (wirerig_open(&t->w), 0));
	CHECK_EQ(libvhost_dev_shmem_window(t->w.r.dev, 1, &at, WINDOW), 0);
}

static void live(struct talker *t)
{
	struct libvhost_dev *dev;
	uint8_t config[4];

	open_device(t);
	dev = t->w.r.dev;
	RUN(t, "start", libvhost_dev_start(dev, NULL));
	RUN(t, "get_config", libvhost_dev_get_config(dev, 0, config, sizeof(config), 0));
	RUN(t, "set_config", libvhost_dev_set_config(dev, 0, config, sizeof(config), 0, 0));
	RUN(t, "mask", libvhost_virtqueue_mask(dev, 2, 1));
	RUN(t, "unmask", libvhost_virtqueue_mask(dev, 2, 0));
	RUN(t, "set_kick", libvhost_dev_set_kick(dev, 2, t->file));
	RUN(t, "set_call", libvhost_dev_set_call(dev, 2, t->file));
	RUN(t, "stop_queue", libvhost_dev_stop_queue(dev, 3, 0));
	RUN(t, "start_queue", libvhost_dev_start_queue(dev, 3, 0));
	RUN(t, "commit", grow(t, 0x10000000));
	RUN(t, "stop", libvhost_dev_stop(dev, NULL));
	RUN(t, "start again", libvhost_dev_start(dev, NULL));
	RUN(t, "reconnect", libvhost_dev_reconnect(dev, NULL));
	RUN(t, "commit after it", grow(t, 0x20000000));
	RUN(t, "reset", libvhost_dev_reset(dev, NULL));
	CHECK(atomic_load(&t->asked) > 20);
	close(t->file);
	wirerig_close(&t->w);
}

TEST(hostile_channel, r137_both_wait_for_each_other)
{
	uint32_t asked = 0;

	longest = 0;
	for (uint32_t when = 0; when < MODES; when++)
		for (uint32_t which = 0; which < CASES; which++) {
			struct talker t = {.which = which, .when = (enum when)when};

			live(&t);
			asked += atomic_load(&t.asked);
		}
	printf("# %u requests of the back-end between the answers, longest operation %llu ms\n", asked,
	       (unsigned long long)longest);
}

/* ---- the same with our own back-end on the other side ---- */

struct asker {
	struct libvhost_backend *b;
	struct libvhost_req req; /* sent before each answer */
	int file;
	atomic_bool stop;
	atomic_uint asked, failed;
	pthread_t thread;
};

static void behave(struct libvhost_req *req)
{
	if (req->op == LIBVHOST_OP_GET_FEATURES)
		req->result[0] = PUPPET_FEATURES;
	else if (req->op == LIBVHOST_OP_GET_PROTOCOL_FEATURES)
		req->result[0] = PUPPET_PF(MQ) | PUPPET_PF(REPLY_ACK) | PUPPET_PF(BACKEND_REQ) | PUPPET_PF(CONFIG) |
				 PUPPET_PF(BACKEND_SEND_FD) | PUPPET_PF(HOST_NOTIFIER) | PUPPET_PF(SHARED_OBJECT) |
				 PUPPET_PF(INBAND_NOTIFICATIONS) | PUPPET_PF(SHMEM_MAP);
	else if (req->op == LIBVHOST_OP_GET_QUEUE_NUM)
		req->result[0] = DEVRIG_QUEUES;
	else if (req->op == LIBVHOST_OP_GET_CONFIG)
		req->data_out_len = req->arg.config.size;
}

static int ask_and_answer(void *arg, struct libvhost_req *req)
{
	struct asker *a = arg;
	struct libvhost_req mine = a->req;
	int rc = libvhost_backend_request(a->b, &mine, LIMIT_MS);

	if (rc != -ENOTCONN) {
		atomic_fetch_add(&a->asked, 1);
		if (rc == -ETIMEDOUT || rc == -EPROTO || rc == -ECONNRESET || rc == -EPIPE || rc == -EBUSY)
			atomic_fetch_add(&a->failed, 1);
	}
	if (mine.out_flags & LIBVHOST_REQ_OUT_FD)
		close(mine.out_fd);
	if (req->op == LIBVHOST_OP_GET_CONFIG)
		memset((void *)(uintptr_t)req->data_out, 7, req->arg.config.size);
	behave(req);
	return 0;
}

static void *serve(void *arg)
{
	struct asker *a = arg;

	while (!atomic_load(&a->stop))
		libvhost_backend_dispatch(a->b, 5);
	return NULL;
}

static struct libvhost_req own_request(uint32_t which, int file)
{
	static const uint32_t ops[CASES] = {LIBVHOST_OP_BACKEND_IOTLB_MSG,
					    LIBVHOST_OP_BACKEND_CONFIG_CHANGE,
					    LIBVHOST_OP_BACKEND_VRING_HOST_NOTIFIER,
					    LIBVHOST_OP_BACKEND_VRING_HOST_NOTIFIER,
					    LIBVHOST_OP_BACKEND_VRING_CALL,
					    LIBVHOST_OP_BACKEND_VRING_ERR,
					    LIBVHOST_OP_BACKEND_SHARED_OBJECT_ADD,
					    LIBVHOST_OP_BACKEND_SHARED_OBJECT_REMOVE,
					    LIBVHOST_OP_BACKEND_SHARED_OBJECT_LOOKUP,
					    LIBVHOST_OP_BACKEND_SHMEM_MAP,
					    LIBVHOST_OP_BACKEND_SHMEM_UNMAP};
	struct libvhost_req req = {.op = ops[which], .index = 1};

	if (which == 2 || which == 9) {
		req.flags = LIBVHOST_REQ_HAS_FD;
		req.fd = file;
	}
	if (which == 0)
		req.arg.iotlb = (struct libvhost_req_iotlb){.iova = 0x1000, .perm = 1, .type = 1};
	else if (which == 2)
		req.arg.area.size = PAGE;
	else if (which == 3)
		req.arg.area.flags = LV_WIRE_AREA_REMOVE;
	else if (which >= 6 && which <= 8)
		wirerig_uuid(req.arg.uuid, which == 8 ? 1 : 2);
	else if (which >= 9)
		req.arg.mmap = (struct libvhost_req_mmap){.shmid = 1, .len = PAGE};
	return req;
}

static void listen_as_back_end(struct asker *a, struct wirerig *w)
{
	const struct libvhost_backend_ops ops = {.size = sizeof(ops), .on_request = ask_and_answer};
	const struct libvhost_backend_opts opts = {
		.size = sizeof(opts), .num_queues = DEVRIG_QUEUES, .ops = &ops, .arg = a};

	CHECK_EQ(libvhost_backend_new(w->r.g.ctx, &opts, &a->b), 0);
	CHECK_EQ(libvhost_backend_listen(a->b, w->path), 0);
	CHECK_EQ(pthread_create(&a->thread, NULL, serve, a), 0);
}

static void live_with_our_own(uint32_t which)
{
	struct wirerig w;
	struct asker a = {.file = -1};
	uint64_t at = 0;
	uint8_t config[4], uuid[16];

	wirerig_init(&w);
	a.file = memfd(PAGE, 0);
	a.req = own_request(which, a.file);
	wirerig_uuid(uuid, 1);
	CHECK_EQ(libvhost_shared_object_add(w.r.g.ctx, uuid, a.file), 0);
	w.r.opts.flags = LIBVHOST_DEV_HOST_NOTIFIERS | LIBVHOST_DEV_SHARED_OBJECTS | LIBVHOST_DEV_USE_SHMEM;
	listen_as_back_end(&a, &w);
	CHECK_EQ(devrig_open(&w.r), 0);
	CHECK_EQ(libvhost_dev_shmem_window(w.r.dev, 1, &at, WINDOW), 0);
	devrig_queues(&w.r, DEVRIG_QUEUES);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_get_config(w.r.dev, 0, config, sizeof(config), 0), 0);
	CHECK_EQ(config[3], 7);
	CHECK_EQ(libvhost_virtqueue_mask(w.r.dev, 0, 1), 0);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_start(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
	CHECK_EQ(libvhost_dev_reset(w.r.dev, NULL), 0);
	CHECK_EQ(atomic_load(&a.failed), 0);
	CHECK(atomic_load(&a.asked) > 20);
	libvhost_dev_cleanup(w.r.dev);
	w.r.dev = NULL;
	atomic_store(&a.stop, true);
	CHECK_EQ(pthread_join(a.thread, NULL), 0);
	libvhost_backend_free(a.b);
	close(a.file);
	wirerig_close(&w);
}

TEST(hostile_channel, r137_our_own_back_end_asks_before_each_answer)
{
	for (uint32_t which = 0; which < CASES; which++)
		live_with_our_own(which);
}

/* ---- misses ---- */

static int count_miss(void *arg, struct libvhost_req *req)
{
	++*(unsigned *)arg;
	return req->op == LIBVHOST_OP_BACKEND_IOTLB_MSG ? -ENOENT : -ENOTSUP;
}

/* As many as the socket takes, which nobody wants an answer to. */
static unsigned flood(int channel, uint64_t *seed)
{
	struct lv_wire_iotlb miss = {.perm = 1, .type = 1};
	const struct lv_user_hdr hdr = {.request = ASK_IOTLB, .flags = LV_USER_VERSION, .size = sizeof(miss)};
	uint8_t bytes[LV_USER_HDR + sizeof(miss)];
	const struct lv_wire_msg msg = {.data = bytes, .len = sizeof(bytes)};
	unsigned sent = 0;
	size_t off = 0;

	do {
		*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
		miss.iova = *seed & ~0xfffull;
		lv_user_hdr_put(bytes, &hdr);
		memcpy(bytes + LV_USER_HDR, &miss, sizeof(miss));
		sent++;
	} while (lv_wire_send(channel, &msg, 1, &off) == 1 && sent < 1000);
	return sent - 1;
}

TEST(hostile_channel, r169_misses_of_random_addresses_cost_nothing_that_stays)
{
	const struct lv_wire_iotlb wrong = {.perm = 1, .type = 9};
	unsigned asked = 0, sent = 0, last;
	struct lv_ledger before, after;
	uint64_t seed = 1, begin, worst = 0;
	struct wirerig w;

	wirerig_init(&w);
	w.ops.on_request = count_miss;
	w.ops.arg = &asked;
	wirerig_start(&w);
	CHECK_EQ(wirerig_ask(&w, ASK_IOTLB, &wrong, sizeof(wrong), -1, NULL), -EINVAL);
	CHECK_EQ(asked, 0);
	before = lv_ledger_take();
	while (sent < 100000) {
		sent += flood(w.p.channel, &seed);
		last = asked;
		begin = now_ms();
		CHECK_EQ(libvhost_dev_dispatch(w.r.dev, 0), 0);
		worst = now_ms() - begin > worst ? now_ms() - begin : worst;
		CHECK(asked - last <= 64); /* the loop of the host goes on in between */
	}
	after = lv_ledger_take();
	printf("# %u misses sent, %u asked, longest dispatch %llu ms\n", sent, asked, (unsigned long long)worst);
	CHECK_EQ(after.heap, before.heap);
	CHECK_EQ(after.maps, before.maps);
	CHECK_EQ(devrig_state(&w.r), LIBVHOST_DEV_RUNNING);
	wirerig_close(&w);
}
