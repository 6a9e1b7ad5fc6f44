/* What all parts share: the tables, which are those of kmbench/core/state.py, and small helpers. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "layout.h"

#define unlikely(x) __builtin_expect(!!(x), 0)
#define rarely __attribute__((noinline, cold))

/* Tables, and the strategy's own; lengths that the model needs. */
struct sim {
	struct kernel *k;
	struct object *obj;
	struct slab *slab;
	struct cpu_cache *cpu;
	struct node_cache *node;
	struct cache *cache;
	struct memcg *memcg;
	struct counter *counter;
	struct stock *stock;
	struct child *child;
	struct path *path;
	struct unbilled *unbilled;
	struct pfn *pfn;
	struct area *area;
	struct internal *internal;
	struct rcu *rcu;
	struct fail *fail;
	struct byte_stock *byte_stock; /* linux-6.18: one slot of MAX_SLOTS is in use */
	struct left *left;
	struct mode *mode;
	struct selected *selected; /* costa-2012 */
	int32_t internal_mask, rcu_mask, nr_pfns, nr_caches_max, nr_fails_max, independent;
};

enum { NOMEM = -100, PAST_SHEAVES = 1 };

static inline void count(struct sim *S, int path)
{
	S->path[path].count++;
}

static inline struct cpu_cache *cpu_cache(struct sim *S, int cache, int cpu)
{
	return &S->cpu[cache * S->k->nr_cpus + cpu];
}

/* --- the kernel's own operations, run after the event that caused them --- */

static inline void queue_internal(struct sim *S, int op, int cpu, int cache, int obj)
{
	struct internal *item = &S->internal[S->k->internal_tail++ & S->internal_mask];

	item->op = op;
	item->cpu = cpu;
	item->cache = cache;
	item->obj = obj;
}

static inline int holder(struct sim *S, int memcg)
{
	while (S->memcg[memcg].objcg_memcg != memcg)
		memcg = S->memcg[memcg].objcg_memcg;
	return memcg;
}
