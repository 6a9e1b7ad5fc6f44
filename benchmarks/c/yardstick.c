/*
 * The model of kmbench, written out by hand for one strategy at a time: what the compiled engine's
 * speed is measured against.  Nothing here is used by kmbench.
 *
 * It serves what the benchmark's stream asks for (objects allocated and freed, groups created, RCU
 * delayed slabs) by the rules of Linux 6.18 on one node without sheaves.  The records and their
 * field names are those of kmbench/core/state.py: yardstick.py writes them to layout.h and hands
 * over the zeroed tables, so that every table of both can be compared afterwards.
 *
 *   cc -O3 -march=native -DSTRATEGY=NONE|COSTA_2012|LINUX_6_18 [-DLOOK_AHEAD] ...
 */
#include "sim.h"

#define NONE 0
#define COSTA_2012 1
#define LINUX_6_18 2

#define OBJECT_AHEAD 24
#define SLAB_AHEAD 10

/* one unit, so that everything can be inlined into the loop */
#include "buddy.h"
#include "counters.h"
#if STRATEGY == COSTA_2012
#include "costa_2012.h"
#elif STRATEGY == LINUX_6_18
#include "linux_6_18.h"
#else
#include "none.h"
#endif
#include "slub.h"
#include "objects.h"

/* --- events --- */

static void settle(struct sim *S, int cpu)
{
	struct kernel *k = S->k;

	for (int slab = k->release, next; slab; slab = next) {
		struct slab *s = &S->slab[slab];
		const struct cache *c = &S->cache[s->cache];

		next = s->next;
		strategy_slab_gone(S, s->cache, s->order, slab);
		if (s->vector) {
			const bool full = s->order == c->order;

			s->vector = 0;
			k->metadata -= full ? c->vector_bytes : c->min_vector_bytes;
			if (full ? c->vector_cache : c->min_vector_cache)
				queue_internal(S, FREE, cpu, 0, k->nr_objects + slab);
		}
		k->nr_slab_pages -= 1 << s->order;
		k->nr_free_pages += 1 << s->order;
		count(S, SLAB_GONE);
		free_pages(S, s->pfn, s->order);
		s->next = k->free_slab;
		s->cache = 0;
		k->free_slab = slab;
	}
	k->release = 0;
}

static rarely void log_failure(struct sim *S, const struct event *e, int cause)
{
	struct kernel *k = S->k;
	struct fail *f = &S->fail[k->nr_fail_rows];

	k->nr_failed++;
	k->nr_failed_pages += cause == FAIL_PAGES;
	k->nr_failed_limit += cause == FAIL_LIMIT;
	if (k->nr_fail_rows >= S->nr_fails_max)
		return;
	f->t = k->now;
	f->op = e->op;
	f->memcg = e->memcg;
	f->cache = e->cache;
	f->gfp = e->gfp;
	f->arg = e->arg;
	f->cause = cause;
	k->nr_fail_rows++;
}

/* What events left to do: slabs to release, and operations of the kernel's own. */
static void settle_all(struct sim *S, int cpu)
{
	struct kernel *k = S->k;

	while (k->release || k->internal_head != k->internal_tail) {
		struct internal item;

		settle(S, cpu);
		if (k->internal_head == k->internal_tail)
			break;
		item = S->internal[k->internal_head++ & S->internal_mask];
		k->nr_internal++;
		cpu = item.cpu;
		k->cpu = cpu;
		if (item.op == FREE) {
			if (S->obj[item.obj].slab > 0)
				free_object(S, cpu, item.obj);
		} else if (S->obj[item.obj].slab == 0) {
			alloc_object(S, cpu, 0, item.cache, 0, 0, item.obj);
		}
	}
}

/* End the grace periods that are over by t. */
static rarely void run_timers(struct sim *S, int64_t t, int cpu)
{
	struct kernel *k = S->k;

	while (k->next_due <= t) {
		const struct rcu *wait = &S->rcu[k->rcu_head++ & S->rcu_mask];

		k->now = k->next_due;
		k->cpu = wait->cpu;
		k->release = wait->slab;
		S->slab[wait->slab].next = 0;
		settle(S, wait->cpu);
		k->next_due = k->next_sample;
		if (k->rcu_head != k->rcu_tail && S->rcu[k->rcu_head & S->rcu_mask].due < k->next_due)
			k->next_due = S->rcu[k->rcu_head & S->rcu_mask].due;
		settle_all(S, cpu);
	}
}

static inline bool exists(struct sim *S, int memcg)
{
	const int state = S->memcg[memcg].state;

	return memcg <= 1 || state == ONLINE || state == OFFLINE;
}

static rarely void create_group(struct sim *S, const struct event *e)
{
	struct memcg *g = &S->memcg[e->memcg];

	g->parent = e->arg;
	g->state = ONLINE;
	g->objcg_memcg = e->memcg;
	g->has_id = 1;
	S->k->nr_ids++;
	count(S, GROUP_MADE);
	strategy_cg_create(S, e->memcg);
}

void run(struct sim *S, const struct event *events, int64_t start, int64_t stop)
{
	struct kernel *k = S->k;
	int cpu = 0;

	for (int64_t i = start; i < stop; i++) {
		const struct event *e = &events[i];

		if (unlikely(e->t >= k->next_due))
			run_timers(S, e->t, cpu);
#ifdef LOOK_AHEAD
		if (i + OBJECT_AHEAD < stop) {
			int slab = S->obj[events[i + SLAB_AHEAD].obj].slab;

			__builtin_prefetch(&S->obj[events[i + OBJECT_AHEAD].obj], 1, 3);
			__builtin_prefetch(&S->slab[slab > 0 ? slab : 0], 1, 3);
		}
#endif
		k->now = e->t;
		cpu = e->cpu;
		k->cpu = cpu;
		k->task = e->task;
		switch (e->op) {
		case FREE:
			if (S->obj[e->obj].slab > 0) {
				free_object(S, cpu, e->obj);
				k->nr_frees++;
			} else {
				k->nr_skipped++;
			}
			break;
		case ALLOC:
			if (S->obj[e->obj].slab == 0) {
				int failed = FAIL_NO_GROUP;

				if (exists(S, e->memcg))
					failed = alloc_object(S, cpu, e->memcg, e->cache, e->gfp,
							      e->arg, e->obj);
				k->nr_allocs++;
				if (unlikely(failed))
					log_failure(S, e, failed);
			} else {
				k->nr_skipped++;
			}
			break;
		case CG_CREATE:
			create_group(S, e);
			break;
		default:
			abort(); /* the stream has nothing else */
		}
		k->nr_events++;
		if (unlikely(k->release || k->internal_head != k->internal_tail))
			settle_all(S, cpu);
	}
}
