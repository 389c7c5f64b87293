/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* What a peer offers: limits at connect, the comparison with the remembered peer at resume. */
#include "device/compile.h"

#include <errno.h>
#include <string.h>

enum { VIRTIO_NET = 1, VIRTIO_BLOCK = 2 };

bool lv_read_features(const struct lv_program *prog, uint64_t words[LIBVHOST_FEATURE_WORDS])
{
	const struct libvhost_req *wide = lv_done(prog, LIBVHOST_OP_GET_FEATURES_ARRAY);
	const struct libvhost_req *req = wide ? wide : lv_done(prog, LIBVHOST_OP_GET_FEATURES);

	if (!req)
		return false;
	memset(words, 0, LIBVHOST_FEATURE_WORDS * sizeof(*words));
	words[0] = req->result[0];
	words[1] = wide ? req->result[1] : 0;
	return true;
}

/* DPDK's network back-ends answer pairs, and QEMU reads pairs; the specification says queues, and so do libvhost-user,
 * rust-vmm's back-ends and ours. With those the limit is too generous, and they refuse the first ring beyond theirs. */
static uint32_t queue_count(const struct lv_plan_env *env, uint64_t answer)
{
	if (env->caps->dialect == LIBVHOST_DIALECT_USER && env->rec->virtio_id == VIRTIO_NET && answer < UINT32_MAX)
		answer *= 2;
	return answer > LIBVHOST_MAX_QUEUES ? LIBVHOST_MAX_QUEUES : (uint32_t)answer;
}

/* Without a message that tells: one pair, one queue, or as many as a device of the kind has by definition. */
static uint32_t queues_untold(const struct lv_plan_env *env)
{
	if (env->caps->dialect != LIBVHOST_DIALECT_USER)
		return env->wanted_queues;
	switch (env->rec->virtio_id) {
	case VIRTIO_NET:
		return 2;
	case VIRTIO_BLOCK:
		return 1;
	default:
		return env->wanted_queues;
	}
}

/* SET_MEM_TABLE of vhost-user has 8 entries whatever a transport of the caller says; the kernel's has what it says. */
static uint32_t table_regions(const struct libvhost_transport_caps *caps)
{
	const uint32_t max = caps->max_regions;

	if (caps->dialect != LIBVHOST_DIALECT_USER)
		return max;
	return max && max < 8 ? max : 8;
}

int lv_take_limits(struct lv_compile *c)
{
	const struct lv_plan_env *env = c->env;
	struct lv_record *rec = env->rec;
	struct lv_where where = LV_WHERE_NONE;
	uint64_t value;

	rec->max_queues =
		lv_result(c->prog, LIBVHOST_OP_GET_QUEUE_NUM, &value) ? queue_count(env, value) : queues_untold(env);
	rec->max_regions = table_regions(env->caps);
	if (lv_result(c->prog, LIBVHOST_OP_GET_MAX_MEM_SLOTS, &value))
		rec->max_regions = value > LIBVHOST_MAX_REGIONS ? LIBVHOST_MAX_REGIONS : (uint32_t)value;
	if (rec->max_queues >= env->wanted_queues)
		return 0;
	where.op = LIBVHOST_OP_GET_QUEUE_NUM;
	return lv_fail_at(c->err, -ENOSPC, LIBVHOST_EK_UNSUPPORTED, &where,
			  "%s: %u queues wanted, the back-end has %u: ask for fewer or give it more", env->caps->peer,
			  env->wanted_queues, rec->max_queues);
}

static int shrunk(struct lv_errslot *err, const struct lv_plan_env *env, uint32_t op, const char *what, uint64_t was,
		  uint64_t now)
{
	struct lv_where where = LV_WHERE_NONE;

	where.op = op;
	return lv_fail_at(err, -ENOTSUP, LIBVHOST_EK_SHRUNK, &where,
			  "%s: the back-end came back with less: %s was %llu, is %llu; start it as before, or make the "
			  "device anew",
			  env->caps->peer, what, (unsigned long long)was, (unsigned long long)now);
}

static int lost_bit(struct lv_errslot *err, const struct lv_plan_env *env, uint32_t op, const char *name, int bit)
{
	struct lv_where where = LV_WHERE_NONE;

	where.op = op;
	return lv_fail_at(
		err, -ENOTSUP, LIBVHOST_EK_SHRUNK, &where,
		"%s: the back-end came back without %s (bit %d, %s); start it as before, or make the device anew",
		env->caps->peer, name ? name : "a feature", bit, libvhost_op_name(op));
}

static int check_bits(const struct lv_plan_env *env, const struct lv_program *prog, struct lv_errslot *err)
{
	const struct lv_record *rec = env->rec;
	uint64_t words[LIBVHOST_FEATURE_WORDS], value;
	int bit;

	if (lv_read_features(prog, words)) {
		bit = lv_features_lost(rec->offered, words, LIBVHOST_FEATURE_WORDS);
		if (bit >= 0)
			return lost_bit(err, env, LIBVHOST_OP_GET_FEATURES,
					libvhost_feature_name(rec->virtio_id, (uint32_t)bit), bit);
	}
	if (lv_result(prog, LIBVHOST_OP_GET_PROTOCOL_FEATURES, &value)) {
		bit = lv_features_lost(&rec->protocol_acked, &value, 1);
		if (bit >= 0)
			return lost_bit(err, env, LIBVHOST_OP_GET_PROTOCOL_FEATURES,
					libvhost_protocol_feature_name((uint32_t)bit), bit);
	}
	if (lv_result(prog, LIBVHOST_OP_GET_BACKEND_FEATURES, &value)) {
		bit = lv_features_lost(&rec->backend_acked, &value, 1);
		if (bit >= 0)
			return lost_bit(err, env, LIBVHOST_OP_GET_BACKEND_FEATURES, "a back-end feature", bit);
	}
	return 0;
}

static const struct libvhost_req *config_probe(const struct lv_program *prog)
{
	uint32_t i;

	for (i = 0; i < prog->count; i++)
		if (prog->reqs[i].op == LIBVHOST_OP_GET_CONFIG)
			return &prog->reqs[i];
	return NULL;
}

int lv_check_resume(const struct lv_plan_env *env, const struct lv_program *prog, struct lv_errslot *err)
{
	const struct libvhost_req *config = config_probe(prog);
	uint64_t value;
	int ret = check_bits(env, prog, err);

	if (ret)
		return ret;
	if (lv_result(prog, LIBVHOST_OP_GET_QUEUE_NUM, &value) && queue_count(env, value) < env->wanted_queues)
		return shrunk(err, env, LIBVHOST_OP_GET_QUEUE_NUM, "the number of queues", env->rec->max_queues,
			      queue_count(env, value));
	if (lv_result(prog, LIBVHOST_OP_GET_MAX_MEM_SLOTS, &value) && value < env->mem->count)
		return shrunk(err, env, LIBVHOST_OP_GET_MAX_MEM_SLOTS, "the number of memory slots",
			      env->rec->max_regions, value);
	if (config && config->state == LIBVHOST_REQ_FAILED)
		return shrunk(err, env, LIBVHOST_OP_GET_CONFIG, "the size of configuration space", env->rec->config_len,
			      0);
	if (config && config->state == LIBVHOST_REQ_DONE && config->data_out_len < env->rec->config_len)
		return shrunk(err, env, LIBVHOST_OP_GET_CONFIG, "the size of configuration space", env->rec->config_len,
			      config->data_out_len);
	return 0;
}

void lv_take_config(struct lv_compile *c)
{
	const struct libvhost_req *config = config_probe(c->prog);

	if (config && config->state == LIBVHOST_REQ_DONE)
		memcpy(c->env->rec->config, (const void *)(uintptr_t)config->data_out, c->env->rec->config_len);
}

void lv_add_config_probe(struct lv_compile *c)
{
	struct lv_record *rec = c->env->rec;
	struct libvhost_req *req;
	void *out;

	if (!rec->config_len || rec->config_len > LV_RECORD_CONFIG || !c->env->lead)
		return;
	out = lv_program_alloc(c->prog, rec->config_len);
	req = lv_add(c, LIBVHOST_OP_GET_CONFIG);
	req->flags |= LIBVHOST_REQ_OPTIONAL; /* refused = shrunk, which the check says better */
	req->arg.config.size = rec->config_len;
	req->data_out = (uint64_t)(uintptr_t)out;
	req->data_out_cap = rec->config_len;
}

int lv_check_status(struct lv_compile *c, uint64_t bit)
{
	struct lv_where where = LV_WHERE_NONE;
	uint64_t status;

	if (!lv_result(c->prog, LIBVHOST_OP_GET_STATUS, &status) || (status & bit))
		return 0;
	where.op = LIBVHOST_OP_GET_STATUS;
	where.peer_ack = status;
	return lv_fail_at(
		c->err, -ENOTSUP, LIBVHOST_EK_REFUSED, &where,
		bit == LV_STATUS_FEATURES_OK
			? "%s: the back-end does not accept the features (FEATURES_OK did not stick, status %#llx)"
			: "%s: the back-end did not start (DRIVER_OK did not stick, status %#llx)",
		c->env->caps->peer, (unsigned long long)status);
}
