/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Planted: two threads write one variable without order. */
#include <pthread.h>
#include <stddef.h>

static volatile int shared;

static void *write_it(void *arg)
{
	(void)arg;
	for (int i = 0; i < 1000; i++)
		shared = i;
	return NULL;
}

int main(void)
{
	pthread_t other;

	if (pthread_create(&other, NULL, write_it, NULL))
		return 0;
	write_it(NULL);
	pthread_join(other, NULL);
	return 0;
}
