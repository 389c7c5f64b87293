/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A managed device whose back-end says no, talks nonsense, or comes back able to do less. */
#include "wirerig.h"

#define OP(name) LIBVHOST_OP_##name

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
	wirerig_start(&w);
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
	wirerig_start(&w);
	CHECK_EQ(libvhost_dev_stop(w.r.dev, NULL), -EPROTO);
	CHECK_EQ(devrig_error(&w.r).kind, LIBVHOST_EK_PROTOCOL);
	CHECK_HAS(devrig_error(&w.r).text, "0x12345");
	CHECK_EQ(libvhost_dev_get_queue(w.r.dev, 1, &q), 0);
	CHECK_EQ(q.base, 0);
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, NULL), 0);
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
	const struct libvhost_call_opts patient = {.size = sizeof(patient), .timeout_ms = PATIENCE_MS};
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
	CHECK(devrig_await(&w.r, LIBVHOST_EVENT_DISCONNECTED, PATIENCE_MS, NULL));
	CHECK_EQ(libvhost_dev_reconnect(w.r.dev, &patient), -ENOTSUP);
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
