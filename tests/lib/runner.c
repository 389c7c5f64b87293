/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The plain TAP runner and what both runners share. Usage: PROGRAM [suite[/name]]... */
#include "check.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static unsigned count_lines(const char *path)
{
	FILE *f = fopen(path, "re");
	unsigned n = 0;
	int c;

	if (!f)
		return 0;
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

static unsigned count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	if (!d)
		return 0;
	while (readdir(d))
		n++;
	closedir(d);
	return n - 3; /* ".", "..", and opendir's own descriptor (threads: 3 is a constant offset) */
}

void lv_test_deadline(unsigned seconds)
{
	alarm(seconds);
}

struct lv_ledger lv_ledger_take(void)
{
	struct lv_ledger l;

	l.fds = count_entries("/proc/self/fd");
	l.threads = count_entries("/proc/self/task");
	l.maps = count_lines("/proc/self/maps");
	l.heap = mallinfo2().uordblks;
	return l;
}

void lv_ledger_check(const char *file, int line, const struct lv_ledger *before)
{
	struct lv_ledger now = {0};

	for (int i = 0; i < PATIENCE_MS / 10; i++) {
		now = lv_ledger_take();
		if (now.fds == before->fds && now.threads <= before->threads)
			break;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	if (now.fds != before->fds)
		lv_test_fail(file, line, "%u descriptors, %u before", now.fds, before->fds);
	/* fewer is no leak: a joined thread stays in /proc for a moment */
	if (now.threads > before->threads)
		lv_test_fail(file, line, "%u threads, %u before", now.threads, before->threads);
}

uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t now_ms(void)
{
	return now_us() / 1000;
}

#ifdef LV_CRITERION

void lv_test_fail(const char *file, int line, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	cr_assert_fail("%s:%d: %s", file, line, text);
	abort();
}

void lv_test_skip(const char *reason)
{
	cr_skip_test("%s", reason);
	abort();
}

#else

extern const struct lv_test *const __start_lv_tests[], *const __stop_lv_tests[];

static jmp_buf escape;
static char message[1200];
enum { RAN = 0, FAILED = 1, SKIPPED = 2 };
static pthread_t main_thread;
static const struct lv_test *running;

/* Only the thread that runs the tests can go on with the next one. */
_Noreturn static void bail_out(const char *why)
{
	printf("Bail out! %s/%s: %s\n", running->suite, running->name, why);
	fflush(stdout);
	_exit(2);
}

void lv_test_fail(const char *file, int line, const char *fmt, ...)
{
	char text[1024], all[sizeof(message)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	snprintf(all, sizeof(all), "%s:%d: %s", file, line, text);
	if (!pthread_equal(pthread_self(), main_thread))
		bail_out(all);
	memcpy(message, all, sizeof(message));
	longjmp(escape, FAILED);
}

void lv_test_skip(const char *reason)
{
	snprintf(message, sizeof(message), "%s", reason);
	longjmp(escape, SKIPPED);
}

/* A test that hangs is named: the suite's own time limit could only name the suite. */
static void too_long(int number)
{
	static const char text[] = "Bail out! takes too long: ";

	(void)number;
	if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0 ||
	    write(STDOUT_FILENO, running->name, strlen(running->name)) < 0 || write(STDOUT_FILENO, "\n", 1) < 0)
		_exit(3);
	_exit(2);
}

static bool selected(const struct lv_test *t, int argc, char **argv)
{
	char full[256];

	if (argc < 2)
		return true;
	snprintf(full, sizeof(full), "%s/%s", t->suite, t->name);
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], t->suite) || !strcmp(argv[i], full))
			return true;
	return false;
}

static void *nothing(void *arg)
{
	return arg;
}

/* A sanitizer starts its own helper thread beside the first thread of the program; ledgers must not see the change. */
static void start_helper_threads(void)
{
	pthread_t thread;

	if (!pthread_create(&thread, NULL, nothing, NULL))
		pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	size_t total = (size_t)(__stop_lv_tests - __start_lv_tests);
	volatile unsigned failed = 0, number = 0, threads;

	main_thread = pthread_self();
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, too_long);
	start_helper_threads();
	threads = lv_ledger_take().threads;
	for (volatile size_t i = 0; i < total; i++) {
		const struct lv_test *t = __start_lv_tests[i];

		if (!selected(t, argc, argv))
			continue;
		number = number + 1;
		running = t;
		alarm(600);
		switch (setjmp(escape)) {
		case RAN:
			t->fn();
			printf("ok %u - %s/%s\n", number, t->suite, t->name);
			break;
		case SKIPPED:
			printf("ok %u - %s/%s # SKIP %s\n", number, t->suite, t->name, message);
			break;
		default:
			printf("not ok %u - %s/%s\n# %s\n", number, t->suite, t->name, message);
			failed = failed + 1;
			/* what they work on was the test's: the next test would suffer, and be blamed */
			if (lv_ledger_take().threads > threads)
				bail_out("it failed and left threads behind");
		}
	}
	printf("1..%u\n", number);
	return failed || !number;
}

#endif
