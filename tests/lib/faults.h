/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * The n-th allocation, descriptor, mapping or epoll entry of this thread fails, once or from then on. A program that
 * links this interposes the calls. Not for sanitizers, which interpose the same.
 */
#ifndef LV_TESTS_FAULTS_H
#define LV_TESTS_FAULTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_class { FAULT_NONE, FAULT_MEMORY, FAULT_FD, FAULT_MAP, FAULT_INOTIFY, FAULT_EPOLL };

struct faults {
	enum fault_class what;
	uint32_t at; /* this call fails, counted from 0 */
	bool on;     /* and all later ones */
	uint32_t count;
	bool hit;
	size_t largest; /* allocation and mapping that was asked for; set to 0 by the test */
	size_t longest;
};
extern _Thread_local struct faults fault;
extern atomic_long faults_live; /* allocations not freed, of all threads */

void faults_on(enum fault_class what, uint32_t at, bool on);
void faults_off(void);

/* One life with one fault: how many calls of the class it makes; operations that failed are added to *failures. */
typedef uint32_t (*faults_life)(enum fault_class what, uint32_t at, bool on, uint32_t *failures);

struct faults_seen {
	uint32_t calls, failures;
};

/* A life without a fault, which makes at least so many calls, and one for each of them. None leaves anything over. */
struct faults_seen faults_everywhere(faults_life life, enum fault_class what, bool on, uint32_t least);

#endif
