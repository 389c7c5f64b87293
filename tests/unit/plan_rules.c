/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Rules that hold for every program of every dialect, over random devices and peers. */
#include "planrig.h"

#include <errno.h>
#include <stdlib.h>
#include "protocol/codec.h"

#define ROUNDS 3000

/* What one run has said so far. Segments are what a barrier or a program's end separates. */
static struct seen {
	uint32_t position, segment;
	uint32_t num[256], base[256], addr[256], call[256], kick[256], enable[256], get_base[256]; /* 0 = not said */
	uint32_t features, memory, status_live, last_setup;
	uint64_t sent_features, status;
} seen;

static uint64_t seed;
static uint32_t round_no;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % below;
}

static bool chance(uint32_t percent)
{
	return rnd(100) < percent;
}

#define RULE(rig, cond)                                                                                                \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			lv_test_fail(__FILE__, __LINE__, "round %u: %s; last programs: %.700s", round_no, #cond,       \
				     strlen((rig)->text) > 700 ? (rig)->text + strlen((rig)->text) - 700               \
							       : (rig)->text);                                         \
	} while (0)

static void once(struct planrig *rig, uint32_t *slot)
{
	RULE(rig, *slot == 0);
	*slot = seen.position;
}

static void see_setup(struct planrig *rig, const struct libvhost_req *req)
{
	uint32_t i = req->index;

	switch (req->op) {
	case LIBVHOST_OP_SET_FEATURES:
		once(rig, &seen.features);
		seen.sent_features = req->arg.u64;
		break;
	case LIBVHOST_OP_SET_MEM_TABLE:
	case LIBVHOST_OP_ADD_MEM_REG:
	case LIBVHOST_OP_REM_MEM_REG:
		seen.memory = seen.position;
		break;
	case LIBVHOST_OP_SET_VRING_NUM:
		once(rig, &seen.num[i]);
		break;
	case LIBVHOST_OP_SET_VRING_BASE:
		once(rig, &seen.base[i]);
		break;
	case LIBVHOST_OP_SET_VRING_ADDR:
		RULE(rig, seen.num[i] && seen.base[i] && !seen.kick[i]);
		once(rig, &seen.addr[i]);
		break;
	case LIBVHOST_OP_SET_VRING_CALL:
		once(rig, &seen.call[i]);
		break;
	default:
		return;
	}
	seen.last_setup = seen.segment;
}

/* KICK, ENABLE 1 and DRIVER_OK come after a wait that confirmed the whole setup. */
static void see_run(struct planrig *rig, const struct libvhost_req *req)
{
	uint32_t i = req->index;

	switch (req->op) {
	case LIBVHOST_OP_SET_VRING_KICK:
		RULE(rig, seen.addr[i] && seen.call[i] && seen.features);
		RULE(rig, seen.segment > seen.last_setup);
		once(rig, &seen.kick[i]);
		break;
	case LIBVHOST_OP_SET_VRING_ENABLE:
		if (!req->arg.num)
			break;
		RULE(rig, seen.kick[i] && seen.segment > seen.last_setup);
		once(rig, &seen.enable[i]);
		break;
	case LIBVHOST_OP_SET_STATUS:
		RULE(rig, !req->arg.u64 || !(seen.status & ~req->arg.u64));
		RULE(rig, !(req->arg.u64 & LV_STATUS_DRIVER_OK) || seen.segment > seen.last_setup);
		seen.status = req->arg.u64;
		break;
	case LIBVHOST_OP_GET_VRING_BASE:
		once(rig, &seen.get_base[i]);
		break;
	}
}

static void see_fd(struct planrig *rig, const struct libvhost_req *req)
{
	RULE(rig, req->flags & LIBVHOST_REQ_HAS_FD ? req->fd >= 0 : req->fd == 0);
	RULE(rig, req->op != LIBVHOST_OP_REM_MEM_REG || !(req->flags & LIBVHOST_REQ_HAS_FD));
}

/* Everything a vhost-user plan says is allowed by what was negotiated, and fits the wire. */
static void see_wire(struct planrig *rig, const struct libvhost_req *req)
{
	const struct lv_user_session session = {
		.protocol_features = rig->rec->protocol_acked,
		.f30_offered = rig->features[0] & F30,
		.f30_acked = seen.sent_features & F30 || rig->phase != LV_PLAN_START,
	};
	const char *why = NULL;
	uint8_t buf[LV_USER_HDR + LV_USER_MAX_PAYLOAD];
	int fds[LV_USER_MAX_FDS];
	uint32_t nfds = 0;

	if (rig->caps.dialect != LIBVHOST_DIALECT_USER || req->op == LIBVHOST_OP_SET_BACKEND_REQ_FD)
		return;
	if (lv_user_gate(lv_op(req->op), &session, &why))
		lv_test_fail(__FILE__, __LINE__, "round %u: %s: %s", round_no, libvhost_op_name(req->op), why);
	if (lv_user_encode(req, &session, 0, buf, sizeof(buf), fds, &nfds, &why) < 0)
		lv_test_fail(__FILE__, __LINE__, "round %u: %s: %s", round_no, libvhost_op_name(req->op), why);
}

static void look(struct planrig *rig)
{
	seen.segment++;
	for (uint32_t i = 0; i < rig->prog.count; i++) {
		const struct libvhost_req *req = &rig->prog.reqs[i];

		seen.position++;
		if (req->flags & LIBVHOST_REQ_BARRIER)
			seen.segment++;
		see_fd(rig, req);
		see_wire(rig, req);
		see_setup(rig, req);
		see_run(rig, req);
	}
}

static int run(struct planrig *rig, enum lv_plan_kind kind)
{
	static const uint32_t limit[] = {3, 2, 1, 2, 1, 1};
	int ret;

	memset(&seen, 0, sizeof(seen));
	seen.status = rig->status;
	rig->phase = kind;
	rig->text[0] = 0;
	ret = planrig_run(rig, kind);
	if (rig->caps.dialect != LIBVHOST_DIALECT_USER && kind == LV_PLAN_CONNECT)
		RULE(rig, rig->waits <= 2);
	RULE(rig, rig->waits <= limit[kind]);
	return ret;
}

/* A start or resume that ended well: each queue in use was set up once, all before the first kick. */
static void check_started(struct planrig *rig)
{
	bool enables = rig->caps.dialect == LIBVHOST_DIALECT_VDPA ||
		       (rig->caps.dialect == LIBVHOST_DIALECT_USER && (rig->features[0] & F30));
	uint32_t first_addr = UINT32_MAX, last_num = 0;

	for (uint32_t i = 0; i < rig->rec->num_queues; i++) {
		const struct lv_record_queue *q = &rig->rec->queue[i];
		bool used = q->flags & LV_RQ_SET, live = used && !(q->flags & LV_RQ_DISABLED);

		RULE(rig, !!seen.num[i] == used && !!seen.addr[i] == used && !!seen.call[i] == used);
		RULE(rig, !!seen.kick[i] == (enables ? used : live));
		RULE(rig, !!seen.enable[i] == (enables && live));
		RULE(rig, !!(q->flags & LV_RQ_RUNNING) == !!seen.kick[i]);
		if (used) {
			first_addr = seen.addr[i] < first_addr ? seen.addr[i] : first_addr;
			last_num = seen.num[i] > last_num ? seen.num[i] : last_num;
		}
	}
	RULE(rig, seen.memory < first_addr && last_num < first_addr);
	RULE(rig, !(seen.sent_features & (LV_BIT(LV_F_NET_HDR) | LV_BIT(LV_F_LOG_ALL))));
	if (rig->caps.dialect == LIBVHOST_DIALECT_USER)
		RULE(rig, (seen.sent_features & F30) == (rig->features[0] & F30));
	if (rig->caps.dialect != LIBVHOST_DIALECT_VDPA)
		RULE(rig, !(seen.sent_features & LV_BIT(LV_F_ACCESS_PLATFORM)));
}

static void check_stopped(struct planrig *rig, const struct lv_record *before)
{
	bool asks = rig->caps.dialect != LIBVHOST_DIALECT_VDPA || (rig->backend & LV_BIT(LV_BF_SUSPEND));

	for (uint32_t i = 0; i < before->num_queues; i++) {
		bool ran = before->queue[i].flags & LV_RQ_RUNNING;

		RULE(rig, !!seen.get_base[i] == (ran && asks));
		RULE(rig, !(rig->rec->queue[i].flags & LV_RQ_RUNNING));
		RULE(rig, !!(rig->rec->queue[i].flags & LV_RQ_BASE_STALE) == (ran && !asks));
		if (ran && asks)
			RULE(rig, rig->rec->queue[i].base == rig->bases[i]);
	}
}

static struct planrig *random_rig(void)
{
	static const uint32_t ids[] = {0, 1, 2, 18, 26};
	uint32_t queues = 1 + rnd(chance(5) ? 256 : 12);
	struct planrig *rig = planrig_new(rnd(3), ids[rnd(5)], queues);

	rig->features[0] = ((uint64_t)rnd(UINT32_MAX) << 16) ^ rnd(UINT32_MAX);
	rig->features[0] = chance(80) ? rig->features[0] | F30 : rig->features[0] & ~F30;
	rig->features[0] &= ~LV_BIT(LV_F_RING_PACKED);
	rig->protocol = rnd(1 << 24);
	if (queues > 1)
		rig->protocol |= PF(MQ);
	rig->backend = rnd(1 << 10);
	rig->queues = 256;
	rig->slots = 10;
	rig->env.has_on_request = chance(50);
	rig->env.dev_flags = rnd(64);
	rig->env.protocol_never = chance(50) ? 0 : rnd(1 << 24) & ~PF(MQ);
	planrig_memory(rig, 1 + rnd(8));
	for (uint32_t i = 0; i < queues; i++) {
		rig->fds[i] = (struct lv_queue_fds){chance(80) ? (int)rnd(50) : -1, chance(80) ? (int)rnd(50) : -1,
						    chance(80) ? (int)rnd(50) : -1, chance(80) ? (int)rnd(50) : -1};
		if (i == queues - 1 || chance(60))
			planrig_queue(rig, i,
				      rnd(16) << 1 &
					      (LV_RQ_DISABLED | LV_RQ_MASKED | LV_RQ_KICK_POLL | LV_RQ_CALL_POLL));
	}
	rig->look = look;
	return rig;
}

static void live(struct planrig *rig)
{
	struct lv_record *before;

	RULE(rig, run(rig, LV_PLAN_START) == 0);
	check_started(rig);
	planrig_sent(rig);
	planrig_memory(rig, 1 + rnd(8));
	RULE(rig, run(rig, LV_PLAN_MEMORY) == 0);
	planrig_sent(rig);
	if (chance(50)) {
		rig->status = 0;
		RULE(rig, run(rig, LV_PLAN_RESUME) == 0);
		check_started(rig);
	}
	before = lv_record_dup(rig->rec);
	RULE(rig, run(rig, LV_PLAN_STOP) == 0);
	check_stopped(rig, before);
	free(before);
	for (uint32_t i = 0; i < rig->rec->num_queues; i++)
		rig->rec->queue[i].flags &= ~(uint32_t)LV_RQ_BASE_STALE;
}

TEST(plan_rules, hold_for_random_devices)
{
	seed = 20240229;
	for (round_no = 0; round_no < ROUNDS; round_no++) {
		struct planrig *rig = random_rig();

		/* A block device without MQ has one queue; the queues wanted may be refused, never exceeded. */
		if (run(rig, LV_PLAN_CONNECT) == 0) {
			memcpy(rig->rec->acked, rig->rec->offered, sizeof(rig->rec->acked));
			live(rig);
			live(rig);
			RULE(rig, run(rig, LV_PLAN_RESET) == 0);
		} else {
			RULE(rig, rig->rec->max_queues < rig->rec->num_queues);
		}
		planrig_free(rig);
	}
}

/* Wherever a peer refuses, the plan stops there and what was already read is kept. */
TEST(plan_rules, a_refusal_anywhere_keeps_what_was_read)
{
	seed = 7;
	for (round_no = 0; round_no < 500; round_no++) {
		struct planrig *rig = random_rig();
		struct lv_record *before;

		if (run(rig, LV_PLAN_CONNECT) == 0) {
			memcpy(rig->rec->acked, rig->rec->offered, sizeof(rig->rec->acked));
			RULE(rig, run(rig, LV_PLAN_START) == 0);
			before = lv_record_dup(rig->rec);
			rig->fail_op = LIBVHOST_OP_GET_VRING_BASE;
			rig->fail_after = rnd(rig->rec->num_queues);
			if (run(rig, LV_PLAN_STOP) == -EIO) {
				uint32_t kept = 0;

				for (uint32_t i = 0; i < before->num_queues; i++) {
					bool ran = before->queue[i].flags & LV_RQ_RUNNING;
					bool runs = rig->rec->queue[i].flags & LV_RQ_RUNNING;

					RULE(rig, runs <= ran);
					RULE(rig, rig->rec->queue[i].base ==
							  (ran && !runs ? rig->bases[i] : before->queue[i].base));
					kept += ran && !runs;
				}
				RULE(rig, kept == rig->fail_after);
			}
			free(before);
		}
		planrig_free(rig);
	}
}
