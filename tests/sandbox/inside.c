/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "check.h"
#include "inside.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "worker/sandbox.h"

struct job {
	struct lv_sandbox sandbox;
	struct lv_sandbox_result result;
	void (*fn)(void *arg);
	void *arg;
	bool entered;
};

static void *job_main(void *arg)
{
	struct job *job = arg;

	job->entered = lv_sandbox_enter(&job->sandbox, &job->result);
	if (job->entered)
		job->fn(job->arg);
	return NULL;
}

bool run_inside(const struct inside *how, void (*fn)(void *arg), void *arg)
{
	struct libvhost_worker_opts opts = {.role = how->role,
					    .action = how->action,
					    .caps = how->caps,
					    .num_syscalls = how->num_syscalls,
					    .syscalls = how->syscalls};
	struct job job = {.fn = fn, .arg = arg};
	sigset_t all, old;
	pthread_t thread;

	if (lv_sandbox_prepare(&job.sandbox, &opts, -1, how->guard, NULL) < 0)
		return false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, NULL, job_main, &job) == 0)
		pthread_join(thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	lv_sandbox_clear(&job.sandbox);
	return job.entered;
}

int status_of_child(void (*fn)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_DUMPABLE, 0); /* no core files of children that are meant to die */
		signal(SIGALRM, SIG_DFL);
		alarm(10);
		fn();
		_exit(0);
	}
	CHECK(pid > 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

uint64_t status_field(unsigned tid, const char *name, int base)
{
	char path[64], line[256];
	uint64_t value = UINT64_MAX;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%u/status", tid ? tid : (unsigned)gettid());
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			value = strtoull(line + strlen(name) + 1, NULL, base);
	if (f)
		fclose(f);
	return value;
}
