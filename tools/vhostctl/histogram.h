/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Latencies in logarithmic buckets: 16 per doubling, from 2^-30 s (1 ns) up; quantiles are exact to about 4 percent. */
#ifndef VHOSTCTL_HISTOGRAM_H
#define VHOSTCTL_HISTOGRAM_H

#include <math.h>
#include <stdint.h>

#define HISTOGRAM_STEPS	  16
#define HISTOGRAM_BUCKETS (40 * HISTOGRAM_STEPS)

struct histogram {
	uint64_t total, bucket[HISTOGRAM_BUCKETS];
};

static inline void histogram_add(struct histogram *h, double seconds)
{
	int i = (int)((log2(seconds > 1e-9 ? seconds : 1e-9) + 30) * HISTOGRAM_STEPS);

	h->bucket[i < 0 ? 0 : i >= HISTOGRAM_BUCKETS ? HISTOGRAM_BUCKETS - 1 : i]++;
	h->total++;
}

static inline double histogram_quantile(const struct histogram *h, double q)
{
	uint64_t seen = 0, want = (uint64_t)(q * (double)h->total);

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen > want)
			return exp2((i + 0.5) / HISTOGRAM_STEPS - 30);
	}
	return 0;
}

#endif
