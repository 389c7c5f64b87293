/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Test bodies are plain functions. Compiled with LV_CRITERION they become Criterion tests (one process each); without
 * it they register with the plain TAP runner (tests/lib/runner.c), which is what the sanitizers run: Criterion hides
 * leaks and aborts under TSan.
 *
 *   TEST(memory, refuses_overlap) { CHECK_EQ(libvhost_mem_add(mem, &r), -EEXIST); }
 *
 * A failed CHECK ends the test. SKIP(reason) ends it too; it is printed and counted.
 */
#ifndef LV_TESTS_CHECK_H
#define LV_TESTS_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* How long a test waits for what has to happen. Machines stand still for seconds; only a failure lasts so long. */
#define PATIENCE_MS 60000
/* What is to end long before its usual deadline of 5 s, which is what it would take if it were forgotten. */
#define PROMPT_MS 4000

typedef void (*lv_test_fn)(void);
struct lv_test {
	const char *suite, *name;
	lv_test_fn fn;
};

_Noreturn void lv_test_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
_Noreturn void lv_test_skip(const char *reason);

#ifdef LV_CRITERION
#include <criterion/criterion.h>
#define LV_TEST_REGISTER(s, n)                                                                                         \
	Test(s, n)                                                                                                     \
	{                                                                                                              \
		lv_test_##s##__##n();                                                                                  \
	}
#else
#define LV_TEST_REGISTER(s, n)                                                                                         \
	static const struct lv_test lv_entry_##s##__##n = {#s, #n, lv_test_##s##__##n};                                \
	static const struct lv_test *const lv_ptr_##s##__##n __attribute__((section("lv_tests"), used)) =              \
		&lv_entry_##s##__##n;
#endif

#define TEST(s, n)                                                                                                     \
	static void lv_test_##s##__##n(void);                                                                          \
	LV_TEST_REGISTER(s, n)                                                                                         \
	static void lv_test_##s##__##n(void)

#define SKIP(reason) lv_test_skip(reason)

#define CHECK(cond)                                                                                                    \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			lv_test_fail(__FILE__, __LINE__, "%s", #cond);                                                 \
	} while (0)

#define CHECK_EQ(a, b)                                                                                                 \
	do {                                                                                                           \
		long long lv_a = (long long)(a), lv_b = (long long)(b);                                                \
		if (lv_a != lv_b)                                                                                      \
			lv_test_fail(__FILE__, __LINE__, "%s = %lld (%#llx), expected %s = %lld (%#llx)", #a, lv_a,    \
				     (unsigned long long)lv_a, #b, lv_b, (unsigned long long)lv_b);                    \
	} while (0)

#define CHECK_STR(a, b)                                                                                                \
	do {                                                                                                           \
		const char *lv_a = (a), *lv_b = (b);                                                                   \
		if (!lv_a || !lv_b || strcmp(lv_a, lv_b))                                                              \
			lv_test_fail(__FILE__, __LINE__, "%s = \"%s\", expected \"%s\"", #a, lv_a ? lv_a : "(null)",   \
				     lv_b ? lv_b : "(null)");                                                          \
	} while (0)

#define CHECK_HAS(a, part)                                                                                             \
	do {                                                                                                           \
		const char *lv_a = (a), *lv_b = (part);                                                                \
		if (!lv_a || !strstr(lv_a, lv_b))                                                                      \
			lv_test_fail(__FILE__, __LINE__, "%s = \"%s\" does not contain \"%s\"", #a,                    \
				     lv_a ? lv_a : "(null)", lv_b);                                                    \
	} while (0)

#define CHECK_MEM(a, b, n)                                                                                             \
	do {                                                                                                           \
		const unsigned char *lv_a = (const void *)(a), *lv_b = (const void *)(b);                              \
		for (size_t lv_i = 0; lv_i < (size_t)(n); lv_i++)                                                      \
			if (lv_a[lv_i] != lv_b[lv_i])                                                                  \
				lv_test_fail(__FILE__, __LINE__,                                                       \
					     "%s differs from %s at byte %zu: %02x, expected %02x", #a, #b, lv_i,      \
					     lv_a[lv_i], lv_b[lv_i]);                                                  \
	} while (0)

/* For a test that would wait for ever if what it looks for were broken: it fails after so long, by its name. */
void lv_test_deadline(unsigned seconds);

/* What a process holds; two of them must be equal around anything that cleans up after itself. */
struct lv_ledger {
	unsigned fds, maps, threads;
	size_t heap;
};
struct lv_ledger lv_ledger_take(void);
/* Fails the test when something is left over; waits for threads to be gone. */
#define CHECK_LEDGER(before) lv_ledger_check(__FILE__, __LINE__, &(before))
void lv_ledger_check(const char *file, int line, const struct lv_ledger *before);

/* Of the monotonic clock. */
uint64_t now_us(void);
uint64_t now_ms(void);

#endif
