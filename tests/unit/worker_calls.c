/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Calls that other threads have for a worker. */
#include "workerhelp.h"

#include <errno.h>

#define CALLERS	   4
#define PER_CALLER 500

struct counted {
	struct libvhost_call call;
	atomic_uint runs;
	pid_t ran_on;
};

static void count(struct libvhost_call *call, struct libvhost_vq *vq)
{
	struct counted *c = call->arg;

	(void)vq;
	c->ran_on = gettid();
	atomic_fetch_add(&c->runs, 1);
}

TEST(worker_calls, run_on_the_worker_while_it_sleeps)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct counted c = {.call = {.fn = count, .arg = &c}};

	CHECK_EQ(libvhost_worker_call(b.w, &c.call), 0);
	CHECK(becomes(&c.runs, 1));
	CHECK_EQ((uint32_t)c.ran_on, status(&b).tid);
	teardown(&b);
}

/* The handler keeps what it pops; other threads let the worker complete it. */
struct kept {
	struct libvhost_call call;
	uint32_t head;
};

struct keeper {
	struct kept kept[8];
	_Atomic(struct kept *) waiting[8];
	struct libvhost_worker *w;
	atomic_bool end;
};

static void complete_one(struct libvhost_call *call, struct libvhost_vq *vq)
{
	struct kept *k = call->arg;

	libvhost_vq_push(vq, k->head, 0);
}

static int keep(void *arg, struct libvhost_vq *vq)
{
	struct keeper *k = arg;
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc;

	while ((rc = libvhost_vq_pop(vq, &c)) > 0) {
		struct kept *at = &k->kept[c.head];

		*at = (struct kept){.call = {.fn = complete_one, .arg = at}, .head = c.head};
		if (libvhost_vq_promise(vq, &at->call) < 0)
			return -EIO;
		atomic_store(&k->waiting[c.head], at);
	}
	return rc;
}

static void *complete_from_elsewhere(void *arg)
{
	struct keeper *k = arg;

	while (!atomic_load(&k->end))
		for (int i = 0; i < 8; i++) {
			struct kept *at = atomic_exchange(&k->waiting[i], NULL);

			if (at && libvhost_worker_call(k->w, &at->call) != 0)
				abort();
		}
	return NULL;
}

TEST(worker_calls, other_threads_complete_each_request_once)
{
	struct bench b = setup(8, F_EVENT, LIBVHOST_WORKER_NO_WINDOW);
	struct keeper k = {.w = b.w};
	pthread_t threads[CALLERS];

	add(&b, b.r.kick, keep, &k);
	for (int i = 0; i < CALLERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, complete_from_elsewhere, &k), 0);
	for (uint64_t i = 0; i < 2000; i++) {
		offer_one(&b, i);
		if (!completed(&b, i))
			lv_test_fail(__FILE__, __LINE__, "request %llu was lost", (unsigned long long)i);
	}
	atomic_store(&k.end, true);
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	teardown(&b);
}

/* The host takes the queue away and gives it back all the time. */
TEST(worker_calls, a_queue_leaves_when_promised_calls_have_run)
{
	struct bench b = setup(8, F_EVENT, LIBVHOST_WORKER_NO_WINDOW);
	struct keeper k = {.w = b.w};
	struct libvhost_error e = {.size = sizeof(e)};
	pthread_t thread;

	add(&b, b.r.kick, keep, &k);
	offer_one(&b, 0);
	for (int i = 0; i < PATIENCE_MS && !atomic_load(&k.waiting[0]); i++)
		usleep(1000);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, 400), -ETIMEDOUT);
	CHECK_EQ(libvhost_worker_error(b.w, &e), 0);
	CHECK(strstr(e.text, "promised") != NULL);
	CHECK_EQ(pthread_create(&thread, NULL, complete_from_elsewhere, &k), 0);
	CHECK(completed(&b, 0));
	for (uint64_t i = 1; i < 1000; i++) {
		offer_one(&b, i);
		CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
		add(&b, b.r.kick, keep, &k);
		CHECK(completed(&b, i));
	}
	atomic_store(&k.end, true);
	pthread_join(thread, NULL);
	CHECK_EQ(libvhost_worker_remove_vq(b.w, b.r.dev, PATIENCE_MS), 0);
	CHECK_EQ(libvhost_vq_promise(b.r.dev, &k.kept[0].call), -EINVAL);
	CHECK_EQ(libvhost_vq_promise(NULL, &k.kept[0].call), -EINVAL);
	teardown(&b);
}

struct caller {
	struct libvhost_worker *w;
	struct counted calls[PER_CALLER];
};

static void *call_often(void *arg)
{
	struct caller *c = arg;

	for (int i = 0; i < PER_CALLER; i++) {
		c->calls[i].call = (struct libvhost_call){.fn = count, .arg = &c->calls[i]};
		if (libvhost_worker_call(c->w, &c->calls[i].call) != 0)
			abort();
	}
	return NULL;
}

TEST(worker_calls, each_runs_once_and_all_before_the_end)
{
	static struct caller callers[CALLERS];
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	pthread_t threads[CALLERS];
	struct counted late = {.call = {.fn = count, .arg = &late}};

	for (int i = 0; i < CALLERS; i++) {
		memset(&callers[i], 0, sizeof(callers[i]));
		callers[i].w = b.w;
		CHECK_EQ(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
	}
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0);
	for (int i = 0; i < CALLERS; i++)
		for (int n = 0; n < PER_CALLER; n++)
			CHECK_EQ(atomic_load(&callers[i].calls[n].runs), 1);
	CHECK_EQ(libvhost_worker_call(b.w, &late.call), -ESRCH);
	CHECK_EQ(atomic_load(&late.runs), 0);
	teardown(&b);
}

static void again(struct libvhost_call *call, struct libvhost_vq *vq)
{
	struct libvhost_worker *w = call->arg;
	static atomic_uint left;

	(void)vq;
	if (atomic_fetch_add(&left, 1) % 100 != 99)
		libvhost_worker_call(w, call);
}

TEST(worker_calls, a_call_that_calls_again_starves_nobody)
{
	struct bench b = setup(8, 0, LIBVHOST_WORKER_NO_WINDOW);
	struct libvhost_call call = {.fn = again, .arg = b.w};

	add(&b, b.r.kick, complete_all, NULL);
	CHECK_EQ(libvhost_worker_call(b.w, &call), 0);
	offer_one(&b, 1);
	CHECK(completed(&b, 1));
	CHECK_EQ(libvhost_worker_call(NULL, &call), -EINVAL);
	CHECK_EQ(libvhost_worker_call(b.w, NULL), -EINVAL);
	CHECK_EQ(libvhost_worker_call(b.w, &(struct libvhost_call){0}), -EINVAL);
	CHECK_EQ(libvhost_worker_stop(b.w, PATIENCE_MS), 0); /* before call goes out of scope */
	teardown(&b);
}
